"""One step of a run as a pure fold over its events."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any

from .canonical import digest
from .events import Fact, Kind


class Status:
    """The words for where a run or a step is (the table of docs/states.md)."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"  # runs only: completed, but something is missing
    SKIPPED = "skipped"  # steps only: it failed, and the run goes on without its result
    FAILED = "failed"
    REJECTED = "rejected"  # steps only: a person said no
    EXPIRED = "expired"  # steps only: nobody decided in time
    CANCELLED = "cancelled"


UNFINISHED = frozenset({Status.QUEUED, Status.RUNNING, Status.WAITING, Status.RETRYING})


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
    own_effect: str = ""  # the worker's, while a fallback's stands in its place
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
    displaced: dict[str, Any] = field(default_factory=dict)  # the question that "the code changed" took the place of
    resume_status: str = ""  # where the step was before it was escalated
    cancelled_status: str = ""  # where it was when the run was cancelled
    crashes: int = 0  # attempts whose process ended in them, since a person last decided
    losses: int = 0  # likewise, where others were in hand of that process: nobody knows which of them ended it
    alone: bool = False  # its last attempt had crashed when a person let it be tried again
    crash: dict[str, Any] = field(default_factory=dict)  # how the last attempt crashed, until another begins
    attempted_at: datetime | None = None
    wake_at: datetime | None = None  # before that it is not tried again
    budget: int | None = None  # whose exhaustion held it back when it last was held back
    held: dict[str, Any] = field(default_factory=dict)  # by what, and why: what was said when it last was held back
    sent_back: int = 0  # how often a person sent its result back for changes
    approved: str = ""  # what exactly a person approved, as a fingerprint (see `action`)
    effective_at: datetime | None = None  # the last decision is carried out then; until then it can be taken back
    before: "StepState | None" = None  # as it was when that was decided
    pending: dict[str, Any] = field(default_factory=dict)  # the question to a person for which the run has no room yet
    withdrawn: bool = False  # the run ended while it waited for a person, and went on: it is asked anew
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def asked(self) -> bool:
        """A person is asked about it now."""
        return self.status == Status.WAITING and bool(self.escalation) and not self.withdrawn

    def elapsed_seconds(self, now: datetime) -> float:
        """Since the first attempt; 0 where a person, or a fallback, began anew."""
        if self.started_at is None or self.tries != self.attempt:
            return 0.0
        return (now - self.started_at).total_seconds()

    @property
    def deadline(self) -> datetime | None:
        """Until when the person who was last asked may decide."""
        until = self.escalation.get("deadline")
        return datetime.fromisoformat(until) if until else None


OUT_OF_TIME = "Nobody decided in time: it was approved, as its policy says."


def action(run_id: int, step: StepState, *, worker: str, effect: str, value: Any) -> str:
    """Fingerprint of what is carried out: this worker with this input, in this step of this run."""
    return digest(run_id, step.position, step.name, worker, effect, value)


def replace(step: StepState, **changes: Any) -> StepState:
    """The step with these fields changed. As dataclasses.replace, which costs six times as much for so many fields."""
    changed = StepState.__new__(StepState)
    changed.__dict__.update(step.__dict__)
    changed.__dict__.update(changes)
    return changed


def begun(fact: Fact) -> StepState:
    """The step as its first event says it."""
    if fact.kind == Kind.STEP_COPIED:
        return _copied(fact)
    said = {name: fact.data[name] for name in ("name", "worker", "title", "fingerprint", "input", "effect")}
    step = replace(_BLANK, position=position_of(fact), **said)
    return _attempt_started(step, fact) if fact.kind == Kind.STEP_STARTED else step


_BLANK = StepState(position=0, name="", worker="", title="", fingerprint="", input=None)


def _attempt_started(step: StepState, fact: Fact) -> StepState:
    started_at = step.started_at or fact.at
    attempt, crashes = fact.data["attempt"], step.crashes + (step.status == Status.RUNNING)
    return replace(
        step, status=Status.RUNNING, attempt=attempt, tries=step.tries + 1, crashes=crashes, crash={},
        started_at=started_at, attempted_at=fact.at, resume_status="", wake_at=None,
    )  # fmt: skip


def _attempt_failed(step: StepState, fact: Fact) -> StepState:
    status = Status.FAILED if fact.data["wait_seconds"] is None else Status.RETRYING
    return replace(step, status=status, error=fact.data["error"], wake_at=moment(fact.data.get("wake_at")), held={})


def _attempt_crashed(step: StepState, fact: Fact) -> StepState:
    error = {"kind": "crashed", "message": f"Its process ended {fact.data['reason']}.", "trace": ""}
    crashes, losses = after_crash(step, fact.data)
    return replace(step, status=Status.RETRYING, crashes=crashes, losses=losses, crash=fact.data, error=error)


def after_crash(step: StepState, crash: dict[str, Any]) -> tuple[int, int]:
    """How many crashes and losses there are with this one."""
    return step.crashes + crash.get("counts", True), step.losses + bool(crash.get("others"))


def _step_deferred(step: StepState, fact: Fact) -> StepState:
    """Not yet, said the worker: the attempt does not count."""
    step = replace(step, status=Status.RETRYING, attempt=step.attempt - 1, tries=step.tries - 1, error=None)
    held = fact.data | {"late": step.held.get("late", 0) + fact.data.get("late", False)} if "dependency" in fact.data else {}
    return replace(step, wake_at=moment(fact.data["wake_at"]), budget=fact.data.get("budget"), held=held)


def _step_parked(step: StepState, fact: Fact) -> StepState:
    """It waits for a time, for other runs, or with a question for which there is no room."""
    step = replace(step, status=Status.WAITING, cause=fact.data["cause"])
    if asked := fact.data.get("question"):
        return replace(step, pending=asked)
    return replace(step, started_at=fact.at, wake_at=moment(fact.data.get("wake_at")))


def _fallback_taken(step: StepState, fact: Fact) -> StepState:
    effect = fact.data.get("effect", step.effect)
    own_effect = step.own_effect or step.effect
    return replace(step, fallback=fact.data["worker"], effect=effect, own_effect=own_effect, tries=0)


def _step_succeeded(step: StepState, fact: Fact) -> StepState:
    said = {"output": fact.data["output"], "error": None} | _judgement(fact)
    return replace(step, status=Status.SUCCEEDED, finished_at=fact.at, **said)


def _step_skipped(step: StepState, fact: Fact) -> StepState:
    """It keeps the error for which it was skipped."""
    said = {"output": fact.data["output"], "reason": fact.data["note"]}
    return replace(step, status=Status.SKIPPED, finished_at=fact.at, **said)


def _step_escalated(step: StepState, fact: Fact) -> StepState:
    before = step.resume_status or step.status
    step = replace(step, status=Status.WAITING, cause=fact.data["cause"], subject=fact.data["subject"])
    displaced = (step.displaced or step.escalation) if fact.data.get("displaces") else {}
    step = replace(step, proposal=fact.data["proposal"], resume_status=before, escalation=fact.data, withdrawn=False)
    step = replace(step, displaced=displaced, before=None, effective_at=None)
    step = replace(step, pending=step.pending if fact.data["cause"] == "code_changed" else {})
    return replace(step, **_judgement(fact)) if fact.data.get("judged") else step


def _step_expired(step: StepState, fact: Fact) -> StepState:
    """What the policy names for this happens; where it names nothing, the step ends here."""
    step, default = replace(step, resume_status=""), fact.data.get("default")
    if default == "approve":
        step = replace(step, escalation={}, reason=OUT_OF_TIME)
    if default == "approve" and step.subject == "input":
        approved = fact.data.get("approved", "")
        return replace(step, status=Status.QUEUED, input=step.proposal, gate_passed=True, approved=approved)
    if default == "approve":
        return replace(step, status=Status.SUCCEEDED, output=step.proposal, error=None, finished_at=fact.at)
    if default == "skip":
        return _step_skipped(step, fact)
    return replace(step, status=Status.EXPIRED, finished_at=fact.at)


def _step_withdrawn(step: StepState, fact: Fact) -> StepState:
    """The run ends although a person was asked about this step."""
    return cancelled(step, fact.at)


def _step_decided(step: StepState, fact: Fact) -> StepState:
    decision = fact.data["decision"]
    asked = replace(step, before=None, effective_at=None)
    step = replace(asked, decision=decision, decided_by=fact.actor, reason=fact.data["reason"], escalation={})
    step = _after_decision(replace(step, crashes=0, losses=0), fact)
    if until := moment(fact.data.get("effective_at")):
        return replace(step, effective_at=until, before=asked)
    return step


def _decision_revoked(step: StepState, fact: Fact) -> StepState:
    """As if it had not been decided."""
    return step.before or step


def _after_decision(step: StepState, fact: Fact) -> StepState:
    decision = fact.data["decision"]
    if step.cause == "code_changed" and decision != "reject":  # "reject": logs of the first version
        return _before_the_change(step)
    if step.cause == "code_changed":
        return replace(step, status=Status.REJECTED, finished_at=fact.at)
    step = replace(step, resume_status="")
    if decision in ("reject", "not_happened", "finish"):
        return replace(step, status=Status.REJECTED, finished_at=fact.at)
    if decision == "raise":
        return replace(step, status=Status.QUEUED, wake_at=None)
    if decision in ("retry", "send_back"):
        sent_back = step.sent_back + (decision == "send_back")
        return _queued_again(replace(step, remark=fact.data["reason"], sent_back=sent_back))
    if decision == "skip":
        said = {"output": fact.data["value"], "reason": fact.data["note"]}
        return replace(step, status=Status.SKIPPED, finished_at=fact.at, **said)
    if step.subject == "input" and decision != "take_over":
        approved = fact.data.get("approved", "")
        return replace(step, status=Status.QUEUED, input=fact.data["value"], gate_passed=True, approved=approved)
    return replace(step, status=Status.SUCCEEDED, output=fact.data["value"], error=None, finished_at=fact.at)


def copied(step: StepState) -> dict[str, Any]:
    """The step as another run takes it over: every field that says something, by its name."""
    said = {one.name: getattr(step, one.name) for one in fields(step) if one.name not in NOT_COPIED}
    kept = {name: value for name, value in said.items() if name not in UNSAID or value != UNSAID[name]}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in kept.items()}


# Where it stands, and what only matters until it has ended.
NOT_COPIED = frozenset({
    "position", "tries", "crashes", "losses", "alone", "crash", "attempted_at", "escalation", "displaced", "resume_status",
    "cancelled_status", "wake_at", "withdrawn", "budget", "held", "pending", "sent_back", "approved", "effective_at", "before",
})  # fmt: skip
UNSAID = {one.name: one.default for one in fields(StepState) if one.default is not MISSING}
UNSAID |= {one.name: one.default_factory() for one in fields(StepState) if one.default_factory is not MISSING}
TIMES = ("started_at", "finished_at")


def _copied(fact: Fact) -> StepState:
    known = {one.name for one in fields(StepState)} - NOT_COPIED
    values = {name: value for name, value in fact.data.items() if name in known}
    values |= {name: datetime.fromisoformat(values[name]) for name in TIMES if values.get(name)}
    return StepState(position=position_of(fact), **values)


def cancelled(step: StepState, at: datetime) -> StepState:
    """The run ends; a step that has not ended ends with it."""
    if step.status not in UNFINISHED:
        return step
    return replace(step, status=Status.CANCELLED, cancelled_status=step.status, finished_at=at)


def restored(step: StepState) -> StepState:
    """The run goes on: the step is where it was, a question is asked anew, and nobody waits for another attempt."""
    step = replace(step, status=step.cancelled_status, cancelled_status="", finished_at=None)
    if step.status == Status.WAITING:
        return _before_the_change(replace(step, withdrawn=bool(step.escalation)))
    return replace(step, wake_at=None)


def woken(step: StepState) -> StepState:
    """It need not wait for its time any more."""
    return replace(step, wake_at=None)


def tried_again(step: StepState) -> StepState:
    """A person lets the run go on that this step had ended: what may have happened is decided about anew, not done anew."""
    if _stands_under_a_change(step):
        return _before_the_change(step)
    if _may_have_happened(step):
        return replace(step, status=Status.WAITING, escalation={}, finished_at=None)
    return _queued_again(step)


def _may_have_happened(step: StepState) -> bool:
    """An effect that may happen only once, where its result, or whether it happened, was decided about."""
    is_about_it = step.subject == "output" and step.cause not in ("failed", "budget")
    return step.effect == "once" and step.attempt > 0 and is_about_it


def _stands_under_a_change(step: StepState) -> bool:
    """Its cause stays "code_changed" when that was decided, where no question was open before."""
    return step.cause == "code_changed" and bool(step.displaced or step.resume_status)


def _before_the_change(step: StepState) -> StepState:
    """A step that "the code changed" stopped goes back to where it was: the executor compares it anew."""
    if not _stands_under_a_change(step):
        return step
    if asked := step.displaced:
        step = replace(step, status=Status.WAITING, cause=asked["cause"], subject=asked["subject"], proposal=asked["proposal"])
        return replace(step, escalation=asked, displaced={}, withdrawn=True, finished_at=None)
    return replace(step, status=step.resume_status, resume_status="", finished_at=None, withdrawn=False)


def _queued_again(step: StepState) -> StepState:
    alone = step.alone or bool(step.crash and step.crash.get("counts", True))
    step = replace(step, status=Status.QUEUED, tries=0, crashes=0, losses=0, crash={}, alone=alone)
    return replace(step, fallback="", effect=step.own_effect or step.effect, own_effect="", finished_at=None)


def _judgement(fact: Fact) -> dict[str, Any]:
    data = fact.data
    return {
        "confidence": data.get("confidence"),
        "threshold": data.get("threshold"),
        "why": data.get("why", ""),
        "source": data.get("source", ""),
        "alternatives": data.get("alternatives") or {},
    }


def moment(text: str | None) -> datetime | None:
    """A time as an event keeps it."""
    return datetime.fromisoformat(text) if text else None


def position_of(fact: Fact) -> int:
    """Which step the event is about."""
    if fact.step is None:
        raise ValueError(f"event {fact.seq} ({fact.kind}) names no step")
    return fact.step


BEGINNINGS = frozenset({Kind.STEP_REQUESTED, Kind.STEP_STARTED, Kind.STEP_COPIED})
CHANGES: dict[str, Callable[[StepState, Fact], StepState]] = {
    Kind.ATTEMPT_STARTED: _attempt_started,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.ATTEMPT_CRASHED: _attempt_crashed,
    Kind.FALLBACK_TAKEN: _fallback_taken,
    Kind.STEP_SUCCEEDED: _step_succeeded,
    Kind.STEP_SKIPPED: _step_skipped,
    Kind.STEP_ESCALATED: _step_escalated,
    Kind.STEP_DECIDED: _step_decided,
    Kind.DECISION_REVOKED: _decision_revoked,
    Kind.STEP_DEFERRED: _step_deferred,
    Kind.STEP_PARKED: _step_parked,
    Kind.STEP_EXPIRED: _step_expired,
    Kind.STEP_WITHDRAWN: _step_withdrawn,
}
