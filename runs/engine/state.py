"""The state of a run as a pure fold over its events: the same code for the executor, the projections and the audit."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from .events import Fact, Kind


class Status:
    """The words for where a run or a step is (the table of docs/states.md)."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"  # steps only: a person said no
    CANCELLED = "cancelled"


ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True)
class StepState:
    """One named action of a run. `subject` is what a person was last asked about (input or output)."""

    position: int
    name: str
    worker: str
    title: str
    fingerprint: str
    input: Any
    status: str = Status.QUEUED
    effect: str = "none"
    output: Any = None
    confidence: float | None = None
    threshold: float | None = None
    why: str = ""
    source: str = ""
    alternatives: dict[str, float] = field(default_factory=dict)
    attempt: int = 0
    tries: int = 0  # attempts since a person last said "retry"
    error: dict[str, Any] | None = None
    remark: str = ""
    cause: str = ""
    subject: str = ""
    proposal: Any = None
    decision: str = ""
    decided_by: str = ""
    reason: str = ""
    gate_passed: bool = False
    fallback: str = ""
    escalation: dict[str, Any] = field(default_factory=dict)  # the question put to a person, while it is open
    resume_status: str = ""  # where the step was before it was escalated
    cancelled_status: str = ""  # where it was when the run was cancelled
    crashes: int = 0  # attempts that a process did not survive, since a person last decided
    crash: dict[str, Any] = field(default_factory=dict)  # how the last attempt crashed, until another begins
    attempted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def replace(step: StepState, **changes: Any) -> StepState:
    """The step with these fields changed. As dataclasses.replace, which costs ten times as much for so many fields."""
    changed = StepState.__new__(StepState)
    changed.__dict__.update(step.__dict__)
    changed.__dict__.update(changes)
    return changed


@dataclass
class RunState:
    """Everything the events of one run say. Mutable: `apply` moves it forward, event by event."""

    agent: str = ""
    agent_version: str = ""
    input: Any = None
    summary: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    status: str = Status.QUEUED
    waiting_cause: str = ""
    waiting_step: int | None = None
    wake_at: datetime | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    failed_step: int | None = None  # the step whose rejection ended the run
    cancel_requested: bool = False
    forked_from: int | None = None  # the run whose first steps this one took over
    forked_step: int | None = None  # the first step that it executes itself
    override: dict[str, Any] | None = None  # what a person gave that step: worker, input
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
    state.seq, state.head_hash, state.last_at = fact.seq, fact.hash, fact.at


# --- the run ----------------------------------------------------------------------------------------------------


def _run_requested(state: RunState, fact: Fact) -> None:
    state.agent, state.agent_version = fact.data["agent"], fact.data["agent_version"]
    state.input, state.config = fact.data["input"], fact.data["config"]
    state.summary = fact.data["summary"]
    state.started_by, state.requested_at = fact.actor, fact.at
    state.set_apart = frozenset(fact.data.get("large", ())) & {"input"}
    origin = fact.data.get("forked_from") or {}
    state.forked_from, state.forked_step = origin.get("run"), origin.get("step")
    state.override = fact.data.get("override")


def _run_taken(state: RunState, fact: Fact) -> None:
    state.status, state.waiting_cause, state.waiting_step, state.wake_at = Status.RUNNING, "", None, None
    state.started_at = state.started_at or fact.at


def _run_released(state: RunState, fact: Fact) -> None:
    state.status = Status.QUEUED


def _run_parked(state: RunState, fact: Fact) -> None:
    state.waiting_cause, state.waiting_step = fact.data["cause"], fact.step
    state.status = Status.RETRYING if fact.data["cause"] == "retry" else Status.WAITING
    wake_at = fact.data.get("wake_at")
    state.wake_at = datetime.fromisoformat(wake_at) if wake_at else None


def _run_ended(status: str) -> Callable[[RunState, Fact], None]:
    def change(state: RunState, fact: Fact) -> None:
        state.status, state.finished_at = status, fact.at
        state.waiting_cause, state.waiting_step, state.wake_at = "", None, None
        state.output, state.error = fact.data.get("output"), fact.data.get("error")
        state.set_apart |= frozenset(fact.data.get("large", ())) & {"output"}
        state.failed_step = fact.step
        if status == Status.CANCELLED:
            _cancel_open_steps(state, fact)

    return change


def _cancel_open_steps(state: RunState, fact: Fact) -> None:
    unfinished = (Status.QUEUED, Status.RUNNING, Status.WAITING, Status.RETRYING)
    for position, step in state.steps.items():
        if step.status in unfinished:
            before = step.status
            state.steps[position] = replace(step, status=Status.CANCELLED, cancelled_status=before, finished_at=fact.at)


def _run_retried(state: RunState, fact: Fact) -> None:
    """Only what ended the run is asked or tried again; what a supervisor went on from stays as it is."""
    state.status, state.error, state.finished_at, state.cancel_requested = Status.QUEUED, None, None, False
    for position, step in state.steps.items():
        if step.status == Status.CANCELLED:
            before = replace(step, status=step.cancelled_status, cancelled_status="", finished_at=None)
            state.steps[position] = _before_the_change(before) if before.status == Status.WAITING else before
        elif position == state.failed_step and step.status == Status.REJECTED:
            state.steps[position] = _before_the_change(step) if step.cause == "code_changed" else _queued_again(step)
    state.failed_step = None


def _run_cancel_requested(state: RunState, fact: Fact) -> None:
    state.cancel_requested = True


# --- its steps --------------------------------------------------------------------------------------------------


def _step_requested(state: RunState, fact: Fact) -> None:
    data = fact.data
    state.steps[_position(fact)] = StepState(
        position=_position(fact),
        name=data["name"],
        worker=data["worker"],
        title=data["title"],
        fingerprint=data["fingerprint"],
        input=data["input"],
        effect=data["effect"],
    )


def _step_started(state: RunState, fact: Fact) -> None:
    _step_requested(state, fact)
    _attempt_started(state, fact)


def _attempt_started(state: RunState, fact: Fact) -> None:
    step = state.steps[_position(fact)]
    started_at = step.started_at or fact.at
    attempt, crashes = fact.data["attempt"], step.crashes + (step.status == Status.RUNNING)
    step = replace(step, status=Status.RUNNING, attempt=attempt, tries=step.tries + 1, crashes=crashes)
    _put(state, replace(step, started_at=started_at, attempted_at=fact.at, crash={}, resume_status=""))


def _attempt_failed(state: RunState, fact: Fact) -> None:
    step = state.steps[_position(fact)]
    status = Status.FAILED if fact.data["wait_seconds"] is None else Status.RETRYING
    _put(state, replace(step, status=status, error=fact.data["error"]))


def _attempt_crashed(state: RunState, fact: Fact) -> None:
    step = state.steps[_position(fact)]
    error = {"kind": "crashed", "message": f"Its process ended {fact.data['reason']}.", "trace": ""}
    _put(state, replace(step, status=Status.RETRYING, crashes=step.crashes + 1, crash=fact.data, error=error))


def _fallback_taken(state: RunState, fact: Fact) -> None:
    step = state.steps[_position(fact)]
    effect = fact.data.get("effect", step.effect)
    _put(state, replace(step, fallback=fact.data["worker"], effect=effect, tries=0))


def _step_succeeded(state: RunState, fact: Fact) -> None:
    step = replace(state.steps[_position(fact)], status=Status.SUCCEEDED, finished_at=fact.at, error=None)
    _put(state, replace(step, output=fact.data["output"], **_judgement(fact)))


def _step_escalated(state: RunState, fact: Fact) -> None:
    step = state.steps[_position(fact)]
    before = step.resume_status or step.status
    step = replace(step, status=Status.WAITING, cause=fact.data["cause"], subject=fact.data["subject"])
    step = replace(step, proposal=fact.data["proposal"], resume_status=before, escalation=fact.data)
    _put(state, replace(step, **_judgement(fact)) if fact.data.get("judged") else step)


def _step_decided(state: RunState, fact: Fact) -> None:
    decision, step = fact.data["decision"], state.steps[_position(fact)]
    step = replace(step, decision=decision, decided_by=fact.actor, reason=fact.data["reason"], escalation={}, crashes=0)
    _put(state, _after_decision(step, fact))
    state.status, state.waiting_cause, state.waiting_step, state.wake_at = Status.QUEUED, "", None, None


def _after_decision(step: StepState, fact: Fact) -> StepState:
    decision = fact.data["decision"]
    if step.cause == "code_changed" and decision != "reject":  # "reject": logs of the first version
        return replace(step, status=step.resume_status, resume_status="")
    if step.cause == "code_changed":
        return replace(step, status=Status.REJECTED, finished_at=fact.at)
    step = replace(step, resume_status="")
    if decision in ("reject", "not_happened"):
        return replace(step, status=Status.REJECTED, finished_at=fact.at)
    if decision == "retry":
        return _queued_again(replace(step, remark=fact.data["reason"]))
    if step.subject == "input":
        return replace(step, status=Status.QUEUED, input=fact.data["value"], gate_passed=True)
    return replace(step, status=Status.SUCCEEDED, output=fact.data["value"], error=None, finished_at=fact.at)


def copied(step: StepState) -> dict[str, Any]:
    """The step as another run takes it over: every field that says something, by its name."""
    said = {one.name: (getattr(step, one.name), one.default) for one in fields(step) if one.name not in NOT_COPIED}
    kept = {name: value for name, (value, default) in said.items() if value != default and value != {}}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in kept.items()}


# Where it stands, and what only matters until it has ended.
NOT_COPIED = frozenset(
    {"position", "tries", "crashes", "crash", "attempted_at", "escalation", "resume_status", "cancelled_status"}
)
TIMES = ("started_at", "finished_at")


def _step_copied(state: RunState, fact: Fact) -> None:
    known = {one.name for one in fields(StepState)} - NOT_COPIED
    values = {name: value for name, value in fact.data.items() if name in known}
    values |= {name: datetime.fromisoformat(values[name]) for name in TIMES if values.get(name)}
    _put(state, StepState(position=_position(fact), **values))


def _before_the_change(step: StepState) -> StepState:
    """A step that "the code changed" stopped goes back to where it was: the executor compares it anew."""
    if step.cause != "code_changed":
        return step
    return replace(step, status=step.resume_status, resume_status="", finished_at=None)


def _queued_again(step: StepState) -> StepState:
    return replace(step, status=Status.QUEUED, tries=0, crashes=0, crash={}, fallback="", finished_at=None)


def _judgement(fact: Fact) -> dict[str, Any]:
    data = fact.data
    return {
        "confidence": data.get("confidence"),
        "threshold": data.get("threshold"),
        "why": data.get("why", ""),
        "source": data.get("source", ""),
        "alternatives": data.get("alternatives") or {},
    }


def _position(fact: Fact) -> int:
    if fact.step is None:
        raise ValueError(f"event {fact.seq} ({fact.kind}) names no step")
    return fact.step


def _put(state: RunState, step: StepState) -> None:
    state.steps[step.position] = step


CHANGES: dict[str, Callable[[RunState, Fact], None]] = {
    Kind.RUN_REQUESTED: _run_requested,
    Kind.RUN_STARTED: _run_taken,
    Kind.RUN_RESUMED: _run_taken,
    Kind.RUN_TAKEN_OVER: _run_taken,
    Kind.RUN_RELEASED: _run_released,
    Kind.RUN_PARKED: _run_parked,
    Kind.RUN_SUCCEEDED: _run_ended(Status.SUCCEEDED),
    Kind.RUN_FAILED: _run_ended(Status.FAILED),
    Kind.RUN_CANCELLED: _run_ended(Status.CANCELLED),
    Kind.RUN_RETRIED: _run_retried,
    Kind.RUN_CANCEL_REQUESTED: _run_cancel_requested,
    Kind.STEP_REQUESTED: _step_requested,
    Kind.STEP_STARTED: _step_started,
    Kind.ATTEMPT_STARTED: _attempt_started,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.ATTEMPT_CRASHED: _attempt_crashed,
    Kind.FALLBACK_TAKEN: _fallback_taken,
    Kind.STEP_SUCCEEDED: _step_succeeded,
    Kind.STEP_ESCALATED: _step_escalated,
    Kind.STEP_DECIDED: _step_decided,
    Kind.STEP_COPIED: _step_copied,
}

CHANGE_EVERY_STEP = frozenset({Kind.RUN_CANCELLED, Kind.RUN_RETRIED})  # what names no step may change any
