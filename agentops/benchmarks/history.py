"""How long verify takes: many logs, made from a few hundred real ones by COPY, each with a chain of its own."""

import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Model

from agentops.benchmarks.agents import STEPS
from runs import audit, commands, event_log, executor
from runs.engine.canonical import dumps
from runs.engine.events import GENESIS, Fact, chain
from runs.models import Run, Step

REAL_RUNS = 200
COLUMNS = ("run_id", "seq", "kind", "step", "actor", "data", "at", "prev_hash", "hash")


class Log(NamedTuple):
    """A real log, each fact with the canonical text of its data."""

    run_id: int
    facts: list[tuple[Fact, str]]


def measure(events: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Make a history of about so many events, and verify it on every processor."""
    begun = time.perf_counter()
    say(f"making {events:,} events")
    made = _up_to(events, _real_logs(min(REAL_RUNS, max(1, events // 50))))
    making = time.perf_counter() - begun
    say(f"made in {making:.0f} s; verifying")
    begun = time.perf_counter()
    *_, (found, _) = audit.verify(processes=os.cpu_count() or 1)
    if found.wrong:
        raise RuntimeError(f"the history that was made is wrong: run {found.run_id}: {found.wrong}")
    seconds = time.perf_counter() - begun
    figures = {"events": found.events, "runs": found.runs, "copies": made, "processes": os.cpu_count() or 1}
    return figures | {"seconds": round(seconds, 1), "events_per_second": round(found.events / seconds)}


def _real_logs(count: int) -> list[Log]:
    """Of runs that have from one to twice the usual number of steps, and of some that wait for a person."""
    logs = []
    for number in range(count):
        given = ("bench-gate", {}) if number % 10 == 9 else ("bench-steps", {"steps": 1 + number % (2 * STEPS)})
        run_id = commands.start(*given, by="bench").pk
        executor.advance(run_id, owner="bench")
        logs.append(log_of(run_id))
    return logs


def _up_to(events: int, logs: list[Log]) -> int:
    """Copies of the logs, one after the other, until there are so many events; how many copies."""
    there, copies = sum(len(log.facts) for log in logs), 0
    for log in cycle(logs):
        if there >= events:
            break
        there, copies = there + len(log.facts), copies + 1
    multiply(logs, copies=copies)
    return copies


def log_of(run_id: int) -> Log:
    return Log(run_id, [(fact, dumps(fact.data)) for fact in event_log.facts(run_id)])


def multiply(logs: list[Log], *, copies: int) -> None:
    """So many copies of the logs, one after the other, with the rows of their runs and steps; their ids follow the highest."""
    first = max(log.run_id for log in logs) + 1
    heads: list[tuple[int, int, str]] = []
    with transaction.atomic(), connection.cursor() as cursor:
        with cursor.copy(f"COPY runs_event ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            for run_id, log in zip(range(first, first + copies), cycle(logs), strict=False):
                rows = list(_rechained(run_id, log))
                for row in rows:
                    copy.write_row(row)
                heads.append((log.run_id, run_id, rows[-1][-1]))
        _copy_rows(cursor, heads)
        cursor.execute("SELECT setval(pg_get_serial_sequence('runs_run', 'id'), (SELECT max(id) FROM runs_run))")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE runs_event, runs_step, runs_run")


def _rechained(run_id: int, log: Log) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS."""
    prev_hash = GENESIS
    for fact, text in log.facts:
        hash_ = chain(run_id, fact.seq, fact.kind, fact.step, fact.actor, text, fact.at, prev_hash)
        yield run_id, fact.seq, fact.kind, fact.step, fact.actor, text, fact.at, prev_hash, hash_
        prev_hash = hash_


def _copy_rows(cursor: Any, heads: list[tuple[int, int, str]]) -> None:
    cursor.execute("CREATE TEMPORARY TABLE copied (from_id bigint, to_id bigint, head text) ON COMMIT DROP")
    with cursor.copy("COPY copied FROM STDIN") as copy:
        for row in heads:
            copy.write_row(row)
    run, step = columns(Run, "id", "head_hash"), columns(Step, "id", "run_id")
    cursor.execute(
        f"INSERT INTO runs_run (id, head_hash, {run}) SELECT to_id, head, {run}"  # noqa: S608 - columns of our models
        " FROM runs_run JOIN copied ON id = from_id"
    )
    cursor.execute(
        f"INSERT INTO runs_step (run_id, {step}) SELECT to_id, {step}"  # noqa: S608
        " FROM runs_step JOIN copied ON run_id = from_id"
    )


def columns(model: type[Model], *but: str) -> str:
    """Of its table, without these."""
    return ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields if field.column and field.column not in but)
