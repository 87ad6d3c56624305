"""Percentiles of durations over any time, from the histograms that each five minutes keep."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection

OF = "duration"  # the measure whose readings have them
# bin b holds what took more than 2^((b-1)/32) ms and at most 2^(b/32): off by at most 1.1 %
IN_A_DOUBLING = 32
BIN = f"ceil({IN_A_DOUBLING} * ln(1000 * greatest(0.001, seconds)) / ln(2))::smallint"

# by the unique index, histograms unpacked once; the least bin up to which there are so many; no place: the whole time
READ = """
WITH held AS (
  SELECT subject, floor(extract(epoch FROM at - %(since)s) / %(part)s)::int AS place, bin, sum(held.count) AS count
  FROM runs_reading, unnest(bins, in_bins) AS held(bin, count)
  WHERE measure = %(measure)s AND at >= %(since)s AND at < %(until)s
    AND (%(subject)s = subject OR %(subject)s = '*' AND subject <> '' OR %(subject)s IS NULL)
  GROUP BY 1, 2, 3
), all_held AS (
  SELECT * FROM held UNION ALL SELECT subject, NULL, bin, sum(count) FROM held WHERE %(and_whole)s GROUP BY 1, 3
), added AS (
  SELECT subject, place, bin, sum(count) OVER (PARTITION BY subject, place ORDER BY bin) AS up_to,
    sum(count) OVER (PARTITION BY subject, place) AS count
  FROM all_held
)
SELECT subject, place, max(count), min(bin) FILTER (WHERE up_to >= 0.5 * count), min(bin) FILTER (WHERE up_to >= 0.95 * count)
FROM added GROUP BY 1, 2
"""


class Spread(NamedTuple):
    """Of so many runs of one part, in seconds."""

    runs: int
    median: float
    p95: float

    def of(self, measure: str) -> float:
        return self.median if measure == OF else self.p95


def read(subject: str | None, *, since: datetime, until: datetime, part: timedelta) -> dict[tuple[str, int], Spread]:
    """By subject and place of the part since then; of "*" each subject, of None also what is of everything together."""
    found = _read(subject, since, until, part, and_whole=False)
    return {(one, place): spread for one, place, spread in found if place is not None}


def read_with_whole(
    subject: str | None, *, since: datetime, until: datetime, part: timedelta
) -> tuple[dict[tuple[str, int], Spread], dict[str, Spread]]:
    """The same, and by subject that of the whole time."""
    found = list(_read(subject, since, until, part, and_whole=True))
    parts = {(one, place): spread for one, place, spread in found if place is not None}
    return parts, {one: spread for one, place, spread in found if place is None}


def _read(
    subject: str | None, since: datetime, until: datetime, part: timedelta, *, and_whole: bool
) -> Iterator[tuple[str, int | None, Spread]]:
    values: dict[str, Any] = {"measure": OF, "subject": subject, "since": since, "until": until, "part": part.total_seconds()}
    with connection.cursor() as cursor:
        cursor.execute(READ, values | {"and_whole": and_whole})
        rows = cursor.fetchall()
    for one, place, count, half, most in rows:
        yield one, place, Spread(int(count), seconds(half), seconds(most))


def seconds(held_in: int) -> float:
    """The middle of a bin."""
    return float(2 ** ((held_in - 0.5) / IN_A_DOUBLING) / 1000)
