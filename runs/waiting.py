"""Why runs and steps do not move: looks up for many at once what the sentences of reasons tell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runs import dispatch, event_log, reasons
from runs.engine.events import Kind
from runs.engine.policy import Cause
from runs.models import Run, RunStatus, Step, StepStatus, held
from runs.models.run import OPEN_AWAITED

LATE = timedelta(seconds=10)  # so soon after its time the sweeper has woken a run


@dataclass(frozen=True, slots=True)
class OpenReview:
    """Of a run that waits for a person; `claimed` is who is at it, and until when."""

    pk: int
    position: int
    claimed: tuple[str, datetime] | None


def steps(run_id: int, found: Iterable[Step]) -> dict[int, tuple[str, datetime | None]]:
    """Position -> why this step does not move, and until when, of those that wait for something else than a person."""
    parked = [step.position for step in found if step.status in (StepStatus.RETRYING, StepStatus.WAITING)]
    if not parked:
        return {}
    said = event_log.rows(run_id).filter(step__in=parked, kind__in=reasons.STEP_WAITS).values_list("step", "kind", "data")
    last = {position or 0: (kind, data) for position, kind, data in said}
    return {position: (_told(kind, data), _moment(data)) for position, (kind, data) in last.items()}


def _told(kind: str, data: dict[str, Any]) -> str:
    until, sentence = _moment(data), reasons.step_waits(kind, data)
    return f"{sentence} That time has passed." if sentence and until and _is_late(until) else sentence


def _moment(data: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(data["wake_at"]) if data.get("wake_at") else None


def _is_late(until: datetime) -> bool:
    return until < datetime.now(UTC) - LATE


@dataclass(frozen=True, slots=True)
class Waits:
    """One sentence with the cause and, where it is known, the time; the dependency that holds it back, where one does."""

    sentence: str
    dependency: str = ""
    reviews: tuple[OpenReview, ...] = ()


def answers(runs: Iterable[Run]) -> dict[int, Waits]:
    """Run -> why it does not move, of those that do not.

    As many questions for fifty runs as for one, and none that none of them needs.
    """
    found = list(runs)
    known = _Known(found)
    told = {run.pk: known.answer(run) for run in found}
    return {run_id: answer for run_id, answer in told.items() if answer.sentence}


def answer(run: Run) -> Waits:
    """The same of one run; an empty sentence where it moves or has ended."""
    return answers([run]).get(run.pk, Waits(""))


def open_reviews(runs: Iterable[Run]) -> dict[int, list[OpenReview]]:
    """Run -> the questions that are open, the oldest first. For a look at a sample nobody waits."""
    wanted = {"pk__in": [run.pk for run in runs], "reviews__state": "open", "reviews__cause__in": list(Cause)}
    asked = Run.objects.filter(**wanted).order_by("pk", "reviews__pk")
    claim = ("reviews__claim__reviewer__username", "reviews__claim__until")
    found: dict[int, list[OpenReview]] = {}
    for run_id, pk, position, who, until in asked.values_list("pk", "reviews__pk", "reviews__position", *claim):
        claimed = (who, until) if until and until > datetime.now(UTC) else None
        found.setdefault(run_id, []).append(OpenReview(pk, position, claimed))
    return found


class _Known:
    """What the database and the queue say of these runs, each asked once."""

    def __init__(self, runs: Sequence[Run]) -> None:
        by_status = {status: [run for run in runs if run.status == status] for status in {run.status for run in runs}}
        waiting = by_status.get(RunStatus.WAITING, [])
        parked = [*waiting, *by_status.get(RunStatus.RETRYING, [])]
        self.steps = _steps([run for run in parked if run.waiting_step and run.waiting_cause not in ("timer", "children")])
        self.held = held.said(waiting)
        self.reviews = open_reviews(parked) if parked else {}
        self.asked = _last_said([run for run in _by_cause(waiting, "person") if run.wake_at], Kind.STEP_ESCALATED)
        self.deferred = _last_said(_by_cause(waiting, "later"), Kind.STEP_DEFERRED)
        self.open = _open_children(_by_cause(waiting, "children"))
        self.for_a_moment = _held_for_a_moment(by_status.get(RunStatus.RUNNING, []))
        self.late = {run.pk for run in parked if run.wake_at and _is_late(run.wake_at)}
        self.asks_queue = bool(RunStatus.QUEUED in by_status or self.late)
        self.queue = dispatch.look() if self.asks_queue else None

    def answer(self, run: Run) -> Waits:
        reviews = tuple(self.reviews.get(run.pk, ()))
        dependency = self.held.get(run.pk, {}).get("dependency", "")
        return Waits(reasons.waiting(run, self._wait(run, reviews)), dependency, reviews)

    def _wait(self, run: Run, reviews: tuple[OpenReview, ...]) -> reasons.Wait:
        if running := self.for_a_moment.get(run.pk):
            return running
        place = (run.pk, run.waiting_step or 0)
        deadlines = [self.asked.get((run.pk, review.position), {}).get("deadline") for review in reviews]
        return reasons.Wait(
            step=self.steps.get(place),
            asked=len(reviews) or 1,
            expires=bool(run.wake_at) and any(until and datetime.fromisoformat(until) == run.wake_at for until in deadlines),
            open_children=self.open.get(run.pk, 0),
            why=self.held.get(run.pk, self.deferred.get(place, {})).get("why", ""),
            by_limit="budget" in self.held.get(run.pk, {}),
            others=tuple(self.held.get(run.pk, {}).get("others", ())),
            claimed=tuple(review.claimed for review in reviews if review.claimed),
            before=self.queue.before.get(run.pk) if self.queue else None,
            processes=self.queue.processes if self.queue else None,
            no_queue=self.asks_queue and self.queue is None,
            late=run.pk in self.late,
        )


def _by_cause(runs: Iterable[Run], cause: str) -> list[Run]:
    return [run for run in runs if run.waiting_cause == cause]


def _steps(runs: list[Run]) -> dict[tuple[int, int], Step]:
    if not runs:
        return {}
    places = {run.waiting_step or 0 for run in runs}
    found = Step.objects.filter(run__in=[run.pk for run in runs], position__in=places)
    return {(step.run_id, step.position): step for step in found}


def _held_for_a_moment(runs: list[Run]) -> dict[int, reasons.Wait]:
    """Of running ones: their step was held back for so short a time that they wait for it without being parked."""
    found = {(run_id, step): data["why"] for run_id, step, data in held.for_a_moment(runs)} if runs else {}
    steps = Step.objects.filter(run__in=[run_id for run_id, _ in found]) if found else []
    places = {(step.run_id, step.position): step for step in steps}
    return {place[0]: reasons.Wait(places[place], why=why) for place, why in found.items() if place in places}


def _last_said(runs: list[Run], kind: Kind) -> dict[tuple[int, int], dict[str, Any]]:
    return event_log.last_said([run.pk for run in runs], kind) if runs else {}


def _open_children(runs: list[Run]) -> dict[int, int]:
    if not runs:
        return {}
    found = Run.objects.filter(pk__in=[run.pk for run in runs]).annotate(open_awaited=OPEN_AWAITED)
    return dict(found.values_list("pk", "open_awaited"))
