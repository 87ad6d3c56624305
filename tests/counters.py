"""One of the shared counters at a time, as tests ask them: a window, slots, a breaker."""

from dataclasses import dataclass
from datetime import datetime

from runs.reliability import entry, store
from runs.reliability.breaker import BreakerTerms, Change, Open
from runs.reliability.entry import Entered
from runs.reliability.limiter import Limits, NoRoom
from runs.reliability.slots import LEASE_SECONDS, NoSlot


@dataclass(frozen=True, slots=True)
class Canary:
    """The one call that tries; `change` says that the breaker was open before."""

    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """Go ahead."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The slot is held."""


def admit(
    dependency: str, key: str, limits: Limits, tokens: int = 0, *, ticket: str, known_since: datetime | None = None
) -> Entered | NoRoom:
    answer = entry.enter(dependency, key, ticket, limits=limits, tokens=tokens, known_since=known_since)
    assert isinstance(answer, Entered | NoRoom)
    return answer


def settle(entered: Entered, used: int | None = None) -> None:
    """The call is over, and used so many tokens."""
    entry.leave(entered, ok=None, duration=0.0, tokens=used)


def take(
    dependency: str, holder: str, concurrency: int, lease_seconds: float = LEASE_SECONDS, *, key: str = "",
    known_since: datetime | None = None,
) -> Taken | NoSlot:  # fmt: skip
    limits = Limits(concurrency=concurrency)
    answer = entry.enter(dependency, key, holder, limits=limits, lease_seconds=lease_seconds, known_since=known_since)
    assert isinstance(answer, Entered | NoSlot)
    return Taken() if isinstance(answer, Entered) else answer


def release(dependency: str, holder: str) -> None:
    store.ask("leave", dependency, ticket=holder, grant="", slot=True)


def ask(dependency: str, terms: BreakerTerms, caller: str) -> Closed | Canary | Open:
    answer = entry.enter(dependency, "", caller, limits=Limits(), terms=terms)
    if isinstance(answer, Entered):
        return Canary(answer.change) if answer.canary else Closed()
    assert isinstance(answer, Open)
    return answer


def report(dependency: str, terms: BreakerTerms, caller: str, ok: bool, duration: float) -> Change | None:
    called = Entered(dependency, caller, terms, grant="", tokens=0, holds_slot=False, canary=False, change=None)
    return entry.leave(called, ok=ok, duration=duration)
