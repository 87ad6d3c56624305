"""Reads the measures, keeps them as readings, and gives a series of them back; each statement costs what is new, not history."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import django_rq
import structlog
from django.core.cache import cache
from django.db import connection
from django.db.models import F
from redis.exceptions import RedisError

from runs import dispatch, nightly, sdk
from runs.alerts import spread
from runs.alerts.measures import GRAIN, MINUTE, Measure
from runs.engine.anomaly import Point
from runs.models import AgentConfig, Reading, Round
from runs.models.alert import EACH
from runs.sweeper import BEAT

logger = structlog.get_logger()
KEPT_FOR = timedelta(days=36)
AT_ONCE = timedelta(hours=12)  # of history that is made good in one round
LATE = timedelta(seconds=20)  # so long after its time an end may be committed
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def floor(at: datetime, grain: timedelta) -> datetime:
    return at - (at - EPOCH) % grain


# --- what ended -----------------------------------------------------------------------------------------------------

# by the index of `finished_at`; what a run spent, and its steps, by theirs
ENDED = f"""
WITH ended AS (
  SELECT run.agent, date_bin('5 minutes', run.finished_at, '2000-01-01 00:00+00') AS at, run.status,
    extract(epoch FROM run.finished_at - run.created_at)::float AS seconds,
    (SELECT used::float FROM runs_budget WHERE scope = 'run:' || run.id AND unit = 'money') AS money,
    (SELECT used::float FROM runs_budget WHERE scope = 'run:' || run.id AND unit = 'tokens') AS tokens,
    steps.confidence, steps.estimated, steps.asked, steps.corrected
  FROM runs_run AS run CROSS JOIN LATERAL (
    SELECT sum(confidence) AS confidence, count(confidence) AS estimated,
      coalesce(bool_or(cause NOT IN ('', 'sample')), false) AS asked,
      coalesce(bool_or(decision IN ('edit', 'take_over', 'reject')), false) AS corrected
    FROM runs_step WHERE run_id = run.id) AS steps
  WHERE run.finished_at >= %(since)s AND run.finished_at < %(until)s AND run.status <> 'cancelled'
), grouped AS (
  SELECT coalesce(agent, '') AS subject, at, count(*) AS ended, count(*) FILTER (WHERE status = 'failed') AS failed,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY seconds) AS duration,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY seconds) AS duration_p95, avg(money) AS cost, count(money) AS priced,
    avg(tokens) AS tokens, count(tokens) AS counted, sum(confidence) AS confidence, sum(estimated) AS estimated,
    count(*) FILTER (WHERE asked) AS asked, count(*) FILTER (WHERE corrected) AS corrected
  FROM ended GROUP BY GROUPING SETS ((agent, at), (at))
), held AS (
  SELECT coalesce(agent, '') AS subject, at, bin, count(*) FROM (SELECT agent, at, {spread.BIN} AS bin FROM ended) AS binned
  GROUP BY GROUPING SETS ((agent, at, bin), (at, bin))
), histograms AS (
  SELECT subject, at, array_agg(bin ORDER BY bin) AS bins, array_agg(count ORDER BY bin) AS in_bins FROM held GROUP BY 1, 2
)
INSERT INTO runs_reading (measure, subject, at, value, count, bins, in_bins)
SELECT one.measure, subject, at, one.value, one.count, CASE one.measure WHEN '{spread.OF}' THEN bins END,
  CASE one.measure WHEN '{spread.OF}' THEN in_bins END
FROM grouped JOIN histograms USING (subject, at) CROSS JOIN LATERAL (VALUES
  ('runs_ended', ended::float, ended), ('failure_rate', failed::float / ended, ended), ('duration', duration, ended),
  ('duration_p95', duration_p95, ended), ('correction_rate', corrected::float / ended, ended),
  ('cost', cost, priced), ('tokens', tokens, counted), ('confidence', confidence / nullif(estimated, 0), estimated),
  ('escalation_rate', asked::float / ended, ended)) AS one(measure, value, count)
WHERE one.value IS NOT NULL ORDER BY 1, 2, 3
ON CONFLICT (measure, subject, at) DO UPDATE
SET value = excluded.value, count = excluded.count, bins = excluded.bins, in_bins = excluded.in_bins
"""  # noqa: S608 - made of constants


def read_ended(kept: Round, now: datetime) -> bool:
    """What has ended since the last round, and some of what ended before the first one; whether there was anything to read."""
    until = floor(now - LATE, GRAIN)
    begun = kept.read_until is None
    read_until = kept.read_until or until
    read_since = kept.read_since or until
    is_new = begun or read_until < until
    if read_until < until:
        last = min(until, read_until + AT_ONCE)
        _read_between(read_until - GRAIN, last)  # once more what may have been committed late
        read_until = last
    if read_since > now - KEPT_FOR:
        oldest = _oldest_end()
        earlier = max(read_since - AT_ONCE, floor(now - KEPT_FOR, GRAIN))
        if oldest and oldest < read_since:
            _read_between(earlier, read_since)
            read_since = earlier
            is_new = True
    _keep(kept, read_until, read_since)
    return is_new


def _keep(kept: Round, read_until: datetime, read_since: datetime) -> None:
    """Unless another round, or whoever filled in history, has moved them meanwhile: then it is read once more."""
    as_it_was = Round.objects.filter(pk=kept.pk, read_until=kept.read_until, read_since=kept.read_since)
    as_it_was.update(read_until=read_until, read_since=read_since)
    kept.read_until, kept.read_since = read_until, read_since


def read_anew() -> None:
    """History was filled in: it is read again, some of it each round."""
    Round.objects.update(read_since=F("read_until"))


def _read_between(since: datetime, until: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(ENDED, {"since": since, "until": until})


def _oldest_end() -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(finished_at) FROM runs_run WHERE finished_at IS NOT NULL")
        found: datetime | None = cursor.fetchone()[0]
        return found


# --- what is there --------------------------------------------------------------------------------------------------

# each from a partial index, or a row for each dependency
GAUGES = """
SELECT 'reviews_late', '', greatest(0, extract(epoch FROM now() - min(due_at)))::float FROM reviews_review WHERE state = 'open'
UNION ALL SELECT 'review_age', '', extract(epoch FROM now() - min(opened_at))::float FROM reviews_review WHERE state = 'open'
UNION ALL SELECT 'reviews_open', '', count(*)::float FROM reviews_review WHERE state = 'open'
UNION ALL SELECT 'breaker_open', dependency.name, (last.new <> 'closed')::int::float FROM runs_dependency AS dependency,
  LATERAL (SELECT new FROM runs_breakerchange WHERE dependency_id = dependency.id ORDER BY at DESC, id DESC LIMIT 1) AS last
UNION ALL SELECT 'quarantined', '', count(*)::float FROM (
  SELECT run_id, position FROM reviews_review WHERE state = 'open' AND cause = 'failed' ORDER BY id DESC LIMIT 1000) AS review
  WHERE EXISTS (SELECT FROM runs_event AS event WHERE event.run_id = review.run_id AND event.step = review.position
    AND event.kind = 'AttemptCrashed')
UNION ALL SELECT 'broken_logs', '',
  ((SELECT count(*) FROM runs_brokenlog) + (SELECT count(*) FROM runs_pruning WHERE wrong <> ''))::float
UNION ALL SELECT 'database_bytes', '', pg_database_size(current_database())::float
"""


Gauge = tuple[str, str, float | None]  # measure, subject, value


def read_gauges(now: datetime) -> None:
    """What is there at this minute. While Redis is away nothing is read of what it knows, but that it is."""
    with connection.cursor() as cursor:
        cursor.execute(GAUGES)
        found: list[Gauge] = cursor.fetchall()
    keep([*found, ("retention_missed", "", float(nightly.missed(now))), *_of_redis()], now)


def keep(found: list[Gauge], now: datetime) -> None:
    at = floor(now, MINUTE)
    rows = [Reading(measure=measure, subject=subject, at=at, value=value or 0.0) for measure, subject, value in found]
    Reading.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["measure", "subject", "at"], update_fields=["value", "count"]
    )


def _of_redis() -> list[Gauge]:
    look = dispatch.look()
    try:
        queue = django_rq.get_queue("default").count if look else 0
        sweeper = bool(cache.get(BEAT))
    except (RedisError, OSError) as error:
        logger.warning("readings_not_taken", error=str(error))
        look = None
    if look is None:
        return [("redis", "", 0.0)]
    return [
        ("redis", "", 1.0), ("queue", "", float(queue)), ("job_processes", "", float(look.processes)),
        ("sweeper", "", float(sweeper)),
    ]  # fmt: skip


def prune(now: datetime) -> None:
    """What is older than any rule looks back."""
    Reading.objects.filter(at__lt=now - KEPT_FOR).delete()


# --- as a series ----------------------------------------------------------------------------------------------------

Part = tuple[float | None, float]  # a value, and of how many things it was made

# by the unique index
SERIES = """
SELECT subject, floor(extract(epoch FROM at - %(since)s) / %(window)s)::int,
  CASE WHEN %(adds_up)s THEN sum(value) ELSE sum(value * count) / nullif(sum(count), 0) END, sum(count)
FROM runs_reading
WHERE measure = %(measure)s AND at >= %(since)s AND at < %(until)s AND (%(each)s AND subject <> '' OR subject = %(subject)s)
GROUP BY 1, 2
"""
# one probe of the unique index for each
HEARD_OF = """
SELECT slug FROM unnest(%(slugs)s::text[]) AS slug
WHERE EXISTS (SELECT FROM runs_reading WHERE measure = %(measure)s AND subject = slug) ORDER BY slug
"""


def series(
    measure: Measure, *, subject: str, until: datetime, window: timedelta, windows: int, known_since: datetime | None
) -> dict[str, list[Point]]:
    """Subject -> one point for each window, the oldest first; of "*" each subject that was read in that time.

    What adds up is 0 where nothing was read of a time that is known, and no sample; else the point has no value. Of that, "*" is
    each agent that was ever read: who falls silent is read no more.
    """
    since = until - windows * window
    found: dict[str, dict[int, Part]] = {} if subject == EACH else {subject: {}}
    if subject == EACH and measure.adds_up:
        found = {slug: {} for slug in heard_of(measure)}
    for one, place, value, count in _parts(measure, subject, since, until, window):
        if one in found or not measure.adds_up:
            found.setdefault(one, {})[place] = (value, math.inf if measure.adds_up else count)
    first_known = windows
    if measure.adds_up and known_since is not None:
        first_known = math.ceil((known_since - since) / window)
    return {one: list(_points(there, since, window, windows, first_known)) for one, there in sorted(found.items())}


def heard_of(measure: Measure) -> list[str]:
    """The agents of the code of which there is a reading at all, without those that are disabled."""
    disabled = set(AgentConfig.objects.filter(enabled=False).values_list("slug", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(HEARD_OF, {"slugs": sorted(set(sdk.AGENTS) - disabled), "measure": measure.name})
        return [slug for (slug,) in cursor.fetchall()]


def _parts(
    measure: Measure, subject: str, since: datetime, until: datetime, window: timedelta
) -> Iterable[tuple[str, int, float | None, float]]:
    if measure.is_spread:
        for (one, place), held in spread.read(subject, since=since, until=until, part=window).items():
            yield one, place, held.of(measure.name), float(held.runs)
        return
    values: dict[str, Any] = {
        "measure": measure.name, "subject": subject, "each": subject == EACH, "adds_up": measure.adds_up, "since": since,
        "until": until, "window": window.total_seconds(),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(SERIES, values)
        for one, place, value, count in cursor.fetchall():
            yield one, place, value, float(count)


def _points(there: Mapping[int, Part], since: datetime, window: timedelta, windows: int, first_known: int) -> Iterable[Point]:
    for place in range(windows):
        value, count = there.get(place, (0.0, math.inf) if place >= first_known else (None, 0.0))
        yield Point(since + (place + 1) * window, value, count)
