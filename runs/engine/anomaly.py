"""Judges a series of readings: over a limit, silent, changed too fast, or unlike what is usual at that hour of the week."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from statistics import median
from zoneinfo import ZoneInfo

LEAST_HISTORY, LEAST_DAYS = 30, 14  # points; of windows of a day
LEAST_WEEKS, LEAST_HISTORY_OF_AN_HOUR = 3, 9  # before an hour of the week is compared with itself alone
MOST_PLAIN = 500  # points, the newest, where there is no such history
SPREAD_FLOOR = 0.05  # of the median: what hardly ever varies is not unusual for the least change
SIGMA = 0.6745  # of a normal distribution, the MAD is so much of its standard deviation
AN_HOUR, A_DAY, HOURS_OF_A_WEEK = timedelta(hours=1), timedelta(days=1), 168
A_MOMENT = timedelta(microseconds=1)


class Kind(StrEnum):
    THRESHOLD = "threshold"
    ABSENCE = "absence"
    CHANGE = "change"
    ANOMALY = "anomaly"


class Side(StrEnum):
    ABOVE = "above"
    BELOW = "below"
    EITHER = "either"


class Outcome(StrEnum):
    BREACH = "breach"
    CALM = "calm"
    UNJUDGED = "unjudged"  # too few things, or too little history
    OUTSIDE = "outside"  # of office hours
    MISSING = "missing"  # nothing was read


class Next(StrEnum):
    """What becomes of the condition, given its last points."""

    OPEN = "open"
    STAY = "stay"
    NO_DATA = "no data"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Point:
    """What was read of the window that ended at `at`, made from `count` things."""

    at: datetime
    value: float | None
    count: float = 1.0


@dataclass(frozen=True, slots=True)
class Hours:
    """When somebody expects something to happen. `start` may be later than `end`: across midnight."""

    start: time = time(0)
    end: time = time(0)  # the same as `start`: all day
    zone: str = "UTC"
    weekdays_only: bool = False

    def covers(self, at: datetime) -> bool:
        local = at.astimezone(ZoneInfo(self.zone))
        if self.weekdays_only and local.weekday() >= 5:
            return False
        clock = local.time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return self.start == self.end or clock >= self.start or clock < self.end

    def cover(self, until: datetime, window: timedelta) -> bool:
        """The whole window that ends there; a day belongs to that of its middle."""
        if window >= A_DAY:
            return self.covers(until - window / 2)
        return self.covers(until - window) and self.covers(until - A_MOMENT)


@dataclass(frozen=True, slots=True)
class Terms:
    """When points are a breach. `limit` is a value, a change in percent, or a robust z-score, as the kind says."""

    kind: Kind
    window: timedelta
    side: Side = Side.ABOVE
    limit: float = 0.0
    least_value: float = 0.0  # a change, or what is unusual, counts where one of the two values is at least this
    least_count: float = 1.0  # a point made of fewer things is not judged
    back: int = 1  # a change is that against so many points before
    history: int = 10_000  # what is usual is said by at most so many points before
    breaches: int = 1
    of: int = 1  # so many breaches among so many points open a condition
    hours: Hours | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`expected` is what it was compared with, `score` the change or z-score that came of it."""

    point: Point
    outcome: Outcome
    expected: float | None = None
    score: float | None = None


def judge(points: Sequence[Point], terms: Terms, *, newest: int) -> list[Verdict]:
    """The newest points, each by what came before it; the oldest first. More points before them change no verdict."""
    usual = Usual(points, terms)
    return [_verdict(points, place, terms, usual) for place in range(max(0, len(points) - newest), len(points))]


def next_of(is_open: bool, outcomes: Sequence[Outcome], terms: Terms) -> Next:
    """Opens with `breaches` of the last `of` points; closes when none of them is one and some are calm: no flapping."""
    last = outcomes[-terms.of :]
    if not is_open:
        opens = last.count(Outcome.BREACH) >= terms.breaches and last[-1] == Outcome.BREACH
        return Next.OPEN if opens else Next.STAY
    if Outcome.CALM in last and Outcome.BREACH not in last:
        return Next.CLOSE if len(last) == terms.of else Next.STAY
    return Next.STAY if {Outcome.BREACH, Outcome.OUTSIDE} & set(last) else Next.NO_DATA


def openings(verdicts: Sequence[Verdict], terms: Terms) -> Iterator[tuple[datetime, datetime | None]]:
    """When a condition would have opened, and when that was over; None while it is not."""
    since: datetime | None = None
    last = deque[Outcome](maxlen=terms.of)
    for verdict in verdicts:
        last.append(verdict.outcome)
        next_ = next_of(since is not None, list(last), terms)
        if next_ == Next.OPEN:
            since = verdict.point.at
        elif next_ == Next.CLOSE and since is not None:
            yield since, verdict.point.at
            since = None
    if since is not None:
        yield since, None


# --- one point ------------------------------------------------------------------------------------------------------


def _verdict(points: Sequence[Point], place: int, terms: Terms, usual: "Usual") -> Verdict:
    point = points[place]
    if terms.hours and not terms.hours.cover(point.at, terms.window):
        return Verdict(point, Outcome.OUTSIDE)
    if point.value is None:
        return Verdict(point, Outcome.MISSING)
    if point.count < terms.least_count:
        return Verdict(point, Outcome.UNJUDGED)
    match terms.kind:
        case Kind.THRESHOLD:
            return Verdict(point, _outcome(point.value - terms.limit, 0, terms.side), expected=terms.limit)
        case Kind.ABSENCE:
            return Verdict(point, Outcome.CALM if point.value > 0 else Outcome.BREACH, expected=1)
        case Kind.CHANGE:
            return _changed(points, place, terms)
        case Kind.ANOMALY:
            return _unusual(point, usual.before(place), terms)


def _changed(points: Sequence[Point], place: int, terms: Terms) -> Verdict:
    point = points[place]
    before = points[place - terms.back] if place >= terms.back else None
    if before is None or before.value is None or point.value is None or before.count < terms.least_count:
        return Verdict(point, Outcome.UNJUDGED)
    change = change_percent(before.value, point.value)
    outcome = _outcome(change, terms.limit, terms.side) if _matters(point.value, before.value, terms) else Outcome.CALM
    return Verdict(point, outcome, before.value, change)


def change_percent(before: float, now: float) -> float:
    """From none to some is without an end."""
    if before == 0:
        return math.copysign(math.inf, now) if now else 0.0
    return 100 * (now - before) / abs(before)


def _unusual(point: Point, history: Sequence[float], terms: Terms) -> Verdict:
    if not history or point.value is None:
        return Verdict(point, Outcome.UNJUDGED)
    usual, score = robust_z(point.value, history)
    outcome = _outcome(score, terms.limit, terms.side) if _matters(point.value, usual, terms) else Outcome.CALM
    return Verdict(point, outcome, usual, score)


def _matters(value: float, other: float, terms: Terms) -> bool:
    return max(abs(value), abs(other)) >= terms.least_value


def _outcome(value: float, limit: float, side: Side) -> Outcome:
    above, below = side != Side.BELOW and value > limit, side != Side.ABOVE and value < -limit
    return Outcome.BREACH if above or below else Outcome.CALM


# --- what is usual --------------------------------------------------------------------------------------------------


def least_history(window: timedelta) -> int:
    """So many points, before anything is called unusual."""
    return LEAST_DAYS if window >= A_DAY else LEAST_HISTORY


def robust_z(value: float, history: Sequence[float]) -> tuple[float, float]:
    """The median, and by how many standard deviations the value is off it: outliers in the history do not blunt it."""
    usual = median(history)
    spread = median(abs(one - usual) for one in history)
    return usual, SIGMA * (value - usual) / max(spread, SPREAD_FLOOR * abs(usual), 1e-9)


class Usual:
    """What a point is compared with, for one point after the other: at most `history` points before it."""

    def __init__(self, points: Sequence[Point], terms: Terms) -> None:
        self._points, self._terms = points, terms
        self._counts = deque[tuple[int, float]]()  # places and values, the newest MOST_PLAIN of those that count
        self._sorted: list[float] = []  # the same values: sorting what is almost sorted costs next to nothing
        self._known = 0  # the first place that is not in them
        self._of_hours: dict[int, deque[tuple[int, datetime, float]]] = {}

    def before(self, place: int) -> Sequence[float]:
        """The same hour of earlier weeks where there are enough of them, else the newest points; none where both are too few."""
        self._learn(place)
        return self._same_hour(place) or self._plain(place)

    def _learn(self, place: int) -> None:
        for known in range(max(self._known, place - self._terms.history), place):
            point = self._points[known]
            if point.value is not None and point.count >= self._terms.least_count:
                self._counts.append((known, point.value))
                insort(self._sorted, point.value)
                self._of_hours.setdefault(hour_of_week(point.at), deque()).append((known, point.at, point.value))
        self._known = place

    def _plain(self, place: int) -> Sequence[float]:
        first = place - self._terms.history
        while self._counts and (self._counts[0][0] < first or len(self._counts) > MOST_PLAIN):
            del self._sorted[bisect_left(self._sorted, self._counts.popleft()[1])]
        return self._sorted if len(self._sorted) >= least_history(self._terms.window) else ()

    def _same_hour(self, place: int) -> Sequence[float]:
        """A window as long as an hour comes once a week: those beside it count too. A day has none."""
        if self._terms.window >= A_DAY:
            return ()
        at, first = self._points[place].at, place - self._terms.history
        beside = (-1, 0, 1) if self._terms.window >= AN_HOUR else (0,)
        same: list[tuple[int, datetime, float]] = []
        for hour in ((hour_of_week(at) + step) % HOURS_OF_A_WEEK for step in beside):
            of_it = self._of_hours.get(hour, deque())
            while of_it and of_it[0][0] < first:
                of_it.popleft()
            same += [one for one in of_it if one[1] <= at - A_DAY]
        weeks = {round((at - one) / (7 * A_DAY)) for _, one, _ in same}
        is_enough = len(same) >= LEAST_HISTORY_OF_AN_HOUR and len(weeks) >= LEAST_WEEKS
        return [value for _, _, value in same] if is_enough else ()


def hour_of_week(at: datetime) -> int:
    return at.weekday() * 24 + at.hour
