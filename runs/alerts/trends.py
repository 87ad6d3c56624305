"""The readings of a range of time as series of equal parts, for pictures: as many statements, whatever is asked for."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection

from runs.alerts import spread
from runs.alerts.measures import MEASURES
from runs.alerts.readings import floor
from runs.alerts.spread import Spread
from runs.models import Reading, Round


class Sums(NamedTuple):
    """Of the readings of one part: their values, their values by what each was made from, and what they were made from."""

    values: float
    weighted: float
    made_from: float


@dataclass(frozen=True, slots=True)
class Span:
    """How far back, and in parts of which length."""

    title: str
    length: timedelta
    part: timedelta


SPANS = {
    "3h": Span("3 hours", timedelta(hours=3), timedelta(minutes=5)),
    "24h": Span("24 hours", timedelta(hours=24), timedelta(minutes=30)),
    "7d": Span("7 days", timedelta(days=7), timedelta(hours=3)),
    "30d": Span("30 days", timedelta(days=30), timedelta(hours=12)),
}

# by the unique index: measure, subject, at
READ = """
SELECT measure, subject, floor(extract(epoch FROM at - %(since)s) / %(part)s)::int, sum(value), sum(value * count), sum(count)
FROM runs_reading WHERE measure = ANY(%(measures)s) AND at >= %(since)s AND at < %(until)s
  AND (%(subject)s = '' OR subject = %(subject)s) GROUP BY 1, 2, 3
"""


@dataclass(frozen=True)
class Trends:
    """What was read, by measure and subject ("" is everything together); of what ended, from `known_since` to `known_until`."""

    since: datetime
    part: timedelta
    parts: int
    known_since: datetime
    known_until: datetime
    _read: dict[tuple[str, str], dict[int, Sums]]
    _spreads: dict[tuple[str, int], Spread]  # of each part
    _spread: dict[str, Spread]  # of the whole time

    @property
    def begins(self) -> list[datetime]:
        """Of each part."""
        return [self.since + place * self.part for place in range(self.parts)]

    def subjects(self, measure: str) -> list[str]:
        return sorted(subject for name, subject in self._read if name == measure and subject)

    def values(self, measure: str, subject: str = "", *, total: bool = False) -> list[float | None]:
        """One for each part: what adds up is 0 where nothing was read of a time that is known; a mean is unknown there.

        `total`: of a mean, the sum of what it is the mean of.
        """
        return [self._value(measure, subject, place, total=total) for place in range(self.parts)]

    def a_minute(self, values: Sequence[float | None]) -> list[float | None]:
        """Of what adds up, by how much of each part is known: the last one goes on."""
        minutes = [(min(at + self.part, self.known_until) - at).total_seconds() / 60 for at in self.begins]
        return [
            value / lasted if value is not None and lasted > 0 else None for value, lasted in zip(values, minutes, strict=True)
        ]

    def whole(self, measure: str, subject: str = "", *, total: bool = False) -> float | None:
        """The same of the whole time."""
        if MEASURES[measure].is_spread:
            return self._spread[subject].of(measure) if subject in self._spread else None
        found = self._read.get((measure, subject), {}).values()
        if not found:
            return 0.0 if total or MEASURES[measure].adds_up else None
        return _value(Sums(*map(sum, zip(*found, strict=True))), measure, total=total)

    def _value(self, measure: str, subject: str, place: int, *, total: bool) -> float | None:
        if MEASURES[measure].is_spread:
            return self._spreads[subject, place].of(measure) if (subject, place) in self._spreads else None
        if there := self._read.get((measure, subject), {}).get(place):
            return _value(there, measure, total=total)
        begin = self.since + place * self.part
        is_known = begin < self.known_until and begin + self.part > self.known_since
        return 0.0 if is_known and (total or MEASURES[measure].adds_up) else None


def _value(sums: Sums, measure: str, *, total: bool) -> float | None:
    if total:
        return sums.weighted
    if MEASURES[measure].adds_up:
        return sums.values
    return sums.weighted / sums.made_from if sums.made_from else None


def read(measures: list[str], span: Span, now: datetime, *, subject: str = "") -> Trends:
    """These measures of this subject, or of every one, in parts of `span`; the last is the one that `now` falls into."""
    until = floor(now, span.part) + span.part
    since = until - span.length
    kept = Round.objects.first()
    known = (kept.read_since or now, kept.read_until or now) if kept else (now, now)
    spreads: dict[tuple[str, int], Spread] = {}
    whole: dict[str, Spread] = {}
    if any(MEASURES[measure].is_spread for measure in measures):
        spreads, whole = spread.read_with_whole(subject or None, since=since, until=until, part=span.part)
    sums = _sums(measures, subject, since, until, span.part)
    return Trends(since, span.part, span.length // span.part, *known, sums, spreads, whole)


def _sums(
    measures: list[str], subject: str, since: datetime, until: datetime, part: timedelta
) -> dict[tuple[str, str], dict[int, Sums]]:
    found: dict[tuple[str, str], dict[int, Sums]] = defaultdict(dict)
    values: dict[str, Any] = {"measures": measures, "subject": subject, "since": since, "until": until}
    with connection.cursor() as cursor:
        cursor.execute(READ, values | {"part": part.total_seconds()})
        for measure, whose, place, *sums in cursor.fetchall():
            found[measure, whose][place] = Sums(*map(float, sums))
    return dict(found)


def first_read(subject: str = "") -> datetime | None:
    """Since when there is anything to show of it."""
    return Reading.objects.filter(measure="runs_ended", subject=subject).order_by("at").values_list("at", flat=True).first()
