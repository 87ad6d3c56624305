"""The only writer and reader of events: checks the cursor and the fence, appends, projects and announces."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

import psycopg
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet

from runs import live, signals
from runs.engine.canonical import normalise
from runs.engine.events import GENESIS, Draft, Fact, Kind, first_broken, write
from runs.engine.state import RunState, fold
from runs.models import Run, Step
from runs.models.event import Event
from runs.projections import INSERT, STEP_COLUMNS, run_columns, statement_values, step_columns


class LeaseLost(Exception):
    """Another process advances this run now, or it has ended: this one may write nothing more."""


class CancelRequested(Exception):
    """Somebody asked to cancel the run since it was last read; nothing of this append was written."""


class RunLog:
    """The log of one run with the state it folds to. With a `fence`, it writes only while that lease is held."""

    def __init__(self, run_id: int, state: RunState, fence: int | None = None) -> None:
        self.run_id, self.state, self.fence = run_id, state, fence

    @classmethod
    def load(cls, run_id: int, *, fence: int | None = None) -> Self:
        """Read every event of the run and fold it."""
        return cls(run_id, fold(facts(run_id)), fence)

    def append(self, *drafts: Draft, release: bool = False) -> None:
        """Write the drafts in one statement with their projections; `release` gives the lease back with it.

        Raises LeaseLost when the lease is no longer held, CancelRequested when somebody else wrote that meanwhile.
        """
        while drafts and not self._try(drafts, release):
            self._catch_up()

    def _try(self, drafts: Sequence[Draft], release: bool) -> bool:
        state = replace(self.state, steps=dict(self.state.steps))
        written = self._write(drafts, state)
        # one statement is a transaction of its own; only what reviews must be told of needs a longer one
        with transaction.atomic() if _concerns_reviews(written) else nullcontext():
            values = statement_values(self.run_id, self.state.seq, self.fence, state, written, release=release)
            if not _execute(INSERT, values)[0][0]:
                return False
            _tell_reviews(self.run_id, state, written)
            transaction.on_commit(lambda: live.nudge(self.run_id, state.seq), robust=True)
        self.state = state
        return True

    def _write(self, drafts: Sequence[Draft], state: RunState) -> list[Fact]:
        """The drafts as facts in their place, folded into the state."""
        written = []
        for draft in drafts:
            at = max(now(), state.last_at or now())
            fact = write(draft, run_id=self.run_id, seq=state.seq + 1, at=at, prev_hash=state.head_hash or GENESIS)
            fold([fact], state)
            written.append(fact)
        return written

    def _catch_up(self) -> None:
        """Somebody else wrote: read it, and see whether this process may go on."""
        was_cancelled = self.state.cancel_requested
        self.state = fold(facts(self.run_id))
        held = Run.objects.filter(pk=self.run_id, fence=self.fence or 0, lease_until__isnull=False).exists()
        if not held or self.state.ended:
            raise LeaseLost(f"run {self.run_id} is advanced by another process, or has ended")
        if self.state.cancel_requested and not was_cancelled:
            raise CancelRequested


def create(draft: Draft) -> RunLog:
    """Insert a run with its first event, RunRequested, in one transaction."""
    with transaction.atomic():
        row = Run.objects.create(input=None, agent=draft.data["agent"], created_at=now())
        log = RunLog(row.pk, RunState())
        log.append(replace(draft, data=normalise(draft.data)))
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
    with locked(run_id) as log:
        run, found, state = Run.objects.get(pk=run_id), facts(run_id), log.state
        if broken := first_broken(run_id, found):
            return broken
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
        _database_time, _looked_at = _execute("SELECT clock_timestamp()", {})[0][0], time.monotonic()
    return _database_time + timedelta(seconds=time.monotonic() - _looked_at)


CLOCK_LOOK_SECONDS = 30.0
_looked_at = float("-inf")
_database_time: datetime

# --- the lease: who advances a run ------------------------------------------------------------------------------

TAKE = """
UPDATE runs_run AS run
SET lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8), fence = run.fence + 1
FROM (SELECT id, lease_owner FROM runs_run WHERE id = %(run_id)s FOR UPDATE) AS before
WHERE run.id = before.id AND run.status IN ('queued', 'running', 'retrying')
  AND (run.lease_until IS NULL OR run.lease_until < clock_timestamp())
  AND (run.wake_at IS NULL OR run.wake_at <= clock_timestamp())
RETURNING run.fence, before.lease_owner
"""
RENEW = """
UPDATE runs_run SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8)
WHERE id = %(run_id)s AND fence = %(fence)s AND lease_until IS NOT NULL
RETURNING id
"""


def take(run_id: int, *, owner: str) -> tuple[RunLog, Draft] | None:
    """Take the lease of a run that is due and owned by nobody; None when there is nothing to do here.

    The draft says who took it: its owner writes it together with the first thing that happens.
    """
    taken = _execute(TAKE, {"owner": owner, "seconds": settings.LEASE_SECONDS, "run_id": run_id})
    if not taken:
        return None
    fence, lost_owner = taken[0]
    log = RunLog.load(run_id, fence=fence)
    return None if log.state.ended else (log, _taking(log.state, owner, fence, lost_owner))


def renew(run_id: int, fence: int) -> bool:
    """Extend the lease; False when it is no longer ours."""
    return bool(_execute(RENEW, {"seconds": settings.LEASE_SECONDS, "run_id": run_id, "fence": fence}))


def _taking(state: RunState, owner: str, fence: int, lost_owner: str) -> Draft:
    if lost_owner:
        return Draft(Kind.RUN_TAKEN_OVER, {"owner": owner, "fence": fence, "from": lost_owner})
    kind = Kind.RUN_RESUMED if state.started_at else Kind.RUN_STARTED
    return Draft(kind, {"owner": owner, "fence": fence})


# --- parts ------------------------------------------------------------------------------------------------------


def _execute(statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Execute as psycopg itself does, prepared on the server: Django's cursor would have it planned anew each time."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(statement, values, prepare=True).fetchall()


def _concerns_reviews(written: list[Fact]) -> bool:
    return any(fact.kind in (Kind.STEP_ESCALATED, Kind.RUN_CANCELLED) for fact in written)


def _tell_reviews(run_id: int, state: RunState, written: list[Fact]) -> None:
    for fact in written:
        if fact.kind == Kind.STEP_ESCALATED and fact.step is not None:
            signals.escalated.send(sender=RunLog, run_id=run_id, step=state.steps[fact.step], fact=fact)
        if fact.kind == Kind.RUN_CANCELLED:
            signals.withdrawn.send(sender=RunLog, run_id=run_id, fact=fact)
