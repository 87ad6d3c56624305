"""What may come next for a step: `drafts` say what has happened, and are written before anything else."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runs import sdk
from runs.engine.events import Draft
from runs.engine.state import Status, StepState


@dataclass(slots=True)
class Attempt:
    """The worker is to be called: after so many seconds, and when `start` is written."""

    start: Draft
    drafts: list[Draft] = field(default_factory=list)
    delay_seconds: float = 0.0


@dataclass(slots=True)
class Done:
    """The step has a result, or was skipped: then `missing` says what the run goes on without."""

    value: Any
    drafts: list[Draft] = field(default_factory=list)
    missing: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Refused:
    """A person said no to the step, or nobody answered in time: the supervisor hears it as this exception."""

    error: sdk.Rejected | sdk.Expired
    position: int
    drafts: list[Draft] = field(default_factory=list)


@dataclass(slots=True)
class Open:
    """The step waits: for a person, for a time, for other runs."""

    cause: str
    position: int
    wake_at: datetime | None = None
    drafts: list[Draft] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)  # by which dependency, and why


@dataclass(slots=True)
class Alone:
    """The step has ended processes before: the run is to be carried on in a process of its own."""

    position: int
    drafts: list[Draft] = field(default_factory=list)


Next = Attempt | Done | Refused | Open | Alone


def refusal(step: StepState) -> Refused:
    """The end of a step that came to no result, as its supervisor hears it."""
    if step.status == Status.EXPIRED:
        return Refused(sdk.Expired(step.position, step.title, step.deadline), step.position)
    if step.decision == "finish":
        return Refused(sdk.BudgetExhausted(step.title, step.decided_by), step.position)
    did = "says that it did not happen" if step.decision == "not_happened" else "rejected it"
    return Refused(sdk.Rejected(step.reason, step.decided_by, did), step.position)


def held_by(deferred: dict[str, Any]) -> dict[str, Any]:
    """What is said of the run as well, where the step is held back from a dependency."""
    if "dependency" not in deferred:
        return {}
    return {name: deferred[name] for name in ("dependency", "why", "tenant", "budget", "needs") if name in deferred}
