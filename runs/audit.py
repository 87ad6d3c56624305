"""Compares every log with its chain, and with the rows it was projected to, in one snapshot and on several processors."""

import json
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
from django.db import connection, transaction

from runs.engine import tombstones
from runs.engine.canonical import dumps, put_back
from runs.engine.events import GENESIS, Fact, first_broken
from runs.engine.state import RunState, fold
from runs.projections import RUN_COLUMNS, STEP_COLUMNS, TYPES, run_columns, step_columns

PART_EVENTS = 10_000  # about so many are checked before progress is told
FETCHED_AT_ONCE = 1000
LOWEST, HIGHEST = -(2**63), 2**63 - 1
NOT_IN_ROWS = {"input", "output", "proposal", "value", "schema"}  # large values that no column is made from
Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """How many runs and events are in order, and of the first run that is not: its id and what does not hold."""

    runs: int = 0
    events: int = 0
    run_id: int | None = None
    wrong: str = ""
    pruning: int | None = None  # whose tombstones they are

    @property
    def sentence(self) -> str:
        """What is wrong, and of which run; "" where nothing is."""
        about = "Retention" if self.run_id is None else f"Run {self.run_id}"
        return f"{about}: {self.wrong}" if self.wrong else ""


@dataclass(frozen=True, slots=True)
class Part:
    """Ids of runs from `first` to `last`, and how many events their rows speak of."""

    first: int
    last: int
    events: int


def verify(*, processes: int, only: Sequence[int] = ()) -> Iterator[tuple[Found, int]]:
    """What has been found so far, again and again, each time with the number of all events there are; all runs, or only these.

    All of it is of one moment: runs that go on meanwhile raise no alarm. The first that is wrong ends it.
    """
    with _snapshot() as (database, snapshot):
        parts = [Part(one, one, 0) for one in only] or _parts(database)
        total, found = sum(part.events for part in parts), Found()
        if not only and (broken := _broken_tombstone(database)).wrong:
            yield broken, total
            return
        with _pool(min(processes, len(parts)), snapshot) as pool:
            for part in pool.map(_audit_in_snapshot, parts):
                found = Found(found.runs + part.runs, found.events + part.events, part.run_id, part.wrong)
                yield found, max(total, found.events)
                if part.wrong:
                    return


def first_wrong(run_id: int) -> str:
    """Say what does not hold of one run, or return "" when all does; nobody writes to it meanwhile."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM runs_run WHERE id = %s FOR UPDATE", [run_id])
        return audit(connection.connection, Part(run_id, run_id, 0)).wrong


# --- one part -----------------------------------------------------------------------------------------------------


def _texts(names: Iterable[str]) -> str:
    """JSON as text: how it would be read otherwise depends on whose connection it is."""
    return ", ".join(f"{name}::text" if TYPES.get(name) == "jsonb" else name for name in names)


WITHIN = "BETWEEN %(first)s AND %(last)s"
RUNS = f"SELECT id, {_texts(RUN_COLUMNS)} FROM runs_run WHERE id {WITHIN} ORDER BY id"  # noqa: S608 - constants, here and below
STEPS = f"SELECT run_id, {_texts(STEP_COLUMNS)} FROM runs_step WHERE run_id {WITHIN} ORDER BY run_id, position"  # noqa: S608
EVENTS = f"""
SELECT run_id, seq, kind, data::text, step, actor, at, prev_hash, hash FROM runs_event
WHERE run_id {WITHIN} ORDER BY run_id, seq
"""  # noqa: S608
PAYLOADS = f"""
SELECT run_id, hash, hash = encode(sha256(convert_to(body, 'UTF8')), 'hex') FROM runs_payload
WHERE run_id {WITHIN} ORDER BY run_id
"""  # noqa: S608
REMOVED = "SELECT min(run_id) FROM runs_tombstone WHERE run_id = ANY(%(ids)s)"
BODY = "SELECT body FROM runs_payload WHERE run_id = %s AND hash = %s"
JSON_COLUMNS = {name for name in (*RUN_COLUMNS, *STEP_COLUMNS) if TYPES.get(name) == "jsonb"}


def audit(database: Connection, part: Part) -> Found:
    """Check the runs of a part, in the order of their ids, within the transaction of the connection."""
    within = {"first": part.first, "last": part.last}
    rows = {run_id: columns for run_id, *columns in _rows(database, RUNS, within)}
    steps = {run_id: [row[1:] for row in mine] for run_id, mine in groupby(_rows(database, STEPS, within), itemgetter(0))}
    payloads = {run_id: dict(mine) for run_id, mine in _by_run(_rows(database, PAYLOADS, within)).items()}
    if back := _rows(database, REMOVED, {"ids": [*(rows.keys() | steps.keys() | payloads.keys())]})[0][0]:
        return Found(0, 0, back, "it was removed by retention, and there are rows of it")
    beside, runs, events = _Beside(database, rows, steps, payloads), 0, 0
    for run_id, mine in groupby(_stream(database, EVENTS, within), itemgetter(0)):
        without_events = beside.first_before(run_id)
        if without_events is not None:
            return Found(runs, events, without_events, "it has rows and no events")
        seq, wrong = beside.compare(run_id, mine)
        if wrong:
            return Found(runs, events, run_id, wrong)
        runs, events = runs + 1, events + seq
    without_events = beside.first_before(HIGHEST)
    return Found(runs, events, without_events, "it has rows and no events" if without_events is not None else "")


def _by_run(found: list[Row]) -> dict[int, list[Any]]:
    return {run_id: [row[1:] for row in mine] for run_id, mine in groupby(found, itemgetter(0))}


class _Beside:
    """The rows of some runs by ascending id, taken away as their events are compared with them."""

    def __init__(self, database: Connection, rows: dict[int, Any], steps: dict[int, Any], payloads: dict[int, Any]) -> None:
        self.database, self.rows, self.steps, self.payloads = database, rows, steps, payloads

    def first_before(self, run_id: int) -> int | None:
        """The least id under this one of which there are rows still: nothing told of it."""
        least = min((next(iter(kind)) for kind in (self.rows, self.steps, self.payloads) if kind), default=run_id)
        return least if least < run_id else None

    def compare(self, run_id: int, mine: Iterator[Row]) -> tuple[int, str]:
        """How many events the run has, and what does not hold."""
        row, steps, payloads = self.rows.pop(run_id, None), self.steps.pop(run_id, []), self.payloads.pop(run_id, {})
        state, named = RunState(), set[str]()
        for fact in map(_fact, mine):
            if row is None:
                return fact.seq, f"event {fact.seq} is of a run that does not exist"
            if wrong := self._apply(run_id, state, fact, payloads, named):
                return fact.seq, wrong
        if unnamed := payloads.keys() - named:
            return state.seq, f"no event names its payload {min(unnamed)}"
        return state.seq, _wrong_run(row, state) or _wrong_step(steps, state)

    def _apply(self, run_id: int, state: RunState, fact: Fact, payloads: dict[str, bool], named: set[str]) -> str:
        if wrong := first_broken(run_id, [fact], after=state.seq, prev_hash=state.head_hash or GENESIS):
            return wrong
        for one in fact.data.get("large", {}).values():
            if not payloads.get(one["hash"]):
                how = "was changed after it was written" if one["hash"] in payloads else "is missing"
                return f"payload {one['hash']} of event {fact.seq} {how}"
            named.add(one["hash"])
        try:
            fold([self._with_what_rows_show(run_id, fact)], state)
        except (LookupError, TypeError, ValueError) as error:
            return f"event {fact.seq} ({fact.kind}) cannot follow what is before it: {error!r}"
        return ""

    def _with_what_rows_show(self, run_id: int, fact: Fact) -> Fact:
        """Large values stay where they are, but for those that a column is made from."""
        hashes = [one["hash"] for key, one in fact.data.get("large", {}).items() if key not in NOT_IN_ROWS]
        if not hashes:
            return fact
        bodies = {hash_: json.loads(self.database.execute(BODY, (run_id, hash_)).fetchall()[0][0]) for hash_ in hashes}
        kept = {key: one for key, one in fact.data["large"].items() if one["hash"] in bodies}
        data = put_back(fact.data | {"large": kept}, bodies) | {"large": fact.data["large"]}
        return Fact(fact.seq, fact.kind, data, fact.step, fact.actor, fact.at, fact.prev_hash, fact.hash)


def _fact(row: Row) -> Fact:
    _, seq, kind, data, *others = row
    return Fact(seq, kind, json.loads(data), *others)


def _wrong_run(row: Sequence[Any], state: RunState) -> str:
    columns = dict(zip(RUN_COLUMNS, row, strict=True))
    if columns["last_seq"] != state.seq or columns["head_hash"] != state.head_hash:
        return f"its row says {columns['last_seq']} events, its log holds {state.seq}"
    wrong = _first_other(columns, run_columns(state))
    return f"its column {wrong} is not what its events say" if wrong else ""


def _wrong_step(rows: list[Row], state: RunState) -> str:
    found = {row[0]: row for row in rows}
    if other := found.keys() ^ state.steps.keys():
        position = min(other)
        return f"its step {position} has {'a row and no event' if position in found else 'events and no row'}"
    for position, step in state.steps.items():
        if wrong := _first_other(dict(zip(STEP_COLUMNS, found[position], strict=True)), step_columns(step)):
            return f"column {wrong} of its step {position} is not what its events say"
    return ""


def _first_other(columns: dict[str, Any], said: dict[str, Any]) -> str:
    """The first column that is not what was said, or ""."""
    for name, value in columns.items():
        if name in JSON_COLUMNS and value is not None:
            if said[name] is None or dumps(json.loads(value)) != dumps(said[name]):
                return name
        elif value != said[name]:
            return name
    return ""


# --- what is left of removed runs -----------------------------------------------------------------------------------

TOMBSTONES = """
SELECT pruning_id, place, run_id, last_seq, head_hash, by, at, archive, prev_hash, hash FROM runs_tombstone
ORDER BY pruning_id, place
"""
ENDS = "SELECT id, runs, head_hash FROM runs_pruning WHERE runs > 0"


# with its end in one statement: it may go on at this moment
TOMBSTONES_OF = """
SELECT pruning.runs, pruning.head_hash, pruning.id, place, run_id, last_seq, tombstone.head_hash, tombstone.by, at,
  tombstone.archive, prev_hash, hash
FROM runs_pruning AS pruning
LEFT JOIN runs_tombstone AS tombstone ON tombstone.pruning_id = pruning.id
WHERE pruning.id = %(id)s ORDER BY place
"""


def _broken_tombstone(database: Connection) -> Found:
    ends = {pruning: (count, head_hash) for pruning, count, head_hash in _rows(database, ENDS, {})}
    return _found(tombstones.first_broken((tombstones.Tombstone(*row) for row in _stream(database, TOMBSTONES, {})), ends))


def of_pruning(pruning: int) -> Found:
    """The first tombstone of this pruning, or its end, that is not what was written."""
    with transaction.atomic():
        rows = _rows(connection.connection, TOMBSTONES_OF, {"id": pruning})
    there = [tombstones.Tombstone(*row[2:]) for row in rows if row[3] is not None]
    return _found(tombstones.first_broken(there, {pruning: rows[0][:2]} if rows and rows[0][0] else {}))


def _found(broken: tombstones.Broken) -> Found:
    pruning, run_id, wrong = broken
    return Found(0, 0, run_id, wrong, pruning)


# --- reading ------------------------------------------------------------------------------------------------------


def _rows(database: Connection, statement: str, within: dict[str, Any]) -> list[Row]:
    with psycopg.Cursor(database) as cursor:
        return cursor.execute(statement, within).fetchall()


def _stream(database: Connection, statement: str, within: dict[str, int]) -> Iterator[Row]:
    """One run may have more events than fit into memory."""
    with psycopg.ServerCursor(database, "audit") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        yield from cursor.execute(statement, within)


PARTS = """
SELECT max(id), sum(last_seq)::bigint FROM (
  SELECT id, last_seq, (sum(last_seq) OVER (ORDER BY id) - last_seq) / %(size)s AS number FROM runs_run
) AS cut GROUP BY number ORDER BY number
"""


def _parts(database: Connection) -> list[Part]:
    """Every id that there may be, so that events of no run are found as well; each begins where the one before ends."""
    found, parts, first = _rows(database, PARTS, {"size": PART_EVENTS}) or [(HIGHEST, 0)], list[Part](), LOWEST
    for number, (last, events) in enumerate(found, start=1):
        last = HIGHEST if number == len(found) else last
        parts.append(Part(first, last, events))
        first = last + 1
    return parts


@contextmanager
def _snapshot() -> Iterator[tuple[Connection, str]]:
    """A transaction of its own, and the name by which other connections see what it sees while it is open."""
    with _connect(_parameters()) as database:
        yield database, database.execute("SELECT pg_export_snapshot()").fetchall()[0][0]


def _connect(parameters: dict[str, Any]) -> Connection:
    database = psycopg.connect(**parameters)
    database.isolation_level, database.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    return database


def _parameters() -> dict[str, Any]:
    """Of Django's connection, without what cannot be sent to another process."""
    own = connection.get_connection_params()
    return {name: value for name, value in own.items() if name not in ("context", "cursor_factory")}


# --- processes ----------------------------------------------------------------------------------------------------

_database: Connection  # of a process of the pool


@contextmanager
def _pool(processes: int, snapshot: str) -> Iterator[ProcessPoolExecutor]:
    """New processes rather than forked ones: nothing of ours, neither sockets nor locks, is in them."""
    started = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=started, initializer=_look, initargs=(_parameters(), snapshot))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _look(parameters: dict[str, Any], snapshot: str) -> None:
    global _database
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it, and ends the pool
    _database = _connect(parameters)
    _database.execute(psycopg.sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))


def _audit_in_snapshot(part: Part) -> Found:
    return audit(_database, part)
