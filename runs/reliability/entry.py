"""The way in and out of a dependency: breaker, slot and window in one round trip before a call, and one after it."""

import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from runs.reliability import store
from runs.reliability.breaker import BreakerTerms, Change, Open, change, is_open
from runs.reliability.limiter import Limits, NoRoom, check, no_room
from runs.reliability.slots import LEASE_SECONDS, Lease, NoSlot, no_slot

HeldBack = Open | NoSlot | NoRoom


@dataclass(frozen=True, slots=True)
class Entered:
    """The call may be made: it is counted, and holds its slot (if there are slots). Give it to leave(), whatever happens."""

    dependency: str
    ticket: str
    terms: BreakerTerms | None
    grant: str  # names this one call in the windows, in its slot, and as the canary
    tokens: int  # reserved
    holds_slot: bool
    canary: bool
    change: Change | None  # of the breaker, for the caller to record
    within_seconds: float = 0.0  # so soon the call is to leave, or it must be stamped anew; 0: whenever it likes
    lease_seconds: float = LEASE_SECONDS
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        """The other side might see it in a window that was counted without it, or beside who has its slot by now."""
        return bool(self.within_seconds and time.monotonic() - self.asked_at > self.within_seconds)

    @property
    def lease(self) -> Lease | None:
        """To be renewed for as long as the call lasts (slots.renew)."""
        has_one = self.holds_slot or self.canary
        return Lease(self.dependency, self.grant, self.ticket, slot=self.holds_slot) if has_one else None


def fair_key(agent: str, tenant: str) -> str:
    """Who shares fairly with others: an agent, or each tenant of it."""
    return f"{agent} {tenant}" if tenant else agent


def enter(
    dependency: str,
    key: str,
    ticket: str,
    *,
    limits: Limits,
    terms: BreakerTerms | None = None,
    tokens: int = 0,
    lease_seconds: float = LEASE_SECONDS,
    attempt_seconds: float = 0.0,
    known_since: datetime | None = None,
    held_open: dict[str, str] | None = None,
) -> Entered | HeldBack:
    """Ask breaker, slots and windows at once; nothing is taken where one of them refuses.

    The key (see `fair_key`) shares fairly with others; the ticket (run:step) names who waits. So long an attempt may take: those
    that began without slots are waited for. `held_open`: who opened the breaker by hand, and why, where nobody has closed it.
    """
    check(limits, tokens, dependency)
    asked_at = time.monotonic()
    answer = store.ask(
        "enter",
        dependency,
        key=key,
        ticket=ticket,
        grant=f"{time.time_ns()}-{secrets.token_hex(4)}",  # chosen here: asked twice, because an answer was lost, it takes once
        windows=True,
        tokens=tokens,
        **_told(limits),
        lease=lease_seconds,
        attempt=attempt_seconds,
        terms=asdict(terms) if terms else None,
        known_since=store.seconds(known_since),
        held_open=held_open,
    )
    if "cause" in answer:
        return _held_back(answer)
    return Entered(
        dependency=dependency,
        ticket=ticket,
        terms=terms,
        grant=answer["grant"],
        tokens=tokens,
        holds_slot=limits.concurrency is not None,
        canary=answer["canary"],
        change=change(answer),
        within_seconds=answer["within"],
        lease_seconds=lease_seconds,
        asked_at=asked_at,
    )


def _told(limits: Limits) -> dict[str, Any]:
    most = {"requests": limits.requests, "tokens_per_minute": limits.tokens_per_minute, "concurrency": limits.concurrency}
    return most | {"period": limits.period_seconds}


def restamped(entered: Entered) -> Entered | None:
    """It has not left yet, and counts from now on. None where what it was given is no longer its own: it is not to leave."""
    asked_at = time.monotonic()
    answer = store.ask(
        "restamp",
        entered.dependency,
        grant=entered.grant,
        within=entered.within_seconds,
        slot=entered.holds_slot or None,
        lease=entered.lease_seconds,
    )
    return replace(entered, asked_at=asked_at) if answer["counts"] else None


def leave(
    entered: Entered,
    *,
    ok: bool | None,
    duration: float,
    tokens: int | None = None,
    unsent: bool = False,
    runs_on: bool = False,
    retry_after: float | None = None,
) -> Change | None:
    """The call ended: give the slot back, count tokens as used, tell the breaker. Returns its change, to be recorded.

    `ok` is whether the dependency works (a refusal of what was asked is an answer); None: the call says nothing of that.
    So long it asked us to wait (`retry_after`): a breaker that opens stays open for no less.
    What is `unsent` is taken out of its windows again. What was given up and `runs_on` keeps its slot until free().
    """
    return change(
        store.ask(
            "leave",
            entered.dependency,
            grant=entered.grant,
            used=tokens,
            slot=entered.holds_slot or None,
            unsent=unsent or None,
            runs_on=runs_on or None,
            ok=ok,
            duration=duration,
            retry_after=retry_after,
            terms=asdict(entered.terms) if entered.terms else None,
        )
    )


def free(entered: Entered) -> None:
    """A call that was given up is over: give its slot back; if it tried an open breaker, the next one may."""
    store.ask("leave", entered.dependency, grant=entered.grant, slot=entered.holds_slot or None)


def give_up(dependency: str, key: str, ticket: str) -> None:
    """Who waits with this ticket will not come back: its place in the line is free."""
    store.ask("give_up", dependency, key=key, ticket=ticket)


def _held_back(answer: store.Answer) -> HeldBack:
    match answer["cause"]:
        case "open":
            return is_open(answer)
        case "slots":
            return no_slot(answer)
        case _:
            return no_room(answer)
