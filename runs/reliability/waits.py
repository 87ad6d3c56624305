"""What is said of a call that was held back: its cause, how long, and one sentence for the page."""

import random
from datetime import UTC, datetime, timedelta

from runs.engine.errors import HeldBack, LeftTooLate, TryLater
from runs.reliability.breaker import Open
from runs.reliability.entry import HeldBack as Refused
from runs.reliability.limiter import NoRoom
from runs.reliability.slots import NoSlot
from runs.reliability.terms import Terms

LEAST_SECONDS, MOST_SECONDS = 15.0, 900.0  # between two looks whether something was switched on again
AWAY_SECONDS = 5.0  # between two looks whether the counters are back
HOLDERS_NAMED = 3
HOLDERS_KNOWN = 20  # the scripts name no more
GIVEN_UP = ", whose call was given up and has not ended yet"


def switched_off(wanted: Terms) -> HeldBack:
    """The longer it has been off, the less often those who wait look; each at a time of its own."""
    off_seconds = (datetime.now(UTC) - wanted.changed_at).total_seconds() if wanted.changed_at else 0.0
    seconds = min(max(off_seconds / 4, LEAST_SECONDS), MOST_SECONDS)
    why = f"{wanted.name} is switched off: an admin can switch it on again."
    return HeldBack("switched_off", wanted.name, _staggered(seconds), why)


def left_too_late(wanted: Terms) -> LeftTooLate:
    """Its place in the window passed, or its slot went to another, before it was called."""
    why = f"{wanted.name} was not called, because connecting, or this job process, took too long."
    return LeftTooLate("limit", wanted.name, _staggered(1.0), why)


def always_too_late(wanted: Terms, times: int) -> TryLater:
    """So often in a row: that is no longer a wait for room, so it counts as an attempt."""
    often = "" if times == 1 else f" {times} times"
    error = TryLater(
        f"{wanted.name} was not called: a call that is let in must leave before its place is another's, and{often} connecting,"
        " or this job process, took longer. Look whether the way there is slow; a longer period of its limit gives more time"
    )
    error.terms = wanted.retry
    return error


def unknown(wanted: Terms) -> HeldBack:
    """A limit that cannot be counted is kept by calling nothing; what a person opened stays open."""
    what = "has limits that are counted in" if wanted.has_limits else "has a breaker that a person opened, kept in"
    why = f"{wanted.name} {what} Redis, which cannot be reached: nothing is called until it is back."
    return HeldBack("limit", wanted.name, _staggered(AWAY_SECONDS), why)


def still_away(wanted: Terms, error: TryLater) -> HeldBack:
    """The canary failed: its step waits like the others, and somebody else may be the next to try."""
    seconds = max(wanted.breaker.open_seconds * random.uniform(1.0, 1.2), error.retry_after or 0.0)  # noqa: S311 - jitter
    why = f"The breaker of {wanted.name} is open: this step's call tried it, and failed ({str(error).rstrip('.')})."
    return HeldBack("breaker", wanted.name, seconds, why)


def refused(wanted: Terms, answer: Refused) -> HeldBack:
    """What the shared counters answered, as the error that parks the step."""
    if isinstance(answer, NoRoom):
        return HeldBack("limit", wanted.name, answer.seconds, _no_room(wanted, answer))
    if isinstance(answer, NoSlot):
        return HeldBack("slot", wanted.name, answer.seconds, _no_slot(wanted, answer))
    return HeldBack("breaker", wanted.name, answer.seconds, _open(wanted, answer))


def _no_room(wanted: Terms, answer: NoRoom) -> str:
    period = 60.0 if answer.what == "tokens" else wanted.limits.period_seconds
    taken = f"{wanted.name} takes {_counted(answer.limit, answer.what)} in {period:g} s"
    if answer.used < answer.limit:
        return f"{taken}, and has no room for this run yet."
    return f"{taken}, and {answer.used:,} {'is' if answer.used == 1 else 'are'} used."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def _no_slot(wanted: Terms, answer: NoSlot) -> str:
    most = wanted.limits.concurrency or len(answer.holders)
    named = [f"{holder(one.name)}{GIVEN_UP if one.given_up else ''}" for one in answer.holders[:HOLDERS_NAMED]]
    others = len(answer.holders) - len(named)
    held = f", then held by {', '.join(named)}{f' and {others} more' if others > 0 else ''}" if named else ""
    taken = f"{wanted.name} takes {_counted(most, 'calls')} at once"
    if len(answer.holders) < min(most, HOLDERS_KNOWN):  # for others who go first, or for calls from before there were slots
        return f"{taken}, and has no slot for this run yet{held}."
    return f"{taken}: no slot was free{held}."


def holder(ticket: str) -> str:
    """Who holds a slot, in words."""
    run, step = step_of(ticket)
    return f"run {run} ({step})" if run else ticket


def step_of(ticket: str) -> tuple[int | None, str]:
    """The ticket of a step is its run and its name; others are the name of a process."""
    run, _, step = ticket.partition("#")[0].partition(":")
    return (int(run), step) if step and run.isdigit() else (None, ticket)


def _open(wanted: Terms, answer: Open) -> str:
    why = f" ({answer.why[:1].lower()}{answer.why[1:].rstrip('.')})" if answer.why else ""
    if answer.state == "closed":
        return f"{wanted.name} works again, and those that waited are let in one after the other."
    if answer.state == "half-open":
        return f"{wanted.name} failed, and one call is trying now whether it works again."
    if answer.next_try_seconds is None:
        return f"The breaker of {wanted.name} was opened by a person{why}: nothing is called until somebody closes it."
    next_try = datetime.now(UTC) + timedelta(seconds=answer.next_try_seconds)
    return f"The breaker of {wanted.name} is open{why}: nothing is called until one call tries it at {next_try:%H:%M:%S} UTC."


def _staggered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
