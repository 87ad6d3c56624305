"""The ledger: a database on a server of its own plays the outside world of a trial, and no fault reaches it."""

import os
import threading
from typing import Any

import psycopg

LEDGER = "AGENTOPS_CHAOS_LEDGER"  # its URL, in the environment of every process of a trial
STEP_SECONDS = "AGENTOPS_CHAOS_STEP_SECONDS"  # how long an effect takes after it has happened
CREATE = """CREATE TABLE effect (id bigserial PRIMARY KEY, run_id bigint, step text, errand text, effect text, key text,
  attempt int, pid int, at timestamptz DEFAULT clock_timestamp()); CREATE INDEX ON effect (key)"""
WRITE = "INSERT INTO effect (run_id, step, errand, effect, key, attempt, pid) VALUES (%s, %s, %s, %s, %s, %s, %s)"
COLUMNS = ("run_id", "step", "errand", "effect", "key", "attempt", "pid", "at")
_thread = threading.local()


def create() -> None:
    _execute(CREATE)


def write(*, errand: str, effect: str, key: str, attempt: int) -> None:
    """Note that the effect has happened. Two of one key are two rows: who repeats what shows in the judgement."""
    run_id, _, step = key.partition(":")
    _execute(WRITE, (int(run_id), step, errand, effect, key, attempt, os.getpid()))


def happened(key: str) -> bool:
    """What somebody finds out who looks it up outside."""
    return bool(_execute("SELECT 1 FROM effect WHERE key = %s LIMIT 1", (key,)).fetchone())


def rows() -> list[dict[str, Any]]:
    """Every effect so far, in order."""
    found = _execute(f"SELECT {', '.join(COLUMNS)} FROM effect ORDER BY id").fetchall()  # noqa: S608 - a constant
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def forget() -> None:
    """The world begins anew: what happens from now on is judged by itself."""
    _execute("TRUNCATE effect")


def _execute(statement: str, values: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
    return _connection().execute(statement, values or None)


def _connection() -> psycopg.Connection[Any]:
    """One for each thread; a connection is never shared with the process that it was forked from."""
    if getattr(_thread, "pid", None) != os.getpid():
        _thread.connection, _thread.pid = psycopg.connect(os.environ[LEDGER], autocommit=True), os.getpid()
    return _thread.connection  # type: ignore[no-any-return]
