"""The reviews of stories of the past, and who decided them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.contrib.auth.models import User

from reviews.models import Decision, Review, Risk
from runs import commands
from runs.engine.canonical import digest
from runs.engine.events import Fact, Kind
from runs.engine.state import RunState, StepState

STATE = Review.State


@dataclass
class Question:
    """A review, and its decision where there is one: as the signals of the log would have made them."""

    review: Review
    decision: Decision | None = None
    by: str = ""


@dataclass
class People:
    """Accounts by their names."""

    known: dict[str, User] = field(default_factory=dict)

    def of(self, name: str) -> User:
        if name not in self.known:
            self.known[name] = User.objects.get(username=name)
        return self.known[name]


def hear(questions: list[Question], run_id: int, state: RunState, fact: Fact) -> None:
    """What this fact, which the state knows already, opens or ends."""
    if fact.kind == Kind.STEP_ESCALATED and fact.step:
        questions.append(Question(_opened(run_id, state.agent, state.steps[fact.step], fact)))
    elif fact.kind == Kind.STEP_DECIDED:
        _decided(questions[-1], fact)
    elif fact.kind == Kind.RUN_CANCELLED and questions and questions[-1].review.is_open:
        review = questions[-1].review
        review.state, review.closed_at, review.ending = STATE.CANCELLED, fact.at, Review.Ending.RUN_ENDED


def _opened(run_id: int, agent: str, step: StepState, fact: Fact) -> Review:
    """People are not told of it: it is old, or one of many."""
    said = fact.data
    return Review(
        run_id=run_id, agent=agent, position=step.position, step_name=step.name, worker=step.worker, title=step.title,
        cause=said["cause"], subject=said["subject"], proposal=said["proposal"], schema=said["schema"], allowed=said["allowed"],
        why=said["why"], confidence=said.get("confidence"), threshold=said.get("threshold"), fingerprint=commands.seen(step),
        same=digest(step.worker, said["cause"], said["subject"], step.input, said["proposal"]), effect=step.effect,
        risk=Risk[said["risk"].upper()], opened_at=fact.at,
    )  # fmt: skip


def _decided(question: Question, fact: Fact) -> None:
    review, said = question.review, fact.data
    review.state, review.closed_at = STATE.DECIDED, fact.at
    edited = said["value"] if said["decision"] in Decision.CARRIES_VALUE else None
    question.by = fact.actor
    question.decision = Decision(
        kind=said["decision"], value=edited, reason=said["reason"], seen_fingerprint=review.fingerprint, decided_at=fact.at,
        opened_at=review.opened_at,
    )  # fmt: skip


def write(questions: Iterable[Question], people: People) -> None:
    """All of them, with what was decided."""
    found = list(questions)
    Review.objects.bulk_create([one.review for one in found])
    decisions = []
    for one in found:
        if one.decision:
            one.decision.review, one.decision.actor = one.review, people.of(one.by)
            decisions.append(one.decision)
    Decision.objects.bulk_create(decisions)
