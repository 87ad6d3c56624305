"""The state of a run as a pure fold over its events: the same code for the executor, the projections and the audit."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .budget import WHOLE_RUN
from .events import Fact, Kind
from .step import BEGINNINGS, Status, StepState, begun, cancelled, copied, moment, position_of, restored, tried_again, woken
from .step import CHANGES as STEP_CHANGES

__all__ = ["CHANGE_EVERY_STEP", "ENDED", "RunState", "Status", "StepState", "apply", "copied", "fold"]


PAUSES = ("person", "undo", "reviews", "budget", "children")  # causes of waits in which the clock of a run stands
UNDO = "undo"  # the cause of a wait until a decision can no longer be taken back
ENDED = frozenset({Status.SUCCEEDED, Status.PARTIAL, Status.FAILED, Status.CANCELLED})


@dataclass
class RunState:
    """Everything the events of one run say. Mutable: `apply` moves it forward, event by event."""

    agent: str = ""
    agent_version: str = ""
    input: Any = None
    summary: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    status: str = Status.QUEUED
    waiting_cause: str = ""
    waiting_step: int | None = None
    wake_at: datetime | None = None
    waiting_runs: list[int] | None = None  # those of its children that it waits for
    output: Any = None
    error: dict[str, Any] | None = None
    failed_step: int | None = None  # the step whose rejection ended the run
    cancel_requested: bool = False
    fence: int = 0  # of the last taking that came to write something
    forked_from: int | None = None  # the run whose first steps this one took over
    forked_step: int | None = None  # the first step that it executes itself
    override: dict[str, Any] | None = None  # what a person gave that step: worker, input
    parent_id: int | None = None
    depth: int = 0  # how many runs stand above it
    took_seconds: float = 0.0  # while its clock went, and since when it goes: see `seconds`
    clock_since: datetime | None = None
    raised: dict[str, str] = field(default_factory=dict)  # unit -> the limit to which a person raised it for this run
    started_by: str = ""
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: dict[int, StepState] = field(default_factory=dict)
    seq: int = 0
    head_hash: str = ""
    last_at: datetime | None = None
    set_apart: frozenset[str] = frozenset()  # of input and output: what is too large for a row

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def seconds(self, now: datetime) -> float:
        """Since its first start, without the time in which it waited for people, or for the runs that it started."""
        return self.took_seconds + ((now - self.clock_since).total_seconds() if self.clock_since else 0.0)

    def copy(self) -> "RunState":
        """With the same dict of steps."""
        copied = RunState.__new__(RunState)
        copied.__dict__.update(self.__dict__)
        return copied


def fold(facts: Iterable[Fact], state: RunState | None = None) -> RunState:
    """Apply the facts in order to the state (a new one where none is given) and return it."""
    state = state or RunState()
    for fact in facts:
        apply(state, fact)
    return state


def apply(state: RunState, fact: Fact) -> None:
    """Move the state over one fact. A kind this code does not know changes nothing but the cursor."""
    if change := CHANGES.get(fact.kind):
        change(state, fact)
    elif change_step := STEP_CHANGES.get(fact.kind):
        position = position_of(fact)
        before = state.steps[position]
        state.steps[position] = change_step(before, fact)
        if fact.kind == Kind.STEP_DECIDED:
            _step_decided(state, fact, before)
        if fact.kind == Kind.DECISION_REVOKED and state.status != Status.RUNNING:
            _moves(state, Status.QUEUED)  # it looks anew what it waits for
    elif fact.kind in BEGINNINGS:
        state.steps[position_of(fact)] = begun(fact)
    state.seq, state.head_hash, state.last_at = fact.seq, fact.hash, fact.at


def _step_decided(state: RunState, fact: Fact, asked: StepState) -> None:
    """A decision about a budget is one for all its steps that this budget holds back."""
    if fact.data["decision"] == "raise" and asked.proposal["scope"] == WHOLE_RUN:
        state.raised = state.raised | {asked.proposal["unit"]: fact.data["value"]}
    if asked.cause == "budget":
        _wake_held(state, asked.budget)
    if state.status != Status.RUNNING:
        _goes_on(state, state.steps[position_of(fact)].effective_at)


def _goes_on(state: RunState, not_before: datetime | None) -> None:
    """With a decision that can still be taken back, not before that time; what it waits for besides may come earlier."""
    is_due = state.status == Status.QUEUED and state.wake_at is None
    times = [time for time in (not_before, state.wake_at) if time]
    _moves(state, Status.QUEUED)
    state.wake_at = None if is_due or not_before is None else min(times)


def _wake_held(state: RunState, budget: int | None) -> None:
    for position, step in state.steps.items():
        if budget is not None and step.budget == budget and step.wake_at and step.status == Status.RETRYING:
            state.steps[position] = woken(step)


# --- the run ----------------------------------------------------------------------------------------------------


def _run_requested(state: RunState, fact: Fact) -> None:
    state.agent, state.agent_version = fact.data["agent"], fact.data["agent_version"]
    state.input, state.config = fact.data["input"], fact.data["config"]
    state.summary, state.tags = fact.data["summary"], fact.data.get("tags", [])
    state.started_by, state.requested_at = fact.actor, fact.at
    state.set_apart = frozenset(fact.data.get("large", ())) & {"input"}
    origin = fact.data.get("forked_from") or {}
    state.forked_from, state.forked_step = origin.get("run"), origin.get("step")
    state.override = fact.data.get("override")
    state.parent_id, state.depth = fact.data.get("parent"), fact.data.get("depth", 0)


def _run_taken(state: RunState, fact: Fact) -> None:
    _moves(state, Status.RUNNING)
    state.fence = fact.data.get("fence", 0)
    state.started_at = state.started_at or fact.at
    state.clock_since = state.clock_since or fact.at


def _run_released(state: RunState, fact: Fact) -> None:
    state.status = Status.QUEUED


def _run_parked(state: RunState, fact: Fact) -> None:
    """Where somebody has meanwhile decided something that it wanted to wait for, it goes on."""
    if fact.data["cause"] == "person":
        asked = {position for position, step in state.steps.items() if step.asked}
        if not asked or not asked.issuperset(fact.data.get("steps", ())):  # logs of the first versions do not name them
            state.status = Status.QUEUED
            return
    if fact.data["cause"] == UNDO and not state.steps[position_of(fact)].effective_at:
        state.status = Status.QUEUED
        return
    state.waiting_cause, state.waiting_step = fact.data["cause"], fact.step
    state.status = Status.RETRYING if fact.data["cause"] == "retry" else Status.WAITING
    state.wake_at = moment(fact.data.get("wake_at"))
    state.waiting_runs = fact.data.get("runs")
    if fact.data["cause"] in PAUSES:
        _stop_clock(state, fact.at)


def _stop_clock(state: RunState, at: datetime) -> None:
    """Until it is taken again."""
    state.took_seconds, state.clock_since = state.seconds(at), None


def _run_woken(state: RunState, fact: Fact) -> None:
    """Before its time, because what held a step back, or the run before its first, is over."""
    if fact.step is None and state.status == Status.WAITING:
        return _moves(state, Status.QUEUED)
    if fact.step in state.steps and state.status == Status.WAITING:
        state.steps[fact.step] = woken(state.steps[fact.step])
        _wake_held(state, state.steps[fact.step].budget)
        _moves(state, Status.QUEUED)


def _run_ended(status: str) -> Callable[[RunState, Fact], None]:
    def change(state: RunState, fact: Fact) -> None:
        _moves(state, status)
        state.finished_at = fact.at
        state.output, state.error = fact.data.get("output"), fact.data.get("error")
        state.set_apart |= frozenset(fact.data.get("large", ())) & {"output"}
        state.failed_step = fact.step
        _stop_clock(state, fact.at)
        if status == Status.CANCELLED:
            _cancel_open_steps(state, fact)

    return change


def _run_succeeded(state: RunState, fact: Fact) -> None:
    _run_ended(Status.PARTIAL if fact.data.get("missing") else Status.SUCCEEDED)(state, fact)


def _cancel_open_steps(state: RunState, fact: Fact) -> None:
    for position, step in state.steps.items():
        state.steps[position] = cancelled(step, fact.at)


def _run_retried(state: RunState, fact: Fact) -> None:
    """Only what ended the run is asked or tried again; what a supervisor went on from stays as it is."""
    state.status, state.error, state.finished_at, state.cancel_requested = Status.QUEUED, None, None, False
    for position, step in state.steps.items():
        if step.status == Status.CANCELLED:
            state.steps[position] = restored(step)
        elif position == state.failed_step and step.status in (Status.REJECTED, Status.EXPIRED):
            state.steps[position] = tried_again(step)
    state.failed_step = None


def _moves(state: RunState, status: str) -> None:
    """It waits for nothing any more."""
    state.status, state.waiting_cause, state.waiting_step, state.wake_at, state.waiting_runs = status, "", None, None, None


def _run_cancel_requested(state: RunState, fact: Fact) -> None:
    state.cancel_requested = True


CHANGES: dict[str, Callable[[RunState, Fact], None]] = {
    Kind.RUN_REQUESTED: _run_requested,
    Kind.RUN_STARTED: _run_taken,
    Kind.RUN_RESUMED: _run_taken,
    Kind.RUN_TAKEN_OVER: _run_taken,
    Kind.RUN_RELEASED: _run_released,
    Kind.RUN_PARKED: _run_parked,
    Kind.RUN_WOKEN: _run_woken,
    Kind.RUN_SUCCEEDED: _run_succeeded,
    Kind.RUN_FAILED: _run_ended(Status.FAILED),
    Kind.RUN_CANCELLED: _run_ended(Status.CANCELLED),
    Kind.RUN_RETRIED: _run_retried,
    Kind.RUN_CANCEL_REQUESTED: _run_cancel_requested,
}

CHANGE_EVERY_STEP = frozenset({Kind.RUN_CANCELLED, Kind.RUN_RETRIED})  # what names no step may change any
