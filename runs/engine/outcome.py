"""What follows a failed attempt: a closed set of outcomes, so that nothing falls between them."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from .backoff import clamp_seconds, wait_seconds
from .errors import GiveUp, TryLater
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
    """The worker asks to be called again after this many seconds; it was no attempt."""

    wait_seconds: float
    why: str

    @property
    def parks(self) -> bool:
        return self.wait_seconds > SHORT_WAIT_SECONDS


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


def after_failure(error: BaseException, *, attempt: int, attempts: int, chance: float, effect: str = "none") -> Outcome:
    """Decide what follows attempt number `attempt` of at most `attempts`; chance in [0, 1) is for the jitter.

    An effect that may happen only once is never repeated by itself: a failure does not say that it did not happen. A
    worker that says "not yet" says so.
    """
    if isinstance(error, TryLater) and error.seconds is not None:
        return NotYet(clamp_seconds(error.seconds), error.why)
    if effect == "once":
        return AskPerson(f"{type(error).__name__}: {error}. {UNKNOWN}")
    if isinstance(error, GiveUp):
        return FailFinally(f"It cannot succeed by trying again: {error}")
    if not isinstance(error, TryLater):
        return AskPerson(f"{type(error).__name__}: {error}")
    if attempt >= attempts:
        tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return FailFinally(f"It still failed after {tries}: {error}")
    return TryAgain(wait_seconds(attempt, chance=chance, retry_after=error.retry_after))


# --- crashes: attempts that their process did not survive ----------------------------------------------------------

ALONE_AFTER = 2  # crashes: from then on the step has a process to itself
MOST_CRASHES = 3  # then a person decides
MOST_UNSEEN_CRASHES = 6  # the same where others in the process may have been to blame each time


class Ending(NamedTuple):
    """How the process of an attempt ended; `reason` continues the sentence "its process ended"."""

    reason: str
    seconds: float
    signal: int | None = None
    exit_code: int | None = None
    memory_mb: int | None = None


TOGETHER = "together with"  # a process whose end nobody saw


def crashed(position: int, attempt: int, ending: Ending) -> Draft:
    """What is recorded of an attempt that its process did not survive."""
    return Draft(Kind.ATTEMPT_CRASHED, {"attempt": attempt} | ending._asdict() | {"seconds": round(ending.seconds, 3)}, position)


def is_poison(crashes: int, crash: dict[str, Any], *, witnessed: bool) -> bool:
    """It crashed so often that it is not tried again. Who gets a process of its own is innocent of an end that nobody saw."""
    unseen = crash["signal"] is None and crash["exit_code"] is None and crash["reason"].startswith(TOGETHER)
    return crashes >= (MOST_UNSEEN_CRASHES if unseen and witnessed else MOST_CRASHES)


def why_crashed(crashes: int, crash: dict[str, Any]) -> str:
    """What a person reads about a step that crashed so often."""
    times = "" if crashes == 1 else f" {crashes} times. The last time"
    return f"This step did not come to its end{times or ':'} {how_crashed(crash)}."


def how_crashed(crash: dict[str, Any]) -> str:
    """What ended an attempt: the seconds of a process whose end nobody saw last until its run was taken over."""
    reason, seconds = crash["reason"], f"{crash['seconds']:.1f} s"
    if lost := re.fullmatch(rf"{TOGETHER} (its run|\S+)", reason):
        process = "its job process" if lost[1] == "its run" else f"its job process {lost[1]}"
        return f"{process} was lost; the run was taken over {seconds} after the attempt began"
    if reason.startswith("because "):
        return f"it was cut off after {seconds}, {reason}"
    memory = f" with {crash['memory_mb']} MB in use" if crash.get("memory_mb") else ""
    return f"its process ended {reason} after {seconds}{memory}"
