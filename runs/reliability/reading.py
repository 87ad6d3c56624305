"""All that a page shows of dependencies as they are now, read at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from runs.reliability import breaker, limiter, slots, store
from runs.reliability.limiter import Limits

MINUTES = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """One dependency. `holders` are those who have held a slot for longest; all are counted."""

    look: breaker.Look
    use: limiter.Use
    minutes: list[breaker.Minute]
    slots_held: int
    holders: tuple[slots.Holder, ...]


def readings(wanted: Mapping[str, Limits]) -> dict[str, Reading]:
    """By name. Raises store.Unavailable."""
    questions = {
        name: {
            "looks": True,
            "minutes": MINUTES,
            "requests": limits.requests,
            "period": limits.period_seconds,
            "tokens_per_minute": limits.tokens_per_minute,
        }
        for name, limits in wanted.items()
    }
    return {name: _reading(answer) for name, answer in store.ask_each("look", questions).items()}


def _reading(answer: store.Answer) -> Reading:
    return Reading(
        look=breaker.seen(answer),
        use=limiter.used(answer),
        minutes=breaker.minutes(answer),
        slots_held=int(answer["slots"]["used"]),
        holders=slots.held_by(answer),
    )
