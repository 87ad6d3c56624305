"""Whether a dependency is asked at all: a circuit breaker that all processes share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """It opens when of at least `minimum` calls in the window this share failed, and tries one call after `open_seconds`."""

    failure_ratio: float = 0.5
    minimum: int = 10
    window_seconds: float = 60.0
    open_seconds: float = 12.0
    canary_seconds: float = 30.0  # so long a canary may take: after that another is let through


@dataclass(frozen=True, slots=True)
class Change:
    """The breaker went from one state to another, and why: for a row and an alert. Exactly one caller gets it."""

    old: State
    new: State
    why: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Go ahead, and report."""


@dataclass(frozen=True, slots=True)
class Canary:
    """Go ahead as the one call that tries whether it works again, and report. `change` says that it was open before."""

    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Do not call. Come back in so many seconds, each at a time of its own; `next_try_seconds` is when the next canary goes."""

    seconds: float
    next_try_seconds: float | None  # None: opened by hand for as long as nobody closes it
    state: State  # closed: it works again, and those who waited are let in by growing cohorts
    why: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a page shows of a breaker."""

    state: State
    since: datetime | None
    next_try: datetime | None
    why: str
    by: str  # who forced it; empty: nobody
    until: datetime | None  # how long it is forced
    calls: int  # in the window
    failures: int
    waiting: int  # calls that were held back by it and have not come back
    ramp: bool  # it has closed again, and lets those who waited in by growing cohorts


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of calls; latencies are upper bounds of a fixed histogram (steps of the square root of two)."""

    at: datetime
    calls: int
    failures: int
    held_back: int
    p50_seconds: float | None
    p95_seconds: float | None


def ask(dependency: str, terms: BreakerTerms, caller: str) -> Closed | Canary | Open:
    """May the caller (its ticket) call now? After the open time exactly one is let through, across all processes."""
    raise NotImplementedError


def report(dependency: str, terms: BreakerTerms, caller: str, ok: bool, duration: float) -> Change | None:
    """Say how the call ended, in seconds; the change that follows from it, for whoever caused it to record."""
    raise NotImplementedError


def force(
    dependency: str, state: Literal["open", "closed"], reason: str, by: str, until: datetime | None = None
) -> Change | None:
    """Open or close it by hand. Open without an end stays until somebody closes it; closed without an end goes on by itself."""
    raise NotImplementedError


def look(dependency: str) -> Look:
    """State, reasons and counts for a page."""
    raise NotImplementedError


def minutes(dependency: str) -> list[Minute]:
    """The last 60 minutes, oldest first, also those without calls."""
    raise NotImplementedError
