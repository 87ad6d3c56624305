"""The values that supervisors, workers and the engine exchange: results, refusals, the step in hand, children, outcomes."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

R = TypeVar("R")


class Rejected(Exception):
    """A reviewer said no to this step. The supervisor may catch it and go another way; else the run fails."""

    def __init__(self, reason: str, by: str, did: str = "rejected it") -> None:
        super().__init__(f"{by} {did}: {reason}" if reason else f"{by} {did}")
        self.reason, self.by = reason, by


class Expired(Exception):
    """Nobody decided about this step in time. The supervisor may catch it and go another way; else the run fails."""

    def __init__(self, position: int, title: str, deadline: datetime | None) -> None:
        until = f" by {deadline:%Y-%m-%d %H:%M} UTC" if deadline else " in time"
        super().__init__(f"Nobody decided about step {position} ({title}){until}.")
        self.deadline = deadline


class BudgetExhausted(Rejected):
    """A person had the run finish with what there is, because a budget has no room for this step.

    The supervisor may catch it (or Rejected) and go another way; else the run fails.
    """

    def __init__(self, title: str, by: str) -> None:
        super().__init__(f"there is no budget for {title}", by, "had the run finish with what there is")


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """A value that its worker estimates. `confidence` in [0, 1], or None, which is under every threshold.

    `source` says how the confidence was obtained; `alternatives` maps other answers to their confidence.
    """

    value: R
    confidence: float | None = None
    why: str = ""
    source: str = ""
    alternatives: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decided:
    """What a person decided about a step: `kind` is approve, edit, take_over, answer, ...; `proposal` what they were shown."""

    kind: str
    by: str
    reason: str
    proposal: Any

    @property
    def replaced(self) -> bool:
        """The person put something of their own in the place of the proposal."""
        return self.kind in ("edit", "take_over", "answer", "happened")


@dataclass(frozen=True, slots=True)
class Skip:
    """As `fallback=`: the step ends with this value in the place of its result, and its run as completed partially.

    `note` says to people what is missing then.
    """

    note: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Child:
    """A run that a supervisor started, for `run.join`."""

    run_id: int
    agent: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended: succeeded, partial, failed or cancelled. `output` is the agent's output model where it succeeded.

    One that was completed partially (`status` is "partial") has an output as well; then this run ends as such too.
    """

    run_id: int
    status: str
    output: Any = None
    error: str = ""

    @property
    def succeeded(self) -> bool:
        return self.status in ("succeeded", "partial")


# --- the step that a worker is executing ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepContext:
    """`key` is stable over attempts and processes: give it to the other side as the idempotency key.

    `uses` names what its worker may call (None: outside the engine, anything), `called` what this attempt has called, and
    `model_calls` are what it said to models and they to it.
    """

    key: str
    attempt: int = 1
    remark: str = ""
    worker: str = ""
    agent: str = ""
    tenant: str = ""
    effect: str = "none"
    uses: tuple[str, ...] | None = None
    called: list[str] = field(default_factory=list)
    model_calls: list[dict[str, Any]] = field(default_factory=list)
    run_id: int = 0
    fence: int = 0
    position: int = 0
    late: int = 0  # so often its call was let in before, and did not leave in time


_step: ContextVar[StepContext] = ContextVar("step")


def current_step() -> StepContext:
    """The step that is being executed. Raises LookupError outside a worker."""
    return _step.get()


_supervising: ContextVar[bool] = ContextVar("supervising", default=False)


def in_supervisor() -> bool:
    """Whether this is the code of a supervisor, between its steps."""
    return _supervising.get() and _step.get(None) is None


@contextmanager
def supervising() -> Iterator[None]:
    """For a block that calls a supervisor."""
    token = _supervising.set(True)
    try:
        yield
    finally:
        _supervising.reset(token)


class executing:
    """Make the context what current_step() returns, for a block."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: StepContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _step.set(self._context)

    def __exit__(self, *error: object) -> None:
        _step.reset(self._token)


def name_step(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For structlog: what is logged while a step is executed names it, as run:step."""
    if step := _step.get(None):
        event.setdefault("step", step.key)
    return event
