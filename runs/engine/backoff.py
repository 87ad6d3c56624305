"""How long to wait before the next attempt."""

BASE_SECONDS = 1.0
CAP_SECONDS = 300.0
LONGEST_WAIT_SECONDS = 366 * 86_400.0
LONGEST_SECONDS = 86_400.0  # what another side asks for is honoured up to a day


def clamp_seconds(seconds: float) -> float:
    """A wait that somebody asked for, as it is kept: from 0 to a year; what is no number is 0."""
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else 0.0


def wait_seconds(attempt: int, *, chance: float, retry_after: float | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt` (1, 2, ...).

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015):
    chance in [0, 1) picks a point below min(cap, base * 2**attempt). What the other side asked for is the least.
    """
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempt, 30))
    return max(chance * ceiling, min(retry_after or 0.0, LONGEST_SECONDS))
