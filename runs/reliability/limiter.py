"""How many requests and tokens a dependency is sent: a window that slides, shared fairly between keys."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dependency allows; None is no limit."""

    requests: int | None = None
    period_seconds: float = 60.0
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Come back in so many seconds, with the same ticket. Each of those who wait is told a time of its own."""

    seconds: float
    used: int
    limit: int
    what: Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Use:
    """How full the windows are now."""

    requests: int
    tokens: int
    full_for_seconds: float  # more than 0: the memory was lost, and nothing is admitted before


class TooLarge(ValueError):
    """One call wants more tokens than a whole minute has: it can never be admitted."""


def used(answer: dict[str, Any]) -> Use:
    """What the script said of the windows, as a value."""
    windows = [answer.get("requests") or {}, answer.get("tokens") or {}]
    requests, tokens = (int(window.get("used", 0)) for window in windows)
    return Use(requests, tokens, full_for_seconds=max(window.get("full_for", 0.0) for window in windows))


def check(limits: Limits, tokens: int, dependency: str) -> None:
    """Raise TooLarge for a call that could never be admitted."""
    most = limits.tokens_per_minute
    if most is not None and tokens > most:
        raise TooLarge(f"{dependency} may be sent {most} tokens a minute, and this call alone asks for {tokens}.")


def no_room(answer: dict[str, Any]) -> NoRoom:
    """What the script said, as a value."""
    return NoRoom(answer["seconds"], int(answer["used"]), int(answer["limit"]), answer["cause"])
