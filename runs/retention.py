"""Removes runs that ended long ago, in short transactions, and leaves a tombstone of each; or says why they stay."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog
from django.db import IntegrityError, OperationalError, connection, models, transaction

from runs import archives, audit, clock, families, limited, signals
from runs.archives import Archive
from runs.engine import tombstones
from runs.engine.budget import run_scope
from runs.engine.events import GENESIS
from runs.families import Family
from runs.models import Alert, AlertEvent, AlertNotice, BrokenLog, Budget, Pruning, Reservation, Run, Tombstone
from runs.models.bulk import GIVEN_UP_AFTER, BulkAction, BulkActionItem

logger = structlog.get_logger()
EVENTS_TOGETHER = 1_000  # of one transaction; a larger family has one to itself
ROWS_TOGETHER = 2_000  # of one statement
ALERTS_TOGETHER = 200
NICE = 10  # whoever has pages to make is served before it
LIMITS = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '200ms'"
WRITING = "SET LOCAL statement_timeout = '10min'"  # into the archive: the time is that of our own compressing, not the server's
REST = 2.0  # after each transaction it rests so many times as long as that took: others want the server too
BUSY, TOO_SLOW = "in use at this moment", "too much for the database at this moment"


@dataclass
class Report:
    """How far it has come. `kept`: reason -> how many runs stay for it; `such_as`: reason -> one of which it is so."""

    runs: int = 0
    events: int = 0
    alerts: int = 0
    bulks: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    such_as: dict[str, int] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        return self.runs + self.kept.total()

    def keep(self, family: Family) -> None:
        self.kept[family.why] += len(family.members)
        self.such_as.setdefault(family.why, family.of)


def stand_back() -> None:
    """The thread that calls this lets all others go first, where the system can tell threads apart."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def how_many(before: datetime) -> int:
    """Runs that ended before then."""
    return Run.objects.filter(finished_at__lt=before).count()


def would_prune(before: datetime) -> Iterator[Report]:
    """What `prune` would do now, again and again as it is found out; nothing is changed."""
    report = Report()
    for page in families.old(before):
        for family in page:
            if family.why:
                report.keep(family)
            else:
                _count(report, [family])
        yield report
    report.alerts, report.bulks = _old_alerts(before).count(), _old_bulks(before).count()
    yield report


def prune(pruning: Pruning) -> Iterator[Report]:
    """Remove every family that may go, a few at a time, and say after each how far it has come.

    Stopped at any moment, all that was told is done and nothing else; another goes on with what is left. Several may work
    at once: each leaves alone what another has in hand. Raises OSError when the archive cannot be written.
    """
    report = Report()
    archive = archives.Archive(Path(pruning.archive), pruning.pk) if pruning.archive else None
    for page in families.old(pruning.ended_before):
        for family in page:
            if family.why:
                report.keep(family)
        for together in _in_portions(sorted((one for one in page if not one.why), key=lambda one: one.ids)):
            for _ in _rested(_remove(pruning, together, archive, report)):
                yield report
        yield report
    for count in _rested(_remove_alerts(pruning.ended_before, archive)):
        report.alerts += count
        yield report
    for count in _rested(_remove_bulks(pruning.ended_before, archive)):
        report.bulks += count
        yield report
    pruning.ended_at = clock.now()
    pruning.save(update_fields=["ended_at"])
    yield report


def _rested(transactions: Iterator[int]) -> Iterator[int]:
    """How many each removed, with a rest after it."""
    begun = time.monotonic()
    for one in transactions:
        yield one
        time.sleep(REST * (time.monotonic() - begun))
        begun = time.monotonic()


def _in_portions(whole: Iterable[Family]) -> Iterator[list[Family]]:
    portion: list[Family] = []
    for family in whole:
        if portion and sum(one.events for one in portion) + family.events > EVENTS_TOGETHER:
            yield portion
            portion = []
        portion.append(family)
    if portion:
        yield portion


# --- one transaction ------------------------------------------------------------------------------------------------------


def _remove(pruning: Pruning, together: list[Family], archive: Archive | None, report: Report) -> Iterator[int]:
    """In one transaction; where that is not possible in two, so that one family keeps no others. How many runs each removed."""
    try:
        with transaction.atomic():
            _do(LIMITS)
            gone, kept = _still_removable(together, pruning.ended_before)
            if gone:
                _remove_now(pruning, gone, archive)
    except (OperationalError, IntegrityError) as error:  # too slow, or somebody writes what hangs on it: nothing is done
        why = _why_not(error)
        pruning.refresh_from_db()
        yield 0
        if half := len(together) // 2:
            for some in (together[:half], together[half:]):
                yield from _remove(pruning, some, archive, report)
            return
        gone, kept = [], [replace(family, why=why, of=family.ids[0]) for family in together]
    _count(report, gone)
    for family in kept:
        report.keep(family)
    yield sum(len(family.members) for family in gone)


def _why_not(error: Exception) -> str:
    """What the database found too slow, or in use; raised anew where it is away."""
    if not connection.is_usable():
        raise error
    return TOO_SLOW if getattr(error.__cause__, "sqlstate", "") == limited.CANCELLED else BUSY


def _still_removable(together: list[Family], before: datetime) -> tuple[list[Family], list[Family]]:
    """Now that they are locked: nobody retries, forks or holds them any more. What somebody else has locked is left alone."""
    wanted = [run_id for family in together for run_id in family.ids]
    locked = {run_id for (run_id,) in _do(LOCK, ids=sorted(wanted))}
    broken, gone, kept = _broken(sorted(locked)), list[Family](), list[Family]()
    for family in families.look(locked, before):
        for why, of in ((BUSY, set(family.ids) - locked), (families.BROKEN, broken & set(family.ids))):
            if of and not family.why:
                family = replace(family, why=why, of=min(of))
        (kept if family.why else gone).append(family)
    there = {run_id for family in (*gone, *kept) for run_id in family.ids}
    kept += [replace(one, why=BUSY, of=one.ids[0]) for one in together if not there & set(one.ids) and _is_there(one)]
    return gone, kept


LOCK = "SELECT id FROM runs_run WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED"


def _is_there(family: Family) -> bool:
    """Another may have removed it since."""
    return Run.objects.filter(pk__in=family.ids).exists()


def _broken(run_ids: list[int]) -> set[int]:
    """Those whose logs do not hold, which an alert then says."""
    broken = set[int]()
    for _, stretch in groupby(enumerate(run_ids), key=lambda one: one[1] - one[0]):  # together, where their numbers follow
        ids = [run_id for _, run_id in stretch]
        first, last = ids[0], ids[-1]
        while (found := audit.audit(connection.connection, audit.Part(first, last, 0))).run_id is not None:
            BrokenLog.objects.update_or_create(run_id=found.run_id, defaults={"wrong": found.wrong})
            broken.add(found.run_id)
            first = found.run_id + 1
    return broken


def _remove_now(pruning: Pruning, gone: list[Family], archive: Archive | None) -> None:
    ids = [run_id for family in gone for run_id in family.ids]
    given = {"ids": ids, "scopes": [run_scope(run_id) for run_id in ids]}
    rows = [(RUNS, "id = ANY(%(ids)s)"), *hanging()]
    file = _write(archive, f"{pruning.runs + 1:08}", rows, given) if archive else ""
    _set_tombstones(pruning, gone, file)
    signals.removing.send(sender=Pruning, run_ids=ids)
    for table, condition in hanging():
        _delete(table, condition, given)
    _delete(RUNS, "id = ANY(%(ids)s)", given)


def _write(archive: Archive, name: str, rows: list[tuple[str, str]], given: dict[str, Any]) -> str:
    _do(WRITING)
    file = archive.write(name, rows, given)
    _do(LIMITS)
    return file


def _set_tombstones(pruning: Pruning, gone: list[Family], archive: str) -> None:
    at, rows = clock.now(), list[Tombstone]()
    for one in (one for family in gone for one in family.members):
        pruning.runs, pruning.events = pruning.runs + 1, pruning.events + one.last_seq
        said = (pruning.pk, pruning.runs, one.id, one.last_seq, one.head_hash, pruning.by, at, archive)
        tombstone = tombstones.Tombstone(*said, prev_hash=pruning.head_hash or GENESIS)
        pruning.head_hash = tombstones.seal(tombstone)
        rows.append(
            Tombstone(
                run_id=one.id, pruning=pruning, place=pruning.runs, last_seq=one.last_seq, head_hash=one.head_hash,
                by=pruning.by, at=at, archive=archive, prev_hash=tombstone.prev_hash, hash=pruning.head_hash,
            )
        )  # fmt: skip
    Tombstone.objects.bulk_create(rows)
    pruning.save(update_fields=["runs", "events", "head_hash"])


def _delete(table: str, condition: str, given: dict[str, Any]) -> None:
    few = f'DELETE FROM "{table}" WHERE ctid = ANY(ARRAY(SELECT ctid FROM "{table}" WHERE {condition} LIMIT {ROWS_TOGETHER}))'  # noqa: S608 - names of our own tables
    with connection.cursor() as cursor:
        while True:
            cursor.execute(few, given)
            if cursor.rowcount < ROWS_TOGETHER:
                return


def _do(statement: str, **given: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, given or None)
        return cursor.fetchall() if cursor.description else []


def _count(report: Report, gone: list[Family]) -> None:
    report.runs += sum(len(family.members) for family in gone)
    report.events += sum(family.events for family in gone)


# --- what hangs on a run --------------------------------------------------------------------------------------------------

RUNS = Run._meta.db_table


@cache
def hanging() -> list[tuple[str, str]]:
    """Every table with rows of a run, each with the condition for those, what hangs on others before these.

    Found by the foreign keys, so that no new table is forgotten; one with DO_NOTHING outlives the run.
    """
    by_name = [(Budget, "scope = ANY(%(scopes)s)"), (Reservation, "run_id = ANY(%(ids)s)")]
    return [*_on(Run, "id = ANY(%(ids)s)"), *((model._meta.db_table, condition) for model, condition in by_name)]


def _on(model: type[models.Model], condition: str) -> Iterator[tuple[str, str]]:
    key = model._meta.pk.column
    for relation in model._meta.get_fields(include_hidden=True):
        if not isinstance(relation, models.ManyToOneRel) or relation.on_delete is models.DO_NOTHING:
            continue
        other, column = relation.related_model, relation.field.column
        if other is Run:
            continue
        within = f'SELECT {key} FROM "{model._meta.db_table}" WHERE {condition}'  # noqa: S608 - names of our own tables
        mine = f"{column} = ANY(%(ids)s)" if model is Run else f"{column} IN ({within})"
        yield from _on(other, mine)
        yield other._meta.db_table, mine


# --- what no run takes along ----------------------------------------------------------------------------------------------


WITH_ALERTS = [
    (Alert._meta.db_table, "id = ANY(%(ids)s)"),
    *((model._meta.db_table, "alert_id = ANY(%(ids)s)") for model in (AlertEvent, AlertNotice)),
]
WITH_BULKS = [(BulkAction._meta.db_table, "id = ANY(%(ids)s)"), (BulkActionItem._meta.db_table, "bulk_id = ANY(%(ids)s)")]


def _old_alerts(before: datetime) -> models.QuerySet[Alert]:
    """Ended, and nothing was said of them since."""
    return Alert.objects.filter(ended_at__lt=before, state=Alert.State.RESOLVED).exclude(events__at__gte=before)


def _old_bulks(before: datetime) -> models.QuerySet[BulkAction]:
    """Begun, last gone on with, and last carried on before then; one begun within the last day may be under way."""
    since = min(before, clock.now() - GIVEN_UP_AFTER)
    return BulkAction.objects.filter(begun_at__lt=since, asked_at__lt=since).exclude(items__at__gte=since)


def _remove_alerts(before: datetime, archive: Archive | None) -> Iterator[int]:
    """With their history and notices, some at a time: how many. What is in use stays until the next."""
    last = 0
    while ids := list(_old_alerts(before).filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:ALERTS_TOGETHER]):
        last, count = ids[-1], 0
        with _unless_in_use():
            if archive:
                _write(archive, f"alerts-{ids[0]:08}", WITH_ALERTS, {"ids": ids})
            AlertEvent.objects.filter(alert__in=ids).delete()
            count = Alert.objects.filter(pk__in=ids).delete()[1].get("runs.Alert", 0)
        yield count


def _remove_bulks(before: datetime, archive: Archive | None) -> Iterator[int]:
    """With what came of each of their runs, one at a time."""
    for pk in list(_old_bulks(before).order_by("begun_at", "pk").values_list("pk", flat=True)):
        count = 0
        with _unless_in_use():
            if BulkAction.objects.select_for_update().filter(pk=pk) and _old_bulks(before).filter(pk=pk):
                if archive:
                    _write(archive, f"bulk-{pk}", WITH_BULKS, {"ids": [pk]})
                count = BulkAction.objects.filter(pk=pk).delete()[1].get("runs.BulkAction", 0)
        yield count


@contextmanager
def _unless_in_use() -> Iterator[None]:
    """One transaction; what is too slow, or in use, is left as it was."""
    try:
        with transaction.atomic():
            _do(LIMITS)
            yield
    except (OperationalError, IntegrityError) as error:
        logger.warning("left_for_the_next_pruning", why=_why_not(error))
