"""How this process writes runs and their events, and its connections for that."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections, transaction
from django.db import Error as DatabaseError
from psycopg_pool import ConnectionPool  # noqa: TID251 - to our own database

from runs.projections import CREATE, INSERT, KEEP, Birth, Write, birth_values, prepared, statement_values
from runs.together import Encoded, Flight, Group, ways

ASKED_SECONDS = 5.0  # for how long the server is asked about a commit whose reply was lost
Rows = list[tuple[Any, ...]]
T = TypeVar("T")


def execute(statement: str, values: dict[str, Any]) -> Rows:
    """Within a transaction on its connection, else on one of this process's own, which is held for this statement only.

    It is prepared on the server, where Django has each planned anew. Raises Django's database errors.
    """
    with connection.wrap_database_errors, _connection() as used:
        return psycopg.Cursor(used).execute(statement, values).fetchall()


def write(asked: Write) -> bool:
    """Carry out this write, perhaps together with others; False where its run has moved on or its lease is lost."""
    if connection.in_atomic_block:
        return bool(execute(INSERT, statement_values([asked], settings.LEASE_SECONDS)))
    return _group.write(asked)


def encoded(asked: Write) -> Encoded:
    """As `send` takes it: encoding takes as long as an answer."""
    return asked.run_id, *prepared([asked], settings.LEASE_SECONDS)


def send(ready: Encoded, tell: Callable[[], None]) -> Flight | None:
    """Begin to write this and do not wait; None while somebody writes, or within a transaction.

    `tell` is called where another thread than the one that lands it finds that it is written.
    """
    return None if connection.in_atomic_block else _group.send(ready, tell)


def look() -> None:
    """Take up an answer that is there, and that nobody asks for because who sent it is busy."""
    if flight := _group.flight:
        flight.look()


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


# --- connections ------------------------------------------------------------------------------------------------


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
            _pool = ConnectionPool(kwargs=ways(), min_size=1, max_size=settings.JOB_CONNECTIONS, timeout=10, open=True)
        return _pool


_pool: "ConnectionPool[psycopg.Connection[Any]] | None" = None
_opening = threading.Lock()
_group = Group()


def _after_fork() -> None:
    """Neither connections nor those who wait for the pen survive a fork."""
    global _pool, _opening, _group
    _pool, _opening, _group = None, threading.Lock(), Group()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
