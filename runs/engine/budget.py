"""What a budget counts, what is said when it has no room, and what a person may raise it to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from .step import StepState

# Counted in rows, because steps, children and processes share them.
COUNTED = ("money", "tokens", "calls")
# Counted in logs: the seconds that a run and those it started take without people (RunState.seconds), its own steps, and
# those with the same worker and input.
CEILINGS = ("seconds", "steps", "repeats")
UNITS = COUNTED + CEILINGS
# Of the runs that it starts, and of those that start runs in turn, below the first; an admin does not set these for an agent.
STARTS = ("children", "depth")
WORDS = {"seconds": "s", "repeats": "times", "children": "runs", "depth": "levels"}
DAILY = (*COUNTED, "seconds")  # of all runs of an agent; its seconds are counted in a row where they are limited
RUN, DAY = "run:", "day:"  # with what a scope begins
WHOLE_RUN = "run"  # the scope of what is counted in the run's own log
MOST = Decimal(10) ** 12
MONEY_PLACES = 6
LOOK_BACK = 500  # steps among which repetitions are looked for

Question = dict[str, Any]  # scope, unit, limit, used, needs, double, currency: what a person is asked about


@dataclass(frozen=True, slots=True)
class Over:
    """A run has come to the end of what it may do by itself."""

    why: str
    question: Question


def run_scope(run_id: int) -> str:
    return f"{RUN}{run_id}"


def day_scope(agent: str, at: datetime) -> str:
    """Days are those of UTC, by the database's clock."""
    return f"{DAY}{agent}:{at.astimezone(UTC):%Y-%m-%d}"


def day_end(at: datetime) -> datetime:
    """When the day's budget begins anew."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)


def shown(unit: str, number: Decimal | None, currency: str) -> str:
    """ "0.42 EUR", "12,300 tokens", "1 call"."""
    if number is None:
        return "no limit"
    if unit == "money":
        return f"{_rounded(number)} {currency}"
    word = WORDS.get(unit, unit)
    whole = f"{number:,.0f}"
    return f"{whole} {word.removesuffix('s') if whole == '1' and unit not in ('seconds', 'repeats') else word}"


def _rounded(number: Decimal) -> str:
    """Cents, or as many places as a small amount needs; what is spent is never rounded to nothing."""
    places = 2 if number == 0 or number >= Decimal("0.1") else 4
    return f"{number:,.{places}f}"


def question(scope: str, unit: str, *, limit: Decimal, used: Decimal, needs: Decimal, currency: str) -> Question:
    """What a person is asked about; numbers as text, so that money stays exact."""
    double = max(limit * 2, _whole(unit, used + needs))
    if double <= used:  # a call may need nothing that could be told before
        double = _whole(unit, used) + 1
    told = {"limit": limit, "used": used, "needs": needs, "double": double}
    return {"scope": scope, "unit": unit, "currency": currency} | {name: plain(number) for name, number in told.items()}


def _whole(unit: str, number: Decimal) -> Decimal:
    return number.quantize(Decimal("0.01") if unit == "money" else Decimal(1), rounding=ROUND_CEILING)


def plain(number: Decimal) -> str:
    """Without an exponent, and without zeros that say nothing."""
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def raised(asked: Question, value: Any) -> str:
    """The new limit as it is recorded. Raises ValueError with a sentence for what cannot be one."""
    limit, used, unit = Decimal(asked["limit"]), Decimal(asked["used"]), asked["unit"]
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise ValueError("Enter a number.") from error
    if not number.is_finite() or number <= limit:
        raise ValueError(f"The new limit must be more than {shown(unit, limit, asked['currency'])}.")
    if number <= used:  # it would be asked for again at once
        raise ValueError(f"Used or reserved already: {shown(unit, used, asked['currency'])}. Give more than that.")
    if number > MOST:
        raise ValueError(f"The new limit may be {MOST:,.0f} at most.")
    if number != round(number, MONEY_PLACES if unit == "money" else 0):
        raise ValueError("Six decimal places are the most." if unit == "money" else "Enter a whole number.")
    return plain(number)


def no_room(scope: str, asked: Question) -> str:
    """Why the call was not made."""
    currency, unit = asked["currency"], asked["unit"]
    limit, used, needs = (shown(unit, Decimal(asked[name]), currency) for name in ("limit", "used", "needs"))
    what = f" This call may need {needs}."
    if unit == "seconds":  # of a day: nobody knows how long a step will be worked at
        limit, used, what = f"{limit} of work", f"{used} of work", ""
    whose = f"The budget of run {scope.partition(':')[2]}" if scope.startswith(RUN) else f"Today's budget of {agent_of(scope)}"
    return f"{whose} is {limit}. Used or reserved: {used}.{what}"


def agent_of(scope: str) -> str:
    """Of the scope of a day."""
    return scope.split(":")[1]


# --- what the log of a run tells ----------------------------------------------------------------------------------


def over(
    steps: Mapping[int, StepState],
    position: int,
    *,
    limits: Mapping[str, Any],
    seconds: float,
    given: tuple[str, Any] | None,
) -> Over | None:
    """Whether the step at this position would go beyond a limit of its run; `given` is its worker and input."""
    most = _ceilings(*(limits.get(unit) for unit in CEILINGS))
    if "steps" in most and position > most["steps"]:
        return _over("steps", most, position - 1)
    if "seconds" in most and seconds >= most["seconds"]:
        return _over("seconds", most, int(seconds))
    if "repeats" in most and given and (times := repeated(steps, position, *given)) >= most["repeats"]:
        why = f"{given[0]} was executed {times} times with the same input, which looks like a loop."
        return Over(why, _question("repeats", most, times))
    return None


def over_starts(step: str, *, begun: int, more: int, depth: int, limits: Mapping[str, Any]) -> Over | None:
    """Whether this step would start runs beyond what a run may: it has begun so many, and is itself so deep below the first."""
    most = {unit: Decimal(str(limits[unit])) for unit in STARTS}
    if depth + 1 > most["depth"]:
        told = f"Step {step!r} would start a run {depth + 1} below the first; {most['depth']} is the most."
        return Over(f"{told} Runs that start runs like themselves look like this.", _question("depth", most, depth))
    if begun + more > most["children"]:
        told = f"With step {step!r} this run would have {begun + more:,} children; {most['children']:,} is the most."
        asked = question(WHOLE_RUN, "children", limit=most["children"], used=Decimal(begun), needs=Decimal(more), currency="")
        return Over(told, asked)
    return None


@lru_cache
def _ceilings(*limits: Any) -> dict[str, Decimal]:
    return {unit: Decimal(str(limit)) for unit, limit in zip(CEILINGS, limits, strict=True) if limit is not None}


def is_asked_by(step: StepState) -> bool:
    """Whether a person is asked at this step, because the run has come to such a limit."""
    return step.asked and step.cause == "budget" and bool(step.proposal["scope"] == WHOLE_RUN)


def repeated(steps: Mapping[int, StepState], position: int, worker: str, given: Any) -> int:
    """How many of the steps before this one had the same worker and input."""
    before = (steps[one] for one in range(max(1, position - LOOK_BACK), position) if one in steps)
    return sum(step.worker == worker and step.input == given for step in before)


def _over(unit: str, most: dict[str, Decimal], used: int) -> Over:
    do, done = ("take", "taken") if unit == "seconds" else ("do", "done")
    limit, number = shown(unit, most[unit], ""), shown(unit, Decimal(used), "")
    of_what = ": of work and of waits for no person" if unit == "seconds" else ""
    return Over(f"This run may {do} {limit}, and has {done} {number}{of_what}.", _question(unit, most, used))


def _question(unit: str, most: dict[str, Decimal], used: int) -> Question:
    return question(WHOLE_RUN, unit, limit=most[unit], used=Decimal(used), needs=Decimal(1), currency="")
