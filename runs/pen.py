"""What the threads of a process write at the same moment is written together: one statement, one commit, many runs.

The thread that finds nobody writing writes; those that come meanwhile wait, and the next statement carries all of theirs
(group commit; Hagmann, "Reimplementing the Cedar File System Using Logging and Group Commit", SOSP 1987).
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db import Error as DatabaseError
from psycopg import pq
from psycopg_pool import ConnectionPool  # noqa: TID251 - to our own database

from runs.projections import CREATE, INSERT, KEEP, Birth, Statement, Write, birth_values, insert_one, prepared, statement_values

USUAL = ((2, 1), (2, 2))  # numbers of events and steps of most appends: a run's first and last, and those between
MOST_AT_ONCE = 64  # runs in one statement
ASKED_SECONDS = 5.0  # for how long the server is asked about a commit whose reply was lost
OF_ONE = (psycopg.errors.LockNotAvailable, psycopg.errors.ProgramLimitExceeded)  # may concern one run of many
Rows = list[tuple[Any, ...]]
T = TypeVar("T")


def execute(statement: str, values: dict[str, Any]) -> Rows:
    """Within a transaction on its connection, else on one of this process's own, which is held for this statement only.

    It is prepared on the server, where Django has each planned anew. Raises Django's database errors.
    """
    with connection.wrap_database_errors, _connection() as used:
        return psycopg.Cursor(used).execute(statement, values).fetchall()


def execute_with_pen(statement: str, values: dict[str, Any]) -> Rows | None:
    """The same on the connection that writes, whose backend is at work anyway; None where somebody writes, or it fails.

    It must wait for no row that somebody has locked: who writes waits for it.
    """
    return None if connection.in_atomic_block else _group.execute(statement, values)


def write(asked: Write) -> bool:
    """Carry out this write, perhaps together with others; False where its run has moved on or its lease is lost."""
    if connection.in_atomic_block:
        return bool(execute(INSERT, statement_values([asked], settings.LEASE_SECONDS)))
    return _group.write(asked)


def warm_up() -> None:
    """Connect, and have the server prepare INSERT."""
    _group.connect()


def create_together(asked: list[Birth]) -> None:
    """Carry out these births of runs in one statement, within a transaction."""
    execute(CREATE, birth_values(asked))
    for one in asked:
        keep(one)


def keep(asked: Write | Birth) -> None:
    """Insert what was set apart from the events of a write, within its transaction; one at a time, for each may have 10 MB."""
    for hash_, body in asked.payloads.items():
        execute(KEEP, {"run_id": asked.run_id, "hash": hash_, "body": body})


def rest() -> None:
    """Give Django's connection of this thread back to the server, before something that may take long."""
    ours = connections[DEFAULT_DB_ALIAS]  # `connection` looks it up for each of its attributes
    if ours.connection is not None and not ours.in_atomic_block:
        ours.close()


def patiently(call: Callable[[], T], may_wait: Callable[[], bool]) -> T:
    """What the call returns; repeated while the server is away and `may_wait()`. Not within a transaction, which is lost."""
    while True:
        try:
            return call()
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or not (_is_away(error) and may_wait()):
                raise
            connection.close()
            time.sleep(AGAIN_SECONDS)


def never() -> bool:
    """For who cannot wait."""
    return False


def _is_away(error: Exception) -> bool:
    """The connection is gone, or the server has no room, is in recovery, or waited for a lock: none is the statement's fault."""
    code = getattr(error.__cause__, "sqlstate", None)
    return code is None or code[:2] in AWAY


AWAY = ("08", "40", "53", "55", "57")
AGAIN_SECONDS = 0.1


@contextmanager
def certain() -> Iterator[None]:
    """A transaction whose end is known: when the reply of its COMMIT is lost, the server is asked whether it took place.

    Within another transaction it is part of that. What was to follow the commit is then left to the sweeper.
    """
    if connection.in_atomic_block:
        yield
        return
    number = None
    try:
        with transaction.atomic():
            yield
            number = execute("SELECT pg_current_xact_id()::text", {})[0][0]
    except (OperationalError, InterfaceError):
        if number is None or not _took_place(number):
            raise


def _took_place(number: str) -> bool:
    """False also where the server does not answer for ASKED_SECONDS."""
    end = time.monotonic() + ASKED_SECONDS
    while time.monotonic() < end:
        connection.close()
        with suppress(DatabaseError):
            status = execute("SELECT pg_xact_status(%(number)s::xid8)", {"number": number})[0][0]
            if status != "in progress":
                return bool(status == "committed")
        time.sleep(0.1)
    return False


def after_commit(call: Callable[[], object]) -> None:
    """At once outside a transaction, where Django's own on_commit would open a connection to find that out."""
    if connection.in_atomic_block:
        transaction.on_commit(call, robust=True)
    else:
        call()


def close() -> None:
    """Give this process's own connections back to the server."""
    global _pool
    with _opening:
        if _pool:
            _pool.close()
        _pool = None
        _group.close()


# --- writing together -------------------------------------------------------------------------------------------


class _Turn:
    """One thread's write, and where it waits until somebody has carried it out or hands it the pen."""

    __slots__ = ("asked", "error", "leads", "lock", "written")

    def __init__(self, asked: Write) -> None:
        self.asked, self.lock = asked, threading.Lock()
        self.written, self.leads = False, False
        self.error: Exception | None = InterfaceError("the thread that was writing was interrupted")
        self.lock.acquire()

    def settle(self, written: bool, error: Exception | None = None) -> None:
        self.written, self.error = written, error


class _Group:
    """Those who wait to write, whether somebody is writing, and the connection for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []
        self._busy = False
        self._database: psycopg.Connection[Any] | None = None
        self._known: set[bytes] = set()  # the statements that are prepared on it

    def close(self) -> None:
        if self._database:
            self._database.close()
        self._database = None

    def connect(self) -> None:
        """By a statement about no run, for a process in which nobody writes yet."""
        self._insert([])
        with connection.wrap_database_errors:
            for facts, steps in USUAL:
                self._ready(insert_one(facts, steps))

    def write(self, asked: Write) -> bool:
        turn = _Turn(asked)
        with self._lock:
            turn.leads, self._busy = not self._busy, True
            if not turn.leads:
                self._waiting.append(turn)
        if not turn.leads:
            turn.lock.acquire()
        if turn.leads:
            self._lead(turn)
        if turn.error:
            raise turn.error
        return turn.written

    def _lead(self, turn: _Turn) -> None:
        """Write this turn with those that have come meanwhile, then hand the pen on."""
        with self._lock:
            together = [turn, *self._waiting[: MOST_AT_ONCE - 1]]
            del self._waiting[: MOST_AT_ONCE - 1]
        try:
            self._carry_out(together)
        finally:
            self._hand_on(together[1:])

    def _hand_on(self, others: Sequence[_Turn] = ()) -> None:
        """To who has waited longest; these were written with who had the pen."""
        with self._lock:
            following = self._waiting.pop(0) if self._waiting else None
            self._busy = following is not None
        for other in others:
            other.lock.release()
        if following:
            following.leads = True
            following.lock.release()

    def execute(self, statement: str, values: dict[str, Any]) -> Rows | None:
        """None where somebody else has the pen, or this statement fails."""
        with self._lock:
            if self._busy or self._database is None:
                return None
            self._busy = True
        found: Rows | None = None
        try:
            with suppress(psycopg.Error):
                found = psycopg.Cursor(self._database).execute(statement, values).fetchall()
            return found
        finally:
            if found is None:
                self.close()
            self._hand_on()

    def _carry_out(self, turns: list[_Turn]) -> None:
        """One statement for all. What cannot be stored, or is locked, must fail alone; a database that is away fails for each."""
        try:
            written = self._insert([turn.asked for turn in turns])
        except DatabaseError as error:
            fault_of_one = isinstance(error, DataError | IntegrityError) or isinstance(error.__cause__, OF_ONE)
            if fault_of_one and len(turns) > 1:
                for turn in turns:
                    self._carry_out([turn])
                return
            if not fault_of_one:
                self.close()
            for turn in turns:
                turn.settle(False, error)
        else:
            for turn in turns:
                turn.settle(turn.asked.run_id in written)

    def _insert(self, together: list[Write]) -> set[int]:
        """Straight through libpq: psycopg's cursor would cost as much CPU again as sending and waiting do."""
        statement, values = prepared(together, settings.LEASE_SECONDS)
        try:
            wire = self._ready(statement)
            # psycopg's annotation forgets that a value may be NULL
            found = _answered(wire, wire.exec_prepared(statement.name, values, statement.formats))  # type: ignore[arg-type]
        except psycopg.Error:
            with connection.wrap_database_errors:
                raise
        return {int(found.get_value(row, 0) or 0) for row in range(found.ntuples)}

    def _ready(self, statement: Statement) -> pq.abc.PGconn:
        """The connection, with this statement prepared on it."""
        if self._database is None:
            self._database, self._known = psycopg.connect(**_ways()), set()
        wire = self._database.pgconn
        if statement.name not in self._known:
            _answered(wire, wire.prepare(statement.name, statement.text))
            self._known.add(statement.name)
        return wire


def _answered(wire: pq.abc.PGconn, result: pq.abc.PGresult) -> pq.abc.PGresult:
    """The result, or psycopg's error for it."""
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        return result
    error = psycopg.errors.error_from_result(result)
    raise psycopg.OperationalError(str(error)) if wire.status == pq.ConnStatus.BAD else error


# --- connections ------------------------------------------------------------------------------------------------

# Every statement here names its rows by key; a plan made while the tables were small must not scan them when they are large.
NEVER_SCANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
TERMS = {"plan_cache_mode": "force_generic_plan", "lock_timeout": "2s"}  # a run that somebody locks must not stop the others
POINT_LOOKUPS = " ".join(f"-c {name}={value}" for name, value in (NEVER_SCANS | TERMS).items())


@contextmanager
def _connection() -> Iterator["psycopg.Connection[Any]"]:
    if connection.in_atomic_block:
        connection.ensure_connection()
        yield connection.connection
        return
    pool = _pool or _open()
    try:
        with pool.connection() as used:
            yield used
    except psycopg.OperationalError:
        pool.check()  # after a restart of the server the others are dead as well: one failure tells for all
        raise


def _open() -> "ConnectionPool[psycopg.Connection[Any]]":
    global _pool
    with _opening:
        if _pool is None:
            _pool = ConnectionPool(kwargs=_ways(), min_size=1, max_size=settings.JOB_CONNECTIONS, timeout=10, open=True)
        return _pool


def _ways() -> dict[str, Any]:
    """As Django connects, but each statement is prepared at its first use, and a transaction of its own."""
    ways = {name: value for name, value in connection.get_connection_params().items() if name != "cursor_factory"}
    options = f"{ways.get('options', '')} {POINT_LOOKUPS}".strip()
    return ways | {"autocommit": True, "prepare_threshold": 0, "options": options}


_pool: "ConnectionPool[psycopg.Connection[Any]] | None" = None
_opening = threading.Lock()
_group = _Group()


def _after_fork() -> None:
    """Neither connections nor those who wait for the pen survive a fork."""
    global _pool, _opening, _group
    _pool, _opening, _group = None, threading.Lock(), _Group()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
