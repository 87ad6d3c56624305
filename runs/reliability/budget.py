"""Reserves what a model call may cost before it is made, and counts what it did cost: in PostgreSQL, one round trip each.

The seconds that an agent's runs work in a day are counted in the same way, where they are limited.
"""

import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError

from runs import pen, values
from runs.engine import budget
from runs.engine.budget import COUNTED
from runs.engine.errors import HeldBack, NoBudget
from runs.engine.events import Kind
from runs.engine.state import PAUSES

logger = structlog.get_logger()
AWAY_SECONDS = 5.0  # between two looks whether the database is back
AGAIN_SECONDS = 900.0  # between two looks of those who wait for another's question; the sweeper wakes them before
STAGGER_SECONDS = 60.0  # over which those who wait for the next day begin it
PATIENCE_SECONDS = 5.0  # for a database that is away when a call has ended
ASKING_SECONDS = 30.0  # so long who is to ask may take to do so
FRESH_SECONDS = 2.0  # so long a new limit of an agent's seconds may take to be heard by every process
LEAST_WORK = Decimal(1)  # seconds that an attempt is taken to need
NOT_SAID = -1  # tokens of a call that has not ended, or whose provider does not say
Row = dict[str, Any]
Line = tuple[str, str, Decimal]  # scope, unit, amount


@dataclass(slots=True)
class Spending:
    """What one call costs, at most and then really. Money None: nobody knows the price of this model."""

    tokens: int = 0
    money: Decimal | None = None
    calls: int = 1

    def amounts(self) -> list[Decimal]:
        """In the order of COUNTED."""
        return [self.money or Decimal(0), Decimal(self.tokens), Decimal(self.calls)]


@dataclass(frozen=True, slots=True)
class Payer:
    """The step that calls. `fence` is of the lease under which it does."""

    run_id: int
    fence: int
    position: int
    agent: str


@contextmanager
def reserved(most: Spending, real: Spending, payer: Payer, dependency: str) -> Iterator[None]:
    """Reserve it for a block, which says in `real` what was used; if it made its call and did not say, that was the most.

    Raises NoBudget, where nothing may be called, and HeldBack while the database is away.
    """
    number, now = _reserve(_costs(most, payer), payer, dependency)
    try:
        yield
    finally:
        unsaid = most if real.calls else Spending(0, calls=0)
        used = unsaid if real.tokens == NOT_SAID else real
        _settle(number, _costs(most, payer, now), _costs(used, payer, now))


def working(step: values.StepContext) -> AbstractContextManager[None]:
    """Count the seconds of a block to the day of its agent, where those are limited. Raises as above."""
    if not step.run_id or step.agent not in _limited_agents():
        return nullcontext()
    return _timed(Payer(step.run_id, step.fence, step.position, step.agent))


@contextmanager
def _timed(payer: Payer) -> Iterator[None]:
    number, now = _reserve(_work(LEAST_WORK, payer), payer, "")
    began = time.monotonic()
    try:
        yield
    finally:
        took = Decimal(f"{time.monotonic() - began:.3f}")
        _settle(number, _work(LEAST_WORK, payer, now), _work(took, payer, now))


_known: tuple[float, frozenset[str]] | None = None  # when it was read; the agents whose seconds of a day are limited


def forget() -> None:
    """Somebody has changed a limit."""
    global _known
    _known = None


def _limited_agents() -> frozenset[str]:
    """As of FRESH_SECONDS ago; while the database is away, as it was last read."""
    global _known
    last = _known
    if last and time.monotonic() - last[0] <= FRESH_SECONDS:
        return last[1]
    try:
        found = frozenset(slug for (slug,) in pen.execute(LIMITED, {}))
    except DatabaseError as error:
        if last is None:
            raise _away("") from error
        found = last[1]
    _known = time.monotonic(), found
    return found


# --- before the call ------------------------------------------------------------------------------------------------


def _reserve(lines: list[Line], payer: Payer, dependency: str) -> tuple[int, datetime]:
    """The number of the reservation, and the database's time, whose day counts."""
    try:
        answer = _asked(lines, payer)
        if answer.refused:
            raise _no_room(answer.refused, answer.now, payer, dependency)
    except DatabaseError as error:
        raise _away(dependency) from error
    return answer.number, answer.now


def _away(dependency: str) -> HeldBack:
    what = "no model is called" if dependency else "no step is begun"
    why = f"Budgets are kept in PostgreSQL, which did not answer: {what} until it does."
    return HeldBack("budget", dependency, AWAY_SECONDS * random.uniform(0.8, 1.2), why)  # noqa: S311 - jitter


@dataclass(frozen=True, slots=True)
class _Answer:
    now: datetime
    number: int = 0
    refused: Row | None = None


def _asked(lines: list[Line], payer: Payer) -> _Answer:
    scopes, units, amounts = _columns(lines)
    asked = {"scopes": scopes, "units": units, "amounts": amounts, "run_id": payer.run_id, "fence": payer.fence}
    while True:
        now, number, *refused = pen.execute(RESERVE, asked)[0]
        if number is not None:
            return _Answer(now, number)
        if refused[0] is not None:
            return _Answer(now, refused=dict(zip(REFUSED, refused, strict=True)))
        pen.execute(OPEN, {"scopes": scopes, "units": units})


def _costs(spent: Spending, payer: Payer, now: datetime | None = None) -> list[Line]:
    """What counts for the run, for each run above it, and for the day of its agent."""
    scopes = [budget.run_scope(one) for one in _line(payer.run_id)] + [_day(payer, now)]
    return [(scope, unit, amount) for scope in scopes for unit, amount in zip(COUNTED, spent.amounts(), strict=True)]


def _work(seconds: Decimal, payer: Payer, now: datetime | None = None) -> list[Line]:
    return [(_day(payer, now), "seconds", seconds)]


def _day(payer: Payer, now: datetime | None) -> str:
    """Of the statement's own time, where none is given."""
    return budget.day_scope(payer.agent, now) if now else f"{budget.DAY}{payer.agent}:{TODAY}"


def _columns(lines: list[Line]) -> tuple[list[str], list[str], list[Decimal]]:
    return [one[0] for one in lines], [one[1] for one in lines], [one[2] for one in lines]


@lru_cache(maxsize=10_000)
def _line(run_id: int) -> tuple[int, ...]:
    """The run, its parent and so on: that never changes."""
    return tuple(row[0] for row in pen.execute(LINE, {"run_id": run_id}))


def _no_room(refused: Row, now: datetime, payer: Payer, dependency: str) -> NoBudget:
    """Who is refused first asks a person; who comes later waits for the answer."""
    asks, closed_by, closed_runs = pen.execute(
        ASK, {"id": refused["id"], "run_id": payer.run_id, "step": payer.position, "seconds": ASKING_SECONDS,
              "runs": [budget.run_scope(one) for one in _line(payer.run_id)]},
    )[0]  # fmt: skip
    numbers = {name: refused[name] for name in ("limit", "used", "needs")}
    asked = budget.question(refused["scope"], refused["unit"], currency=settings.CURRENCY, **numbers)
    why = budget.no_room(refused["scope"], asked)
    seconds = AGAIN_SECONDS
    if refused["scope"].startswith(budget.DAY):
        seconds = (budget.day_end(now) - now).total_seconds() + random.uniform(0, STAGGER_SECONDS)  # noqa: S311 - jitter
        why += f" {closed_by} decided not to raise it today." if closed_by else ""
    finished_by = closed_runs or ""
    return NoBudget(dependency, seconds, why, budget=refused["id"], question=asked, asks=asks, finished_by=finished_by)


# --- after it -------------------------------------------------------------------------------------------------------


def _settle(number: int, reserved: list[Line], used: list[Line]) -> None:
    scopes, units, held = _columns(reserved)
    counted = _columns(used)[2]
    end = time.monotonic() + PATIENCE_SECONDS
    try:
        asked = {"number": number, "scopes": scopes, "units": units, "held": held, "used": counted}
        pen.patiently(lambda: pen.execute(SETTLE, asked), lambda: time.monotonic() < end)
    except DatabaseError as error:  # what is reserved counts as used when the lease has run out
        logger.warning("spending_not_counted", used=[str(one) for one in counted], error=str(error))


def count_lost() -> int:
    """Count what calls reserved whose process has lost its run as used, in full; how many there were.

    What such a call has cost nobody knows, so it was the most. Where it ends after all, it is not counted again.
    """
    return int(pen.execute(COUNT_LOST, {})[0][0])


def seconds_below(run_id: int) -> float:
    """What the runs that it started, and theirs, have taken, each by its own clock (RunState.seconds)."""
    asked = {"run_id": run_id, "taken": list(TAKEN), "ended": list(ENDINGS), "pauses": list(PAUSES)}
    return float(pen.execute(SECONDS_BELOW, asked)[0][0])


# --- statements: budgets are always locked in the order of their numbers, so that no two lock each other out ----------

TODAY = "{today}"
LIMITED = "SELECT slug FROM runs_agentconfig WHERE day_seconds IS NOT NULL"
REFUSED = ("id", "scope", "unit", "limit", "used", "needs")
LINE = """
WITH RECURSIVE line AS (
  SELECT id, parent_id FROM runs_run WHERE id = %(run_id)s
  UNION ALL SELECT run.id, run.parent_id FROM runs_run AS run JOIN line ON run.id = line.parent_id
)
SELECT id FROM line
"""
ASKED = """
asked AS (
  SELECT replace(scope, '{today}', to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')) AS scope, unit, amount
  FROM unnest(%(scopes)s::text[], %(units)s::text[], %(amounts)s::numeric[]) AS given(scope, unit, amount)
)"""
RESERVE = f"""
WITH {ASKED}, locked AS MATERIALIZED (
  SELECT budget.id, budget.scope, budget.unit, budget."limit", budget.used + budget.reserved AS used, asked.amount
  FROM runs_budget AS budget JOIN asked ON asked.scope = budget.scope AND asked.unit = budget.unit
  ORDER BY budget.id FOR UPDATE OF budget
), refused AS (
  SELECT * FROM locked WHERE amount > 0 AND used + amount > "limit" ORDER BY scope DESC, unit LIMIT 1
), whole AS (
  SELECT 1 AS yes WHERE (SELECT count(*) FROM locked) = (SELECT count(*) FROM asked) AND NOT EXISTS (SELECT FROM refused)
), taken AS (
  UPDATE runs_budget AS budget SET reserved = budget.reserved + locked.amount FROM locked, whole WHERE budget.id = locked.id
), noted AS (
  INSERT INTO runs_reservation (run_id, fence, scopes, units, amounts, at)
  SELECT %(run_id)s, %(fence)s, (SELECT array_agg(scope ORDER BY scope, unit) FROM asked),
    (SELECT array_agg(unit ORDER BY scope, unit) FROM asked), (SELECT array_agg(amount ORDER BY scope, unit) FROM asked),
    clock_timestamp() FROM whole RETURNING id
)
SELECT statement_timestamp(), noted.id, refused.id, refused.scope, refused.unit, refused."limit",
  refused.used, refused.amount
FROM (SELECT 1) AS one LEFT JOIN noted ON true LEFT JOIN refused ON true
"""  # noqa: S608 - built from the constant above
# A run keeps the limits with which it started; an agent's day has those that are configured when it begins.
OPEN = """
INSERT INTO runs_budget (scope, unit, "limit")
SELECT replace(scope, '{today}', to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')), unit,
  CASE WHEN scope LIKE 'run:%%' THEN
    (SELECT (coalesce(apart.body::jsonb, event.data -> 'config') #>> ARRAY['budget', unit])::numeric FROM runs_event AS event
     LEFT JOIN runs_payload AS apart ON apart.run_id = event.run_id AND apart.hash = event.data #>> '{large,config,hash}'
     WHERE event.run_id = substr(scope, 5)::bigint AND event.seq = 1)
  ELSE (SELECT (to_jsonb(config) ->> ('day_' || unit))::numeric FROM runs_agentconfig AS config
        WHERE config.slug = split_part(scope, ':', 2)) END
FROM unnest(%(scopes)s::text[], %(units)s::text[]) AS given(scope, unit)
ORDER BY 1, 2 ON CONFLICT DO NOTHING RETURNING id
"""
# Who asks is whoever was first, unless that step asks no more, and had the time to begin.
ASK = """
WITH asking AS (
  UPDATE runs_budget AS budget SET asked_run = %(run_id)s, asked_step = %(step)s, asked_at = clock_timestamp()
  WHERE id = %(id)s AND closed_by = '' AND (asked_run IS NULL OR (asked_run = %(run_id)s AND asked_step = %(step)s) OR NOT (
    asked_at > clock_timestamp() - make_interval(secs => %(seconds)s::float8) OR EXISTS (
      SELECT FROM runs_step AS step WHERE step.run_id = asked_run AND step.position = asked_step
      AND step.status = 'waiting' AND step.cause = 'budget')))
  RETURNING 1
)
SELECT EXISTS (SELECT FROM asking), (SELECT closed_by FROM runs_budget WHERE id = %(id)s),
  (SELECT max(closed_by) FROM runs_budget WHERE scope = ANY(%(runs)s::text[]))
"""
TAKEN = (Kind.RUN_STARTED, Kind.RUN_RESUMED, Kind.RUN_TAKEN_OVER)
ENDINGS = (Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED)
SECONDS_BELOW = """
WITH RECURSIVE below AS (
  SELECT id FROM runs_run WHERE parent_id = %(run_id)s
  UNION ALL SELECT run.id FROM runs_run AS run JOIN below ON run.parent_id = below.id
), told AS (
  SELECT kind, data ->> 'cause' AS cause,
    coalesce(lead(at) OVER (PARTITION BY run_id ORDER BY seq), clock_timestamp()) - at AS took
  FROM runs_event JOIN below ON run_id = below.id
  WHERE kind = 'RunParked' OR kind = ANY(%(taken)s::text[]) OR kind = ANY(%(ended)s::text[])
)
SELECT coalesce(sum(extract(epoch FROM took)), 0) FROM told
WHERE kind = ANY(%(taken)s::text[]) OR (kind = 'RunParked' AND NOT cause = ANY(%(pauses)s::text[]))
"""
SETTLE = """
WITH gone AS (
  DELETE FROM runs_reservation WHERE id = %(number)s RETURNING id
), asked AS (
  SELECT * FROM unnest(%(scopes)s::text[], %(units)s::text[], %(held)s::numeric[], %(used)s::numeric[])
    AS given(scope, unit, held, used)
), locked AS MATERIALIZED (
  SELECT budget.id, asked.used, asked.held
  FROM runs_budget AS budget JOIN asked ON asked.scope = budget.scope AND asked.unit = budget.unit
  WHERE EXISTS (SELECT FROM gone)
  ORDER BY budget.id FOR UPDATE OF budget
)
UPDATE runs_budget AS budget SET used = budget.used + locked.used, reserved = greatest(0, budget.reserved - locked.held)
FROM locked WHERE budget.id = locked.id RETURNING budget.id
"""
COUNT_LOST = """
WITH dead AS (
  DELETE FROM runs_reservation AS held USING runs_run AS run
  WHERE run.id = held.run_id
    AND (run.fence <> held.fence OR run.lease_until IS NULL OR run.lease_until < clock_timestamp())
  RETURNING held.id, held.scopes, held.units, held.amounts
), lost AS (
  SELECT given.scope, given.unit, sum(given.amount) AS amount
  FROM dead, unnest(dead.scopes, dead.units, dead.amounts) AS given(scope, unit, amount) GROUP BY 1, 2
), locked AS MATERIALIZED (
  SELECT budget.id, lost.amount FROM runs_budget AS budget JOIN lost ON lost.scope = budget.scope AND lost.unit = budget.unit
  ORDER BY budget.id FOR UPDATE OF budget
), done AS (
  UPDATE runs_budget AS budget
  SET used = budget.used + locked.amount, reserved = greatest(0, budget.reserved - locked.amount)
  FROM locked WHERE budget.id = locked.id
)
SELECT count(*) FROM dead
"""
