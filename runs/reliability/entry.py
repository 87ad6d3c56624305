"""The way in and out of a dependency: breaker, slot and window in one round trip before a call, and one after it."""

from dataclasses import dataclass
from datetime import datetime

from runs.reliability.breaker import BreakerTerms, Change, Open
from runs.reliability.limiter import Limits, NoRoom
from runs.reliability.slots import LEASE_SECONDS, NoSlot

HeldBack = Open | NoSlot | NoRoom


@dataclass(frozen=True, slots=True)
class Entered:
    """The call may be made: it is counted, and holds its slot (if there are slots). Give it to leave(), whatever happens."""

    dependency: str
    ticket: str
    terms: BreakerTerms | None
    grant: str  # names this one call in the window; empty where there is no limit
    tokens: int  # reserved
    holds_slot: bool  # its lease is to be renewed while the call lasts (slots.renew)
    canary: bool
    change: Change | None  # of the breaker, for the caller to record


def enter(
    dependency: str,
    key: str,
    ticket: str,
    *,
    limits: Limits,
    terms: BreakerTerms | None = None,
    tokens: int = 0,
    lease_seconds: float = LEASE_SECONDS,
    known_since: datetime | None = None,
) -> Entered | HeldBack:
    """Ask breaker, slots and windows at once; nothing is taken where one of them refuses.

    The key (agent, tenant) shares fairly with other keys. The ticket (run:step) names who waits, and holds the slot.
    """
    raise NotImplementedError


def leave(entered: Entered, *, ok: bool, duration: float, tokens: int | None = None) -> Change | None:
    """The call ended: give the slot back, count tokens as used, tell the breaker. Returns its change, to be recorded."""
    raise NotImplementedError
