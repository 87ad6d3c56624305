"""Whether a dependency is asked at all: a circuit breaker that all processes share."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runs.reliability import store

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """It opens when of at least `minimum` calls in the window this share failed, and tries one call after `open_seconds`."""

    failure_ratio: float = 0.5
    minimum: int = 10
    window_seconds: float = 60.0
    open_seconds: float = 12.0


@dataclass(frozen=True, slots=True)
class Change:
    """The breaker went from one state to another, and why: for a row and an alert. Exactly one caller gets it."""

    old: State
    new: State
    why: str


@dataclass(frozen=True, slots=True)
class Open:
    """Do not call. Come back in so many seconds, each at a time of its own; `next_try_seconds` is when the next canary goes."""

    seconds: float
    next_try_seconds: float | None  # None: opened by hand for as long as nobody closes it
    state: State  # closed: it works again, and those who waited are let in by growing cohorts
    why: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a page shows of a breaker."""

    state: State
    since: datetime | None
    next_try: datetime | None
    why: str
    by: str  # who forced it; empty: nobody
    calls: int  # in the window
    failures: int
    waiting: int  # calls that were held back by it and have not come back
    ramp: bool  # it has closed again, and lets those who waited in by growing cohorts
    broken_since: datetime | None = None  # since when it has not been closed, through all tries

    @property
    def began(self) -> datetime | None:
        """Since when it is as it is: an outage goes on while calls try it; a person opened it when they did."""
        return self.since if self.by else self.broken_since or self.since

    @property
    def last_try(self) -> datetime | None:
        """When a call last tried it in vain."""
        return self.since if self.state == "open" and self.began != self.since else None


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of calls; latencies are upper bounds of a fixed histogram (steps of the square root of two)."""

    at: datetime
    calls: int
    failures: int
    held_back: int
    p50_seconds: float | None
    p95_seconds: float | None


def force(dependency: str, state: Literal["open", "closed"], reason: str, by: str) -> Change | None:
    """Open or close it by hand. Opened, it stays so until somebody closes it; closed, it goes on by itself."""
    return change(store.ask("force", dependency, state=state, why=reason, by=by))


def look(dependency: str) -> Look:
    """State, reasons and counts."""
    return seen(store.ask("look", dependency, looks=True))


def seen(answer: dict[str, Any]) -> Look:
    """What the script said of it, as a value."""
    told, window = answer["breaker"], answer["window"]
    return Look(
        state=told["state"],
        since=store.moment(told.get("since")),
        next_try=store.moment(told.get("until")) if told["state"] == "open" else None,
        why=told.get("why", ""),
        by=told.get("by", ""),
        calls=int(window["calls"]),
        failures=int(window["failures"]),
        waiting=int(answer["waiting"]),
        ramp=answer["ramp"],
        broken_since=store.moment(told.get("broken_since")),
    )


def minutes(answer: dict[str, Any]) -> list[Minute]:
    """The same of the last minutes, oldest first, also those without calls."""
    return [_minute(number, counts) for number, counts in answer["minutes"]]


def is_open(answer: dict[str, Any]) -> Open:
    """What the script said, as a value."""
    return Open(answer["seconds"], answer.get("next_try"), answer["state"], answer["why"])


def change(answer: dict[str, Any]) -> Change | None:
    """The same of a change, if there was one."""
    told = answer.get("change")
    return Change(told["old"], told["new"], told["why"]) if told else None


def _minute(number: int, counts: dict[str, str]) -> Minute:
    bins = sorted((int(name[1:]), int(text)) for name, text in counts.items() if name.startswith("b"))
    calls, failures, held_back = (int(counts.get(name, 0)) for name in ("c", "f", "h"))
    return Minute(
        datetime.fromtimestamp(number * 60, UTC), calls, failures, held_back, _quantile(bins, 0.5), _quantile(bins, 0.95)
    )


def _quantile(bins: list[tuple[int, int]], share: float) -> float | None:
    """The upper bound, in seconds, of the bin in which it lies."""
    left = share * sum(count for _, count in bins)
    for number, count in bins:
        left -= count
        if left <= 0:
            return float(2 ** ((number + 1) / 2) / 1000)
    return None
