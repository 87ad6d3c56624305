"""A series with what was expected of it and when an alert was open, as the points of an SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import dropwhile

from runs.engine.anomaly import Outcome, Verdict

WIDTH, HEIGHT, MARGIN = 600.0, 100.0, 4.0
MOST_COLUMNS, NARROWEST = 300, 2.0
Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Band:
    """An alert that would have been open; `until` is None where it still would be."""

    since: datetime
    until: datetime | None
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Chart:
    """`lines` and `usual` are points of polylines, which break where nothing was read; `alone` stand between two breaks."""

    first: datetime
    last: datetime
    least: float
    most: float
    lines: list[str]
    alone: list[Place]
    usual: list[str]
    breaches: list[Place]
    bands: list[Band]


def draw(verdicts: Sequence[Verdict], openings: Sequence[tuple[datetime, datetime | None]] = ()) -> Chart | None:
    """From the first that was read on; None where nothing was."""
    verdicts = list(dropwhile(lambda one: one.point.value is None, verdicts))
    columns = _columns(verdicts)
    known = [value for one in columns for value in (one.point.value, one.expected) if value is not None]
    if not known:
        return None
    first, last = verdicts[0].point.at, verdicts[-1].point.at
    least, most = min(0.0, *known), max(known)
    seconds, range_ = max((last - first).total_seconds(), 1.0), (most - least) or 1.0

    def x(at: datetime) -> float:
        return round(WIDTH * (min(max(at, first), last) - first).total_seconds() / seconds, 1)

    def y(value: float) -> float:
        return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - least) / range_, 1)

    values = _stretches([(x(one.point.at), None if one.point.value is None else y(one.point.value)) for one in columns])
    usual = _stretches([(x(one.point.at), None if one.expected is None else y(one.expected)) for one in columns])
    wrong = [
        (x(one.point.at), y(one.point.value)) for one in columns if one.outcome == Outcome.BREACH and one.point.value is not None
    ]
    bands = [_band(since, until, x(since), x(until or last)) for since, until in openings]
    alone = [one[0] for one in values if len(one) == 1]
    expected = [one if len(one) > 1 else _short(one[0]) for one in usual]
    return Chart(first, last, least, most, _lines(values), alone, _lines(expected), wrong, bands)


def _band(since: datetime, until: datetime | None, left: float, right: float) -> Band:
    """At least as wide as can be seen, and within the picture: what began before it, or has just begun, is at its edge."""
    width = max(NARROWEST, right - left)
    return Band(since, until, min(left, WIDTH - width), width)


def _columns(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """As many as can be seen: of each few the one that is most wrong, else the largest."""
    each = max(1, -(-len(verdicts) // MOST_COLUMNS))
    return [max(verdicts[start : start + each], key=_weight) for start in range(0, len(verdicts), each)]


def _weight(one: Verdict) -> tuple[bool, bool, float]:
    return one.outcome == Outcome.BREACH, one.point.value is not None, one.point.value or 0.0


def _lines(stretches: list[list[Place]]) -> list[str]:
    return [" ".join(f"{x},{y}" for x, y in one) for one in stretches if len(one) > 1]


def _short(lone: Place) -> list[Place]:
    """A dash that can be seen."""
    x, y = lone
    return [(x - NARROWEST, y), (x + NARROWEST, y)]


def _stretches(points: list[tuple[float, float | None]]) -> list[list[Place]]:
    """Those without a gap."""
    found: list[list[Place]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [one for one in found if one]
