"""The only writer and reader of events: checks the cursor and the fence, appends, projects and announces."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet

from runs import live, signals
from runs.engine.canonical import dumps
from runs.engine.events import GENESIS, Draft, Fact, Kind, first_broken, write
from runs.engine.state import RunState, StepState, fold
from runs.models import Run, Step
from runs.models.event import Event
from runs.projections import RUN_COLUMNS, STEP_COLUMNS, run_columns, step_columns


class LeaseLost(Exception):
    """Another process advances this run now, or it has ended: this one may write nothing more."""


class RunLog:
    """The log of one run with the state it folds to. With a `fence`, it writes only while that fence is in force."""

    def __init__(self, run_id: int, state: RunState, fence: int | None = None) -> None:
        self.run_id, self.state, self.fence = run_id, state, fence

    @classmethod
    def load(cls, run_id: int, *, fence: int | None = None) -> Self:
        """Read every event of the run and fold it."""
        return cls(run_id, fold(facts(run_id)), fence)

    def append(self, *drafts: Draft, release: bool = False) -> None:
        """Write the drafts in one statement with their projections; `release` gives the lease back with it.

        An event written by somebody else meanwhile (a request to cancel) is read first and kept before ours.
        Raises LeaseLost when the fence is no longer in force.
        """
        while not self._try(drafts, release):
            self._catch_up()

    def _try(self, drafts: Sequence[Draft], release: bool) -> bool:
        cursor = self.state.seq
        written = self._write(drafts)
        # one statement is a transaction of its own; only what reviews must be told of needs a longer one
        with transaction.atomic() if _concerns_reviews(written) else nullcontext():
            if not _insert(self.run_id, cursor, self.fence, self.state, written, release):
                return False
            _tell_reviews(self.run_id, self.state, written)
            seq = self.state.seq
            transaction.on_commit(lambda: live.nudge(self.run_id, seq))
        return True

    def _write(self, drafts: Sequence[Draft]) -> list[Fact]:
        written = []
        for draft in drafts:
            at = max(now(), self.state.last_at or now())
            prev_hash = self.state.head_hash or GENESIS
            fact = write(draft, run_id=self.run_id, seq=self.state.seq + 1, at=at, prev_hash=prev_hash)
            fold([fact], self.state)
            written.append(fact)
        return written

    def _catch_up(self) -> None:
        self.state = fold(facts(self.run_id))
        if self.fence is None or not Run.objects.filter(pk=self.run_id, fence=self.fence, lease_until__isnull=False).exists():
            raise LeaseLost(f"run {self.run_id} is advanced by another process, or has ended")


def create(draft: Draft) -> RunLog:
    """Insert a run with its first event, RunRequested, in one transaction."""
    with transaction.atomic():
        row = Run.objects.create(input=None, agent=draft.data["agent"], created_at=now())
        log = RunLog(row.pk, RunState())
        log.append(draft)
    return log


@contextmanager
def locked(run_id: int) -> Iterator[RunLog]:
    """One transaction with the run's row locked: what is read stays true until the block has ended.

    Raises Run.DoesNotExist for an unknown run.
    """
    with transaction.atomic():
        Run.objects.select_for_update().only("pk").get(pk=run_id)
        yield RunLog.load(run_id)


def reproject(run_id: int) -> None:
    """Make the rows of the run and its steps again from its events; what coordinates processes stays."""
    with locked(run_id) as log:
        Step.objects.filter(run_id=run_id).delete()
        Run.objects.filter(pk=run_id).update(**run_columns(log.state))
        Step.objects.bulk_create(Step(run_id=run_id, **step_columns(step)) for step in log.state.steps.values())


def first_wrong(run_id: int) -> str:
    """Say what does not hold (a link of the chain, a column of a row), or return "" when all does."""
    run, found = Run.objects.get(pk=run_id), facts(run_id)
    if broken := first_broken(run_id, found):
        return broken
    state = fold(found)
    if not found or run.last_seq != state.seq or run.head_hash != state.head_hash:
        return f"its row says {run.last_seq} events, its log holds {state.seq}"
    for name, value in run_columns(state).items():
        if getattr(run, name) != value:
            return f"its column {name} is not what its events say"
    return _first_wrong_step(run, state)


def _first_wrong_step(run: Run, state: RunState) -> str:
    steps = {step.position: step for step in run.steps.all()}
    if steps.keys() != state.steps.keys():
        return "it has other steps than its events say"
    for position, step in state.steps.items():
        for name in STEP_COLUMNS:
            if getattr(steps[position], name) != getattr(step, name):
                return f"column {name} of its step {position} is not what its events say"
    return ""


def rows(run_id: int, *, after: int = 0) -> QuerySet[Event]:
    """Events of the run beyond the cursor `after`, in order."""
    return Event.objects.filter(run_id=run_id, seq__gt=after).order_by("seq")


def facts(run_id: int, *, after: int = 0) -> list[Fact]:
    """The same as values, for folding and for checking the chain."""
    found = rows(run_id, after=after)
    return [Fact(e.seq, e.kind, e.data, e.step, e.actor, e.at, e.prev_hash, e.hash) for e in found]


def now() -> datetime:
    """The database's time (UTC), kept between looks by this process's monotonic clock."""
    global _looked_at, _database_time
    if time.monotonic() - _looked_at > CLOCK_LOOK_SECONDS:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            _database_time, _looked_at = cursor.fetchone()[0], time.monotonic()
    return _database_time + timedelta(seconds=time.monotonic() - _looked_at)


CLOCK_LOOK_SECONDS = 30.0
_looked_at = float("-inf")
_database_time: datetime

# --- the lease: who advances a run ------------------------------------------------------------------------------

TAKE = """
UPDATE runs_run AS run
SET lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(seconds)s), fence = run.fence + 1
FROM (SELECT id, lease_owner FROM runs_run WHERE id = %(run_id)s FOR UPDATE) AS before
WHERE run.id = before.id AND run.status IN ('queued', 'running', 'retrying')
  AND (run.lease_until IS NULL OR run.lease_until < clock_timestamp())
  AND (run.wake_at IS NULL OR run.wake_at <= clock_timestamp())
RETURNING run.fence, before.lease_owner
"""
RENEW = """
UPDATE runs_run SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = %(run_id)s AND fence = %(fence)s AND lease_until IS NOT NULL
"""


def take(run_id: int, *, owner: str) -> RunLog | None:
    """Take the lease of a run that is due and owned by nobody; None when there is nothing to do here."""
    with connection.cursor() as cursor:
        cursor.execute(TAKE, {"owner": owner, "seconds": settings.LEASE_SECONDS, "run_id": run_id})
        taken = cursor.fetchone()
    if taken is None:
        return None
    fence, lost_owner = taken
    log = RunLog.load(run_id, fence=fence)
    log.append(_taking(log.state, owner, fence, lost_owner))
    return log


def renew(run_id: int, fence: int) -> bool:
    """Extend the lease; False when it is no longer ours."""
    with connection.cursor() as cursor:
        cursor.execute(RENEW, {"seconds": settings.LEASE_SECONDS, "run_id": run_id, "fence": fence})
        return bool(cursor.rowcount)


def _taking(state: RunState, owner: str, fence: int, lost_owner: str) -> Draft:
    if lost_owner:
        return Draft(Kind.RUN_TAKEN_OVER, {"owner": owner, "fence": fence, "from": lost_owner})
    kind = Kind.RUN_RESUMED if state.started_at else Kind.RUN_STARTED
    return Draft(kind, {"owner": owner, "fence": fence})


# --- one statement writes events, the run and its steps ----------------------------------------------------------

JSON_RUN_COLUMNS = {"input", "output", "error"}
STEP_TYPES = {
    "position": "int",
    "attempt": "int",
    "confidence": "float8",
    "threshold": "float8",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
} | dict.fromkeys(["input", "output", "alternatives", "error", "proposal"], "jsonb")
SET_RUN = ", ".join(f"{name} = %({name})s{'::jsonb' if name in JSON_RUN_COLUMNS else ''}" for name in RUN_COLUMNS)
STEP_LIST = ", ".join(STEP_COLUMNS)
STEP_RECORD = ", ".join(f"{name} {STEP_TYPES.get(name, 'text')}" for name in STEP_COLUMNS)
SET_STEP = ", ".join(f"{name} = excluded.{name}" for name in STEP_COLUMNS if name != "position")
INSERT = f"""
WITH head AS (
  UPDATE runs_run SET {SET_RUN},
    lease_owner = CASE WHEN %(release)s THEN '' ELSE lease_owner END,
    lease_until = CASE WHEN %(release)s THEN NULL ELSE lease_until END
  WHERE id = %(run_id)s AND last_seq = %(cursor)s AND (%(fence)s::int IS NULL OR fence = %(fence)s)
  RETURNING id
), written AS (
  INSERT INTO runs_event (run_id, seq, kind, step, actor, data, at, prev_hash, hash)
  SELECT head.id, e.seq, e.kind, e.step, e.actor, e.data, e.at, e.prev_hash, e.hash
  FROM head, jsonb_to_recordset(%(facts)s::jsonb)
    AS e(seq int, kind text, step int, actor text, data jsonb, at timestamptz, prev_hash text, hash text)
), projected AS (
  INSERT INTO runs_step (run_id, {STEP_LIST})
  SELECT head.id, {", ".join("s." + name for name in STEP_COLUMNS)}
  FROM head, jsonb_to_recordset(%(steps)s::jsonb) AS s({STEP_RECORD})
  ON CONFLICT (run_id, position) DO UPDATE SET {SET_STEP}
)
SELECT count(*) FROM head
"""  # noqa: S608 - built from the constant column lists above


def _insert(run_id: int, cursor: int, fence: int | None, state: RunState, written: list[Fact], release: bool) -> bool:
    columns = run_columns(state)
    values = columns | {name: _json(columns[name]) for name in JSON_RUN_COLUMNS}
    values |= {"run_id": run_id, "cursor": cursor, "fence": fence, "release": release}
    values["facts"] = dumps([_fact_columns(fact) for fact in written])
    values["steps"] = dumps([step_columns(step) for step in _touched(state, written)])
    with connection.cursor() as statement:
        statement.execute(INSERT, values)
        return bool(statement.fetchone()[0])


def _touched(state: RunState, written: list[Fact]) -> list[StepState]:
    """The steps that these facts changed; an ending or a retry of the run may change any of them."""
    if any(fact.kind in (Kind.RUN_CANCELLED, Kind.RUN_RETRIED) for fact in written):
        return list(state.steps.values())
    return [state.steps[position] for position in {fact.step for fact in written if fact.step} & state.steps.keys()]


def _fact_columns(fact: Fact) -> dict[str, Any]:
    names = ("seq", "kind", "step", "actor", "data", "prev_hash", "hash")
    return {name: getattr(fact, name) for name in names} | {"at": fact.at.isoformat()}


def _json(value: Any) -> str | None:
    return None if value is None else dumps(value)


def _concerns_reviews(written: list[Fact]) -> bool:
    return any(fact.kind in (Kind.STEP_ESCALATED, Kind.RUN_CANCELLED) for fact in written)


def _tell_reviews(run_id: int, state: RunState, written: list[Fact]) -> None:
    for fact in written:
        if fact.kind == Kind.STEP_ESCALATED and fact.step is not None:
            signals.escalated.send(sender=RunLog, run_id=run_id, step=state.steps[fact.step], fact=fact)
        if fact.kind == Kind.RUN_CANCELLED:
            signals.withdrawn.send(sender=RunLog, run_id=run_id, fact=fact)
