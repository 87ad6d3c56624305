"""How many requests and tokens a dependency is sent: a window that slides, shared fairly between keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dependency allows; None is no limit."""

    requests: int | None = None
    period_seconds: float = 60.0
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be made now, and is counted. Give it to settle() afterwards."""

    grant: str  # names this one call in the window
    tokens: int  # reserved


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Come back in so many seconds, with the same ticket. Each of those who wait is told a time of its own."""

    seconds: float
    used: int
    limit: int
    what: Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What one key has used in the present windows, and how many of its calls wait."""

    key: str
    requests: int
    tokens: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Use:
    """How full the windows are now; keys in the order of their use, the heaviest first."""

    requests: int
    tokens: int
    waiting: int
    keys: tuple[KeyUse, ...]
    full_for_seconds: float  # more than 0: the memory was lost, and nothing is admitted before


class TooLarge(ValueError):
    """One call wants more tokens than a whole minute has: it can never be admitted."""


def admit(
    dependency: str, key: str, limits: Limits, tokens: int = 0, *, ticket: str, known_since: datetime | None = None
) -> Admitted | NoRoom:
    """Ask for one call. Never more than the limit in any window, also where this memory was lost meanwhile.

    The key (agent, tenant) is who shares with others: the one that has used least goes first. The ticket names the call
    that waits (run:step): a refused caller that comes back with it keeps its place. `known_since` is when the dependency
    came to be: one that is older than the period and unknown here has lost its memory, and its window counts as full.
    """
    raise NotImplementedError


def settle(dependency: str, reserved: Admitted, used: int | None = None) -> None:
    """The call is over: it used so many tokens, None being as many as were reserved."""
    raise NotImplementedError


def use(dependency: str, limits: Limits) -> Use:
    """Counts for a page."""
    raise NotImplementedError
