"""What the threads of a process write at the same moment is written together: one statement, one commit, many runs.

The thread that finds nobody writing writes; those that come meanwhile wait, and the next statement carries all of theirs
(group commit; Hagmann, "Reimplementing the Cedar File System Using Logging and Group Commit", SOSP 1987).
"""

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from django.conf import settings
from django.db import DataError, IntegrityError, InterfaceError, connection
from django.db import Error as DatabaseError
from psycopg import pq

from runs.projections import Statement, Write, insert_one, prepared

USUAL = ((2, 1), (2, 2))  # numbers of events and steps of most appends: a run's first and last, and those between
MOST_AT_ONCE = 64  # runs in one statement
OF_ONE = (psycopg.errors.LockNotAvailable, psycopg.errors.ProgramLimitExceeded)  # may concern one run of many
Encoded = tuple[int, Statement, list[bytes | None]]  # of one run, with its number

# Every statement here names its rows by key; a plan made while the tables were small must not scan them when they are large.
NEVER_SCANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
TERMS = {"plan_cache_mode": "force_generic_plan", "lock_timeout": "2s"}  # a run that somebody locks must not stop the others
POINT_LOOKUPS = " ".join(f"-c {name}={value}" for name, value in (NEVER_SCANS | TERMS).items())


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


class Flight:
    """A write that was sent. It has the pen until its answer is taken up: by who sent it, who wants to write, or the watch."""

    def __init__(self, group: "Group", tell: Callable[[], None]) -> None:
        self._group, self._tell, self._lock = group, tell, threading.Lock()
        self._wire: pq.abc.PGconn | None = None
        self._written = False
        self._error: Exception | None = None

    def depart(self, run_id: int, statement: Statement, values: list[bytes | None]) -> None:
        """Errors are told when it lands."""
        self._run_id = run_id
        with self._lock, self._to_the_end():
            wire = self._group.ready(statement)
            wire.send_query_prepared(statement.name, values, statement.formats)
            self._wire = wire

    def land(self) -> bool:
        """Wait until it is known whether this is written. Raises Django's database errors: then nobody knows."""
        with self._lock:
            self._take_up()
        if self._error:
            raise self._error
        return self._written

    def make_way(self) -> None:
        """For another thread, which wants to write."""
        with self._lock:
            if self._take_up() and self._written:
                self._tell()

    def look(self) -> None:
        """The same, where that needs no waiting."""
        with suppress(psycopg.Error, OSError, ValueError):  # the connection was closed meanwhile: who lands it hears of it
            if (wire := self._wire) and _is_readable(wire, 0):
                self.make_way()

    def _take_up(self) -> bool:
        """Whether this was the first to do so."""
        if self._wire is None:
            return False
        with self._to_the_end():
            wire, self._wire = self._wire, None
            self._written = self._run_id in _run_ids(_received(wire))
            self._group.landed()
        return True

    @contextmanager
    def _to_the_end(self) -> Iterator[None]:
        """What goes wrong is kept for who lands it, and somebody else gets the pen."""
        try:
            with connection.wrap_database_errors:
                yield
        except BaseException as error:
            self._error = error if isinstance(error, DatabaseError) else InterfaceError("the thread was interrupted")
            self._group.close()
            self._group.landed()
            if not isinstance(error, DatabaseError):
                raise


class Group:
    """Those who wait to write, whether somebody is writing, and the connection for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []
        self._busy = False
        self._database: psycopg.Connection[Any] | None = None
        self._known: set[bytes] = set()  # the statements that are prepared on it
        self.flight: Flight | None = None

    def close(self) -> None:
        if self._database:
            self._database.close()
        self._database = None

    def connect(self) -> None:
        """By a statement about no run, for a process in which nobody writes yet."""
        self._insert([])
        with connection.wrap_database_errors:
            for facts, steps in USUAL:
                self.ready(insert_one(facts, steps))

    def write(self, asked: Write) -> bool:
        turn = _Turn(asked)
        with self._lock:
            turn.leads, self._busy = not self._busy, True
            if not turn.leads:
                self._waiting.append(turn)
        if not turn.leads:
            if flight := self.flight:
                flight.make_way()
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
            self._hand_on()
            for other in together[1:]:
                other.lock.release()

    def _hand_on(self) -> None:
        with self._lock:
            following = self._waiting.pop(0) if self._waiting else None
            self._busy = following is not None
        if following:
            following.leads = True
            following.lock.release()

    def send(self, ready: Encoded, tell: Callable[[], None]) -> Flight | None:
        with self._lock:
            if self._busy:
                return None
            self._busy, self.flight = True, (flight := Flight(self, tell))
        flight.depart(*ready)
        return flight

    def landed(self) -> None:
        self.flight = None
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
            wire = self.ready(statement)
            # psycopg's annotation forgets that a value may be NULL
            found = _answered(wire, wire.exec_prepared(statement.name, values, statement.formats))  # type: ignore[arg-type]
        except psycopg.Error:
            with connection.wrap_database_errors:
                raise
        return _run_ids(found)

    def ready(self, statement: Statement) -> pq.abc.PGconn:
        """The connection, with this statement prepared on it."""
        if self._database is None:
            self._database, self._known = psycopg.connect(**ways()), set()
        wire = self._database.pgconn
        if statement.name not in self._known:
            _answered(wire, wire.prepare(statement.name, statement.text))
            self._known.add(statement.name)
        return wire


def _run_ids(found: pq.abc.PGresult) -> set[int]:
    return {int(found.get_value(row, 0) or 0) for row in range(found.ntuples)}


def _received(wire: pq.abc.PGconn) -> pq.abc.PGresult:
    """The one answer to what was sent. Other threads run while this waits, which they would not in get_result."""
    results = []
    while True:
        while wire.is_busy():
            _is_readable(wire, None)
            wire.consume_input()
        if (result := wire.get_result()) is None:
            break
        results.append(result)
    if not results:
        raise psycopg.OperationalError("the connection was closed before the answer came")
    return _answered(wire, results[0])


def _is_readable(wire: pq.abc.PGconn, most_ms: float | None) -> bool:
    poll = select.poll()
    poll.register(wire.socket, select.POLLIN)
    return bool(poll.poll(most_ms))


def _answered(wire: pq.abc.PGconn, result: pq.abc.PGresult) -> pq.abc.PGresult:
    """The result, or psycopg's error for it."""
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        return result
    error = psycopg.errors.error_from_result(result)
    raise psycopg.OperationalError(str(error)) if wire.status == pq.ConnStatus.BAD else error


def ways() -> dict[str, Any]:
    """As Django connects, but each statement is prepared at its first use, and a transaction of its own."""
    ways = {name: value for name, value in connection.get_connection_params().items() if name != "cursor_factory"}
    options = f"{ways.get('options', '')} {POINT_LOOKUPS}".strip()
    return ways | {"autocommit": True, "prepare_threshold": 0, "options": options}
