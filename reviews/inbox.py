"""Opens a review when a step is escalated and closes it when its run is cancelled, in the same transaction."""

from typing import Any

from django.dispatch import receiver

from reviews import groups, live
from reviews.models import Cause, Review, Risk
from runs import commands, sdk, signals
from runs.engine.canonical import digest
from runs.engine.events import Fact, Kind
from runs.engine.policy import OF_A_SAMPLE, Subject
from runs.engine.state import StepState

Ending = Review.Ending


@receiver(signals.escalated)
def open_review(*, run_id: int, agent: str, step: StepState, fact: Fact, **kwargs: object) -> None:
    """Put the question of this step to people."""
    _open(run_id, agent, step, fact, fact.data, fingerprint=commands.seen(step))


@receiver(signals.sampled)
def open_sample(*, run_id: int, agent: str, step: StepState, fact: Fact, **kwargs: object) -> None:
    """Show people a result that was not held up; its run has gone on. Nobody is shown more than the agent's cap."""
    most = commands.configuration(agent).reviews_per_agent
    if most is not None and Review.objects.open().filter(agent=agent, cause=Cause.SAMPLE).count() >= most:
        return
    worker = sdk.find_worker(step.worker)
    schema = worker.output.json_schema() if worker else {}
    asked = {"cause": Cause.SAMPLE.value, "subject": Subject.OUTPUT, "proposal": step.output, "schema": schema}
    asked |= {"allowed": list(OF_A_SAMPLE), "why": DRAWN, "risk": "low"}
    asked |= {"confidence": step.confidence, "threshold": step.threshold}
    fingerprint = digest(step.fingerprint, asked["cause"], asked["subject"], step.output, step.attempt)
    _open(run_id, agent, step, fact, asked, fingerprint=fingerprint)


DRAWN = "It was drawn at random, to see whether it is right. Its run has gone on and does not wait for it."


def _open(run_id: int, agent: str, step: StepState, fact: Fact, asked: dict[str, Any], *, fingerprint: str) -> None:
    to = groups.route(agent, asked["cause"])
    review = Review.objects.create(
        run_id=run_id,
        position=step.position,
        agent=agent,
        step_name=step.name,
        worker=step.worker,
        title=step.title,
        cause=asked["cause"],
        subject=asked["subject"],
        proposal=asked["proposal"],
        schema=asked["schema"],
        allowed=asked["allowed"],
        why=asked["why"],
        confidence=asked.get("confidence"),
        threshold=asked.get("threshold"),
        fingerprint=fingerprint,
        same=digest(step.worker, asked["cause"], asked["subject"], step.input, asked["proposal"]),
        effect=step.effect,
        risk=Risk[asked.get("risk", "normal").upper()],
        rule=asked.get("rule", ""),
        approvals=asked.get("approvals", 1),
        default=asked.get("default", ""),
        due_at=step.deadline,
        opened_at=fact.at,
        group_id=to.group_id,
        second_group_id=to.second_group_id,
        escalate_at=groups.escalates_at(to, fact.at, step.deadline),
        tell_at=fact.at,
    )
    live.nudge(review.pk)


@receiver(signals.withdrawn)
def close_reviews(*, run_id: int, fact: Fact, **kwargs: object) -> None:
    """The time ran out, or the run ended: nobody need answer any more, about that step or about any."""
    state, ending = Review.State.CANCELLED, Ending.RUN_ENDED
    if fact.kind == Kind.STEP_EXPIRED:
        state, ending = Review.State.EXPIRED, Ending(fact.data.get("default", Ending.NO_ANSWER))
    elif fact.data.get("cause") == Cause.CODE_CHANGED:
        ending = Ending.CODE_CHANGED
    reviews = Review.objects.open().filter(run_id=run_id).exclude(cause=Cause.SAMPLE)
    reviews = reviews if fact.step is None else reviews.filter(position=fact.step)
    for review in reviews.select_for_update():
        review.state, review.closed_at, review.ending = state, fact.at, ending
        review.save(update_fields=["state", "closed_at", "ending"])
        live.nudge(review.pk, state)
