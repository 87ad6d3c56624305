"""How long to wait before the next attempt."""

from dataclasses import dataclass

LONGEST_WAIT_SECONDS = 366 * 86_400.0
LONGEST_SECONDS = 86_400.0  # what another side asks for is honoured up to a day


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """How a failed step is tried again; `attempts` is None where its worker or its agent's configuration says how often."""

    attempts: int | None = None
    first_wait_seconds: float = 2.0
    longest_wait_seconds: float = 300.0
    total_seconds: float = 86_400.0  # no attempt begins later than this after the first


USUAL = RetryTerms()


def clamp_seconds(seconds: float) -> float:
    """A wait that somebody asked for, as it is kept: from 0 to a year; what is no number is 0."""
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else 0.0


def wait_seconds(attempt: int, *, chance: float, retry_after: float | None = None, terms: RetryTerms = USUAL) -> float:
    """Seconds to wait after failed attempt number `attempt` (1, 2, ...).

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015):
    chance in [0, 1) picks a point below min(longest, first * 2**(attempt - 1)). What the other side asked for is the least.
    """
    ceiling = min(terms.longest_wait_seconds, terms.first_wait_seconds * 2.0 ** min(attempt - 1, 30))
    return max(chance * ceiling, min(retry_after or 0.0, LONGEST_SECONDS))
