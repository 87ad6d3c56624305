"""How a run and its steps spent their time: after each event, what each of them did or waited for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from .events import Fact, Kind
from .state import CHANGE_EVERY_STEP, RunState, apply
from .step import BEGINNINGS, Status, StepState, moment


class Phase(StrEnum):
    QUEUE = "queue"  # it can go on, and no process has come to it yet
    WAITING = "waiting"  # for a time, a dependency, other runs, or room among the open reviews
    WORK = "work"
    PERSON = "person"


class Ending(StrEnum):
    """How an attempt ended that did not come to a result."""

    FAILED = "failed"
    LOST = "lost"  # with its process: nobody knows when


@dataclass(frozen=True, slots=True)
class Span:
    """`attempt` and `ending` are of work; `is_open`: it goes on."""

    phase: str
    start: datetime
    end: datetime
    attempt: int = 0
    ending: str = ""
    is_open: bool = False

    @property
    def took(self) -> timedelta:
        return self.end - self.start


@dataclass(slots=True)
class Line:
    """The spans of one step, or of the run, in order, and the events that are worth a mark."""

    spans: list[Span] = field(default_factory=list)
    marks: list[Fact] = field(default_factory=list)
    phase: str = ""  # of the span that is open
    since: datetime | None = None
    until: datetime | None = None  # it waits up to then; after that for a process
    attempt: int = 0

    def turn(self, at: datetime, phase: str, *, until: datetime | None = None, attempt: int = 0, ending: str = "") -> None:
        """What was open ends, as `ending` says, and the phase begins; "" for none."""
        goes_on = phase == self.phase != Phase.WORK and until == self.until
        if goes_on:
            return
        self.spans += self._ended(at, ending)
        self.phase, self.since, self.until, self.attempt = phase, at if phase else None, until, attempt

    def whole(self, now: datetime) -> list[Span]:
        """With the open span as far as it has come."""
        return self.spans + list(self._ended(now, "", is_open=True))

    def total(self, phase: str) -> timedelta:
        """Of what has ended. An attempt that its process did not survive has no end, and counts as nothing."""
        return sum((one.took for one in self.spans if one.phase == phase and one.ending != Ending.LOST), timedelta())

    @property
    def asked(self) -> datetime | None:
        """Since when a person is asked."""
        return self.since if self.phase == Phase.PERSON else None

    def _ended(self, at: datetime, ending: str, *, is_open: bool = False) -> Iterator[Span]:
        if self.since is None:
            return
        turned = min(at, self.until) if self.until else at
        if turned > self.since or self.phase == Phase.WORK:
            yield Span(self.phase, self.since, turned, self.attempt, ending, is_open and turned == at)
        if at > max(turned, self.since):
            yield Span(Phase.QUEUE, max(turned, self.since), at, is_open=is_open)


@dataclass(slots=True)
class History:
    """What the events say of some steps of a run, or of all, and of the run itself meanwhile."""

    state: RunState = field(default_factory=RunState)
    run: Line = field(default_factory=Line)
    steps: dict[int, Line] = field(default_factory=dict)


MARKED = {
    Kind.FALLBACK_TAKEN, Kind.STEP_DECIDED, Kind.DECISION_REVOKED, Kind.STEP_EXPIRED,
    Kind.ATTEMPT_FAILED, Kind.ATTEMPT_CRASHED,
}  # fmt: skip
CHANGE_OTHERS = CHANGE_EVERY_STEP | {Kind.RUN_WOKEN, Kind.STEP_DECIDED}  # a raised budget wakes each step that it held back
ATTEMPTS = {Kind.STEP_STARTED, Kind.ATTEMPT_STARTED}
ENDINGS: dict[str, Ending] = {Kind.ATTEMPT_FAILED: Ending.FAILED, Kind.ATTEMPT_CRASHED: Ending.LOST}
ENDINGS |= dict.fromkeys(ATTEMPTS, Ending.LOST)


def history(facts: Iterable[Fact]) -> History:
    """Fold the facts once. They may leave out whole steps: what is said of those is passed over."""
    told = History()
    for fact in facts:
        if fact.step is None or fact.step in told.state.steps or fact.kind in BEGINNINGS:
            _move(told, fact)
        _move_run(told.run, fact)
    return told


def _move(told: History, fact: Fact) -> None:
    apply(told.state, fact)
    for position in told.state.steps if fact.kind in CHANGE_OTHERS else [fact.step] if fact.step else []:
        line, step = told.steps.setdefault(position, Line()), told.state.steps[position]
        if fact.kind == Kind.STEP_DEFERRED and position == fact.step:
            line.phase = Phase.WAITING  # it was no attempt
        phase, until = _of_step(step, fact)
        ending = ENDINGS.get(fact.kind, "") if line.phase == Phase.WORK and position == fact.step else ""
        line.turn(fact.at, phase, until=until, attempt=step.attempt, ending=ending)
    if fact.kind in MARKED and fact.step:
        told.steps[fact.step].marks.append(fact)


def _of_step(step: StepState, fact: Fact) -> tuple[str, datetime | None]:
    """The phase in which the event left the step, and until when it lasts where that is known."""
    if step.status == Status.RUNNING:
        return Phase.WORK, None
    if step.status == Status.QUEUED:
        return _until(step.effective_at)
    if step.status == Status.RETRYING:
        return _until(step.wake_at or _pause(fact))
    if step.status == Status.WAITING:
        return (Phase.PERSON, None) if step.asked else (Phase.WAITING, step.wake_at)
    return "", None


def _until(at: datetime | None) -> tuple[str, datetime | None]:
    return (Phase.WAITING, at) if at else (Phase.QUEUE, None)


def _pause(fact: Fact) -> datetime | None:
    """Until when its process itself waits before another attempt."""
    seconds = fact.data.get("wait_seconds") if fact.kind == Kind.ATTEMPT_FAILED else None
    return fact.at + timedelta(seconds=seconds) if seconds else None


TAKEN = {Kind.RUN_STARTED, Kind.RUN_RESUMED, Kind.RUN_TAKEN_OVER}
READY = {Kind.RUN_REQUESTED, Kind.RUN_RELEASED, Kind.RUN_WOKEN, Kind.RUN_RETRIED}
ENDED = {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED}


def _move_run(line: Line, fact: Fact) -> None:
    """By its own events, because those of its steps may be left out; a decision lets it go on."""
    if fact.kind in TAKEN or (fact.kind in ATTEMPTS and line.since is None):  # the facts begin in the middle of the run
        line.turn(fact.at, Phase.WORK)
    elif fact.kind in READY:
        line.turn(fact.at, Phase.QUEUE)
    elif fact.kind in ENDED:
        line.turn(fact.at, "")
    elif fact.kind == Kind.RUN_PARKED and fact.data["cause"] == Phase.PERSON:
        line.turn(fact.at, Phase.PERSON)
    elif fact.kind == Kind.RUN_PARKED:
        line.turn(fact.at, Phase.WAITING, until=moment(fact.data.get("wake_at")))
    elif fact.kind == Kind.STEP_DECIDED and line.phase in (Phase.PERSON, Phase.WAITING):
        phase, until = _until(moment(fact.data.get("effective_at")))
        line.turn(fact.at, phase, until=until)
