"""Every case of what a series of readings is judged to be."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import pytest

from runs.engine import anomaly
from runs.engine.anomaly import Hours, Kind, Next, Outcome, Point, Side, Terms

B, C, U, X, M = Outcome.BREACH, Outcome.CALM, Outcome.UNJUDGED, Outcome.OUTSIDE, Outcome.MISSING
MONDAY = datetime(2026, 11, 2, 0, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def series(
    values: Sequence[float | None], *, count: float = 10, start: datetime = MONDAY, step: timedelta = QUARTER
) -> list[Point]:
    return [Point(start + place * step, value, count) for place, value in enumerate(values)]


def last(values: Sequence[float | None], terms: Terms, *, count: float = 10) -> Outcome:
    return anomaly.judge(series(values, count=count), terms, newest=1)[0].outcome


def terms(kind: Kind, **wanted: object) -> Terms:
    return Terms(kind, QUARTER, **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "value", "outcome"),
    [
        (Side.ABOVE, 5.1, B), (Side.ABOVE, 5.0, C), (Side.ABOVE, 4.9, C),
        (Side.BELOW, 4.9, B), (Side.BELOW, 5.0, C), (Side.BELOW, 5.1, C), (Side.ABOVE, None, M),
    ],
)  # fmt: skip
def test_a_threshold_is_passed_and_not_only_reached(side: Side, value: float | None, outcome: Outcome) -> None:
    assert last([value], terms(Kind.THRESHOLD, side=side, limit=5)) == outcome


def test_too_small_a_sample_is_not_judged() -> None:
    wanted = terms(Kind.THRESHOLD, limit=0.5, least_count=10)
    assert (last([1.0], wanted, count=9), last([1.0], wanted, count=10)) == (U, B)


@pytest.mark.parametrize(
    ("hours", "at", "covered"),
    [
        (Hours(time(9), time(17)), "2026-11-02T09:00", True),
        (Hours(time(9), time(17)), "2026-11-02T17:00", False),
        (Hours(time(9), time(17), weekdays_only=True), "2026-11-07T12:00", False),
        (Hours(time(9), time(17), zone="Asia/Tokyo"), "2026-11-02T00:30", True),
        (Hours(time(22), time(6)), "2026-11-02T23:00", True),
        (Hours(time(22), time(6)), "2026-11-02T05:59", True),
        (Hours(time(22), time(6)), "2026-11-02T12:00", False),
        (Hours(), "2026-11-02T03:00", True),
    ],
)
def test_office_hours(hours: Hours, at: str, covered: bool) -> None:
    assert hours.covers(datetime.fromisoformat(at).replace(tzinfo=UTC)) is covered


def test_absence_counts_only_where_the_whole_window_lies_in_office_hours() -> None:
    wanted = terms(Kind.ABSENCE, hours=Hours(time(0, 15), time(1)))
    found = [one.outcome for one in anomaly.judge(series([0, 0, 0, 3, 0, None]), wanted, newest=6)]
    assert found == [X, X, B, C, B, X], "0:00 and 0:15 end windows that begin before; the one that ends with the day is of it"
    assert last([None], terms(Kind.ABSENCE)) == M


@pytest.mark.parametrize(
    ("until", "window", "covered"),
    [
        ("2026-11-06T17:00", 15, True), ("2026-11-06T17:05", 15, False), ("2026-11-06T09:10", 15, False),
        ("2026-11-06T09:15", 15, True), ("2026-11-07T12:00", 15, False),
    ],
)  # fmt: skip
def test_a_window_lies_in_office_hours_as_a_whole(until: str, window: int, covered: bool) -> None:
    hours = Hours(time(9), time(17), weekdays_only=True)
    assert hours.cover(datetime.fromisoformat(until).replace(tzinfo=UTC), timedelta(minutes=window)) is covered


def test_of_days_those_count_whose_middle_is_a_weekday() -> None:
    hours = Hours(zone="America/New_York", weekdays_only=True)
    ends = [MONDAY + timedelta(days=day) for day in range(8)]
    assert [hours.cover(end, timedelta(days=1)) for end in ends] == [False, True, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("values", "wanted", "outcome"),
    [
        ([10, 21], {"limit": 100}, B), ([10, 20], {"limit": 100}, C), ([20, 9], {"limit": 50, "side": Side.BELOW}, B),
        ([20, 9], {"limit": 50}, C), ([20, 9], {"limit": 50, "side": Side.EITHER}, B),
        ([0, 1], {"limit": 100, "least_value": 0.2}, B), ([0, 0.1], {"limit": 100, "least_value": 0.2}, C),
        ([0, 0], {"limit": 100}, C), ([0, 5], {"limit": 50, "side": Side.BELOW}, C),
        ([10, 21], {"limit": 100, "least_value": 50}, C), ([10, 99, 12], {"limit": 100, "back": 2}, C),
        ([None, 21], {"limit": 100}, U), ([21], {"limit": 100}, U),
    ],
)  # fmt: skip
def test_a_change_is_in_percent_of_what_was_before(
    values: list[float | None], wanted: dict[str, object], outcome: Outcome
) -> None:
    assert last(values, terms(Kind.CHANGE, **wanted)) == outcome


def test_a_change_from_what_was_made_of_too_little_is_not_judged() -> None:
    points = [Point(MONDAY, 1.0, 2), Point(MONDAY + QUARTER, 5.0, 10)]
    assert anomaly.judge(points, terms(Kind.CHANGE, limit=100, least_count=5), newest=1)[0].outcome == U
    assert anomaly.change_percent(0, 0.4) == math.inf


def test_what_is_unusual_is_so_by_median_and_spread() -> None:
    usual, score = anomaly.robust_z(0.13, [0.12, 0.1, 0.14, 0.12, 0.13, 0.11])
    assert usual == pytest.approx(0.12)
    assert 0 < score < 1
    assert anomaly.robust_z(0.9, [0.12, 0.1, 0.14, 0.12, 0.13, 0.11])[1] > 30
    assert anomaly.robust_z(1.04, [1.0] * 50)[1] < 1, "what never varied is not unusual for a trifle"
    assert anomaly.robust_z(5, [0.0] * 40)[1] > 1000
    ten_outliers = [1.0, 1.1, 0.9, 1.0] * 10 + [100.0] * 10
    assert anomaly.robust_z(3, ten_outliers)[1] > 4, "outliers in the history do not blunt it"


@pytest.mark.parametrize(
    ("count", "value", "side", "outcome"),
    [
        (29, 9.0, Side.ABOVE, U), (30, 9.0, Side.ABOVE, B), (30, 1.05, Side.ABOVE, C), (30, 0.1, Side.ABOVE, C),
        (30, 0.1, Side.BELOW, B), (30, 0.1, Side.EITHER, B), (30, None, Side.ABOVE, M),
    ],
)  # fmt: skip
def test_an_anomaly_needs_history_and_a_side(count: int, value: float | None, side: Side, outcome: Outcome) -> None:
    assert (
        last([1.0, 1.1, 0.9] * (count // 3) + [1.0] * (count % 3) + [value], terms(Kind.ANOMALY, limit=4, side=side)) == outcome
    )


@pytest.mark.parametrize(("least", "outcome"), [(0.0, B), (0.2, B), (0.21, C)])
def test_what_is_unusual_and_small_does_not_matter(least: float, outcome: Outcome) -> None:
    assert last([0.0] * 40 + [0.2], terms(Kind.ANOMALY, limit=4, least_value=least)) == outcome


def weeks(count: int) -> list[Point]:
    """Each hour of a week at its own level: busy by day, quiet at night."""
    quarters = count * 7 * 96
    points = series([0.0] * quarters)
    return [Point(one.at, (100.0 if 6 <= one.at.hour < 22 else 10.0) + place % 3, 10) for place, one in enumerate(points)]


@pytest.mark.parametrize(("history", "outcome"), [(4, C), (2, B)])
def test_with_enough_weeks_an_hour_is_compared_with_the_same_hour(history: int, outcome: Outcome) -> None:
    points = weeks(history)
    night = MONDAY + timedelta(days=7 * history, hours=3)
    between = [one for one in weeks(history + 1)[len(points) :] if one.at < night]
    found = anomaly.judge([*points, *between, Point(night, 10.0, 10)], terms(Kind.ANOMALY, limit=4, side=Side.BELOW), newest=1)[0]
    assert found.outcome == outcome, "10 is usual for the night, and of all points unusual"


@pytest.mark.parametrize(("history", "outcome"), [(14, B), (13, U)])
def test_of_days_two_weeks_are_history(history: int, outcome: Outcome) -> None:
    day = timedelta(days=1)
    points = series([10.0, 11.0] * (history // 2) + [10.0] * (history % 2) + [90.0], step=day)
    assert anomaly.judge(points, Terms(Kind.ANOMALY, day, limit=4), newest=1)[0].outcome == outcome


@pytest.mark.parametrize(("at", "outcome"), [(3, C), (14, B)])
def test_a_window_of_an_hour_is_compared_with_that_hour_of_three_weeks_and_those_beside_it(at: int, outcome: Outcome) -> None:
    hour, last_hour = timedelta(hours=1), 3 * 168 + at
    levels = [10.0 if (place % 24) in range(6) else 100.0 + place % 7 for place in range(last_hour)]
    found = anomaly.judge(series([*levels, 10.0], step=hour), Terms(Kind.ANOMALY, hour, Side.EITHER, limit=4), newest=1)[0]
    assert found.outcome == outcome, "10 is usual at three in the morning"


@pytest.mark.parametrize("window", [timedelta(minutes=5), QUARTER, timedelta(hours=1), timedelta(days=1)])
@pytest.mark.parametrize("kind", Kind)
def test_points_before_the_history_change_no_verdict(kind: Kind, window: timedelta) -> None:
    """What the preview asks for reaches further back than what the evaluation does."""
    draw, history = random.Random(f"{kind} {window}"), int(timedelta(days=28) / window)
    values = [draw.choice([None, 0.0, draw.random(), draw.random()]) for _ in range(history * 3 // 2)]
    points = series([*values, 5.0, 0.1, None, 4.0, 0.2], step=window)
    wanted = Terms(kind, window, Side.EITHER if kind != Kind.THRESHOLD else Side.ABOVE, limit=3, back=2, history=history)
    whole = anomaly.judge(points, wanted, newest=5)
    needed = anomaly.judge(points[-5 - history :], wanted, newest=5)
    one_by_one = [anomaly.judge(points[: len(points) - ago], wanted, newest=1)[0] for ago in range(4, -1, -1)]
    assert whole == needed == one_by_one
    assert {one.outcome for one in whole} & {B, C}


@pytest.mark.parametrize(
    ("is_open", "outcomes", "next_"),
    [
        (False, [C, C, B], Next.STAY), (False, [B, C, B], Next.OPEN), (False, [C, B, B], Next.OPEN),
        (False, [B, B, C], Next.STAY),
        (False, [M, B, B], Next.OPEN), (False, [B], Next.STAY), (False, [B, B], Next.OPEN),
        (True, [C, B, C], Next.STAY), (True, [C, C, C], Next.CLOSE),
        (True, [C, U, M], Next.CLOSE), (True, [U, U, U], Next.NO_DATA),
        (True, [X, X, X], Next.STAY), (True, [U, X, M], Next.STAY), (False, [X, X, X], Next.STAY), (True, [X, X, C], Next.CLOSE),
        (True, [M, M, M], Next.NO_DATA), (True, [C, C], Next.STAY), (True, [B, C, C, C], Next.CLOSE),
    ],
)  # fmt: skip
def test_a_condition_does_not_flap(is_open: bool, outcomes: list[Outcome], next_: Next) -> None:
    assert anomaly.next_of(is_open, outcomes, terms(Kind.THRESHOLD, breaches=2, of=3)) == next_


def test_the_openings_of_a_series_are_those_the_evaluation_would_have_seen() -> None:
    wanted = terms(Kind.THRESHOLD, limit=5, breaches=2, of=3)
    values = [1, 9, 1, 1, 9, 9, 1, 9, 1, 1, 1, 1, 9, 9]
    points = series([float(one) for one in values])
    found = list(anomaly.openings(anomaly.judge(points, wanted, newest=len(points)), wanted))
    assert found == [(points[5].at, points[10].at), (points[13].at, None)]
    is_open, seen = False, []
    for place in range(1, len(points) + 1):  # as one evaluation after the other
        outcomes = [one.outcome for one in anomaly.judge(points[:place], wanted, newest=wanted.of)]
        next_ = anomaly.next_of(is_open, outcomes, wanted)
        if next_ in (Next.OPEN, Next.CLOSE):
            is_open = next_ == Next.OPEN
            seen.append(points[place - 1].at)
    assert seen == [points[5].at, points[10].at, points[13].at]
