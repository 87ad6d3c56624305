"""What follows a failed attempt: a closed set of outcomes, so that nothing falls between them."""

from dataclasses import dataclass

from .backoff import wait_seconds
from .errors import GiveUp, TryLater

SHORT_WAIT_SECONDS = 2.0  # waits up to this may sleep in the process; longer ones park the run


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt after this many seconds."""

    wait_seconds: float

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


Outcome = TryAgain | FailFinally | AskPerson


UNKNOWN = "Nobody knows whether it happened: look it up outside, then say what is true."


def after_failure(error: BaseException, *, attempt: int, attempts: int, chance: float, effect: str = "none") -> Outcome:
    """Decide what follows attempt number `attempt` of at most `attempts`; chance in [0, 1) is for the jitter.

    An effect that may happen only once is never repeated by itself: a failure does not say that it did not happen.
    """
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
