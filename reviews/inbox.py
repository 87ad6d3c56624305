"""Opens a review when a step is escalated and closes it when its run is cancelled, in the same transaction."""

from django.dispatch import receiver

from reviews import groups, live
from reviews.models import Review, Risk
from runs import commands, signals
from runs.engine.canonical import digest
from runs.engine.events import Fact, Kind
from runs.engine.state import StepState


@receiver(signals.escalated)
def open_review(*, run_id: int, agent: str, step: StepState, fact: Fact, **kwargs: object) -> None:
    """Put the question of this step to people."""
    data = fact.data
    to = groups.route(agent, data["cause"])
    review = Review.objects.create(
        run_id=run_id,
        position=step.position,
        agent=agent,
        step_name=step.name,
        worker=step.worker,
        title=step.title,
        cause=data["cause"],
        subject=data["subject"],
        proposal=data["proposal"],
        schema=data["schema"],
        allowed=data["allowed"],
        why=data["why"],
        confidence=data.get("confidence"),
        threshold=data.get("threshold"),
        fingerprint=commands.seen(step),
        same=digest(step.worker, data["cause"], data["subject"], data["proposal"]),
        effect=step.effect,
        risk=data.get("risk", Risk.NORMAL),
        rule=data.get("rule", ""),
        approvals=data.get("approvals", 1),
        default=data.get("default", ""),
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
    state = Review.State.EXPIRED if fact.kind == Kind.STEP_EXPIRED else Review.State.CANCELLED
    reviews = Review.objects.open().filter(run_id=run_id)
    reviews = reviews if fact.step is None else reviews.filter(position=fact.step)
    for review in reviews.select_for_update():
        review.state, review.closed_at = state, fact.at
        review.save(update_fields=["state", "closed_at"])
        live.nudge(review.pk)
