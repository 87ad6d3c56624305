"""The kinds of event there are, and the hash that chains them; kinds and payload keys are forever."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from .canonical import dumps, dumps_plainly, sha256

GENESIS = "0" * 64  # the hash before the first event of a run
NOBODY = '""'  # the actor of what the system itself does, as text


class Kind(StrEnum):
    """Past tense, because it has happened."""

    RUN_REQUESTED = "RunRequested"
    RUN_STARTED = "RunStarted"
    RUN_RESUMED = "RunResumed"
    RUN_TAKEN_OVER = "RunTakenOver"
    RUN_RELEASED = "RunReleased"
    RUN_PARKED = "RunParked"
    RUN_SUCCEEDED = "RunSucceeded"
    RUN_FAILED = "RunFailed"
    RUN_RETRIED = "RunRetried"
    RUN_WOKEN = "RunWoken"
    RUN_CANCEL_REQUESTED = "RunCancelRequested"
    RUN_CANCELLED = "RunCancelled"
    STEP_REQUESTED = "StepRequested"
    STEP_STARTED = "StepStarted"
    ATTEMPT_STARTED = "AttemptStarted"
    ATTEMPT_FAILED = "AttemptFailed"
    ATTEMPT_CRASHED = "AttemptCrashed"
    FALLBACK_TAKEN = "FallbackTaken"
    STEP_SUCCEEDED = "StepSucceeded"
    STEP_SKIPPED = "StepSkipped"
    STEP_ESCALATED = "StepEscalated"
    STEP_DECIDED = "StepDecided"
    DECISION_REVOKED = "DecisionRevoked"
    STEP_COPIED = "StepCopied"
    STEP_DEFERRED = "StepDeferred"
    STEP_PARKED = "StepParked"
    STEP_EXPIRED = "StepExpired"
    STEP_WITHDRAWN = "StepWithdrawn"


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has not been written yet. `actor` is a username, or "" for the system itself."""

    kind: Kind
    data: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    actor: str = ""


class Fact(NamedTuple):
    """A written event: its place in the run's log, its time (UTC) and its hash."""

    seq: int
    kind: str
    data: dict[str, Any]
    step: int | None
    actor: str
    at: datetime
    prev_hash: str
    hash: str


def write(draft: Draft, *, run_id: int, seq: int, at: datetime, prev_hash: str, text: str = "") -> Fact:
    """Give the draft its place in the chain; `text` is the canonical text of its data, where the caller has it."""
    kind = str(draft.kind)
    chained = chain(run_id, seq, kind, draft.step, draft.actor, text or dumps(draft.data), at, prev_hash)
    return Fact(seq, kind, draft.data, draft.step, draft.actor, at, prev_hash, chained)


def chain(run_id: int, seq: int, kind: str, step: int | None, actor: str, data: str, at: datetime, prev_hash: str) -> str:
    """SHA-256 over everything the event says (its data as canonical text), and over the hash before it."""
    moment = (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="microseconds")
    place, who = "null" if step is None else step, dumps(actor) if actor else NOBODY
    return sha256(f'["{prev_hash}",{run_id},{seq},"{kind}",{place},{who},{data},"{moment}"]')


def first_broken(run_id: int, facts: list[Fact], *, after: int = 0, prev_hash: str = GENESIS) -> str:
    """Say which event breaks the chain and how, or return "" when the chain holds; `after` is the seq before the first."""
    for expected, fact in enumerate(facts, start=after + 1):
        if fact.seq != expected:
            return f"event {expected} is missing (found {fact.seq})"
        if fact.prev_hash != prev_hash:
            return f"event {fact.seq} does not follow event {fact.seq - 1}"
        if not _hashes_to_its_own(run_id, fact):
            return f"event {fact.seq} ({fact.kind}) was changed after it was written"
        prev_hash = fact.hash
    return ""


def _hashes_to_its_own(run_id: int, fact: Fact) -> bool:
    texts = (write_text(fact.data) for write_text in (dumps, dumps_plainly))
    place = (run_id, fact.seq, fact.kind, fact.step, fact.actor)
    return any(fact.hash == chain(*place, text, fact.at, fact.prev_hash) for text in texts)
