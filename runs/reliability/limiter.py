"""How many requests and tokens a dependency is sent: a window that slides, shared fairly between keys."""

from dataclasses import dataclass
from typing import Any, Literal

from runs.reliability import store


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
class KeyUse:
    """What one key has used in the present windows, and how many of its calls wait."""

    key: str
    requests: int
    tokens: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Use:
    """How full the windows are now; keys in the order of their use, the heaviest first."""

    requests: int
    tokens: int
    waiting: int
    keys: tuple[KeyUse, ...]
    full_for_seconds: float  # more than 0: the memory was lost, and nothing is admitted before


class TooLarge(ValueError):
    """One call wants more tokens than a whole minute has: it can never be admitted."""


def use(dependency: str, limits: Limits) -> Use:
    """Counts for a page."""
    seen = store.ask(
        "look",
        dependency,
        looks=True,
        requests=limits.requests,
        period=limits.period_seconds,
        tokens_per_minute=limits.tokens_per_minute,
    )
    windows = [seen.get("requests") or {}, seen.get("tokens") or {}]
    keys = [KeyUse(key, int(told["requests"]), int(told["tokens"]), int(told["waiting"])) for key, told in seen["keys"].items()]
    return Use(
        requests=int(windows[0].get("used", 0)),
        tokens=int(windows[1].get("used", 0)),
        waiting=int(seen["waiting"]),
        keys=tuple(sorted(keys, key=lambda one: (-one.requests, -one.tokens, -one.waiting, one.key))),
        full_for_seconds=max(window.get("full_for", 0.0) for window in windows),
    )


def check(limits: Limits, tokens: int, dependency: str) -> None:
    """Raise TooLarge for a call that could never be admitted."""
    most = limits.tokens_per_minute
    if most is not None and tokens > most:
        raise TooLarge(f"{dependency} may be sent {most} tokens a minute, and this call alone asks for {tokens}.")


def no_room(answer: dict[str, Any]) -> NoRoom:
    """What the script said, as a value."""
    return NoRoom(answer["seconds"], int(answer["used"]), int(answer["limit"]), answer["cause"])
