"""What follows a failed attempt: a closed set of outcomes, so that nothing falls between them."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from .backoff import USUAL, clamp_seconds, wait_seconds
from .errors import GiveUp, HeldBack, LeftTooLate, TryLater
from .events import Draft, Kind

SHORT_WAIT_SECONDS = 2.0  # waits up to this may sleep in the process; longer ones park the run


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt after this many seconds."""

    wait_seconds: float

    @property
    def parks(self) -> bool:
        return self.wait_seconds > SHORT_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class NotYet:
    """The worker asks to be called again after this many seconds, or is held back from a dependency; it was no attempt."""

    wait_seconds: float
    why: str
    cause: str = "later"
    dependency: str = ""
    late: bool = False  # it was let in, and did not leave in time

    @property
    def parks(self) -> bool:
        """What others share is waited for without a process, however short it is."""
        return self.cause != "later" or self.wait_seconds > SHORT_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class FailFinally:
    """No further attempt: the fallback, or else a person."""

    why: str


@dataclass(frozen=True, slots=True)
class AskPerson:
    """Straight to a person: asked for by the worker, or an error nobody has classified."""

    why: str


Outcome = TryAgain | NotYet | FailFinally | AskPerson


UNKNOWN = "Nobody knows whether it happened: look it up outside, then say what is true."


def after_failure(
    error: BaseException, *, attempt: int, attempts: int, chance: float, effect: str = "none", elapsed_seconds: float = 0.0,
    total_seconds: float | None = None,
) -> Outcome:  # fmt: skip
    """Decide what follows attempt number `attempt` of at most `attempts`; chance in [0, 1) is for the jitter.

    `elapsed_seconds` have passed since the first attempt; the step as a whole may take `total_seconds`.

    An effect that may happen only once is never repeated by itself: a failure does not say that it did not happen. A
    worker that says "not yet" says so.
    """
    most_seconds = float("inf") if total_seconds is None else total_seconds
    if isinstance(error, TryLater) and error.seconds is not None:
        not_yet = _not_yet(error, error.seconds)
        in_time = elapsed_seconds + not_yet.wait_seconds <= most_seconds
        return not_yet if in_time else FailFinally(f"It could not be done within {most_seconds:g} s: {error}")
    if effect == "once":
        return AskPerson(f"{type(error).__name__}: {error}. {UNKNOWN}")
    if isinstance(error, GiveUp):
        return FailFinally(f"It cannot succeed by trying again: {error}")
    if not isinstance(error, TryLater):
        return AskPerson(f"{type(error).__name__}: {error}")
    terms = error.terms or USUAL
    wait = wait_seconds(attempt, chance=chance, retry_after=error.retry_after, terms=terms)
    if attempt >= attempts or elapsed_seconds + wait > min(terms.total_seconds, most_seconds):
        tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        within = "" if attempt >= attempts else f" in {elapsed_seconds:.0f} s"
        return FailFinally(f"It still failed after {tries}{within}: {error}")
    return TryAgain(wait)


def _not_yet(error: TryLater, seconds: float) -> NotYet:
    if isinstance(error, HeldBack):
        return NotYet(clamp_seconds(seconds), error.why, error.cause, error.dependency, isinstance(error, LeftTooLate))
    return NotYet(clamp_seconds(seconds), error.why)


# --- crashes: attempts that their process did not survive ----------------------------------------------------------

ALONE_AFTER = 2  # crashes and losses: from then on the step has a process to itself
MOST_CRASHES = 3  # then a person decides
MOST_LOSSES = 12  # the same where others were in hand each time: a step must not end processes for ever


class Ending(NamedTuple):
    """How the process of an attempt ended; `reason` continues the sentence "its process ended".

    `others`: so many other runs and steps were in hand of it (null: nobody knows, or it does not matter). `counts`: it
    is held against the step, which was watched, or the only one in hand.
    """

    reason: str
    seconds: float
    signal: int | None = None
    exit_code: int | None = None
    memory_mb: int | None = None
    others: int | None = None
    counts: bool = True


def lost(owner: str, others: int | None, seconds: float) -> Ending:
    """The end of a process that nobody saw."""
    return Ending(f"{TOGETHER} {owner or 'its run'}", seconds, others=others, counts=others == 0)


TOGETHER = "together with"  # a process whose end nobody saw


def crashed(position: int, attempt: int, ending: Ending) -> Draft:
    """What is recorded of an attempt that its process did not survive."""
    return Draft(Kind.ATTEMPT_CRASHED, {"attempt": attempt} | ending._asdict() | {"seconds": round(ending.seconds, 3)}, position)


def is_poison(crashes: int, losses: int) -> bool:
    """It crashed so often that it is not tried again."""
    return crashes >= MOST_CRASHES or losses >= MOST_LOSSES


def why_crashed(times: int, crash: dict[str, Any]) -> str:
    """What a person reads about a step that crashed so often."""
    often = "" if times == 1 else f" {times} times. The last time"
    what = "left no result" if unseen(crash) else "did not come to its end"
    return f"This step {what}{often or ':'} {how_crashed(crash)}."


def is_timeout(crash: dict[str, Any]) -> bool:
    """The attempt was cut off because it took too long."""
    return str(crash["reason"]).startswith(TOO_LONG)


TOO_LONG = "because it took longer"  # than it may (runs/keeper.py)


def unseen(crash: dict[str, Any]) -> bool:
    """Nobody saw the process end: perhaps after the attempt, before its result was recorded."""
    return str(crash["reason"]).startswith(TOGETHER)


def how_crashed(crash: dict[str, Any]) -> str:
    """What ended an attempt: the seconds of a process whose end nobody saw last until its run was taken over."""
    reason, seconds = crash["reason"], f"{crash['seconds']:.1f} s"
    if lost_one := re.fullmatch(rf"{TOGETHER} (its run|\S+)", reason):
        process = "its job process" if lost_one[1] == "its run" else f"its job process {lost_one[1]}"
        return f"{process} was lost{_with(crash.get('others'))}; the run was taken over {seconds} after the attempt began"
    if reason.startswith("because "):
        return f"it was cut off after {seconds}, {reason}"
    return f"its process ended {how_ended(Ending(reason, crash['seconds'], memory_mb=crash.get('memory_mb')))}"


def how_ended(ending: Ending) -> str:
    """Of a process whose end somebody saw."""
    memory = f" with {ending.memory_mb} MB in use" if ending.memory_mb else ""
    after = f"after {ending.seconds:.1f} s" if ending.seconds >= 0.05 else "within 0.1 s"
    return f"{ending.reason} {after}{memory}"


def _with(others: int | None) -> str:
    if not others:
        return ""
    more = "another in hand, which" if others == 1 else f"{others:,} others in hand, any of which"
    return f" with {more} may have ended it"
