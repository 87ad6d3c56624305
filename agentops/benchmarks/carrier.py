"""A process that advances runs itself, without a queue, in as many threads as asked: `python -m agentops.benchmarks.carrier`.

It is told on stdin the ids of runs to warm up with, then those of its runs, says READY, waits for a line, and prints what
it measured as one line of JSON.
"""

import itertools
import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")
TRACE = "AGENTOPS_BENCH_TRACE"  # where counting is asked for, a directory for the messages of the PostgreSQL protocol


def main(threads: int) -> None:
    import django

    django.setup()
    from agentops.benchmarks import marks
    from runs import executor, live

    traced = _trace_connections() if os.environ.get(TRACE) else []
    if os.environ.get(TRACE):
        _ask_once()
    _in_threads(threads, _heard(), executor.advance)
    runs, marks.moments = _heard(), {}
    _say("READY")
    sys.stdin.readline()
    begun, cpu = time.time(), time.process_time()
    _in_threads(threads, runs, executor.advance)
    live.flush()
    figures = {"begun": begun, "ended": time.time(), "cpu_seconds": time.process_time() - cpu, "gaps_ms": _gaps(marks.moments)}
    for one in (one for one in traced if not one.closed):
        one.pgconn.untrace()  # which empties libpq's buffer: who ends this process does not wait for that
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say(json.dumps(figures))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _heard() -> "queue.SimpleQueue[int]":
    runs: queue.SimpleQueue[int] = queue.SimpleQueue()
    for run_id in json.loads(sys.stdin.readline()):
        runs.put(run_id)
    return runs


def _in_threads(count: int, runs: "queue.SimpleQueue[int]", advance: Callable[..., None]) -> None:
    if count == 1:
        return _carry(runs, advance)
    threads = [threading.Thread(target=_carry, args=(runs, advance)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return None


def _carry(runs: "queue.SimpleQueue[int]", advance: Callable[..., None]) -> None:
    name = f"bench-{os.getpid()}-{threading.get_ident()}"
    while True:
        try:
            run_id = runs.get_nowait()
        except queue.Empty:
            return
        advance(run_id, owner=name)


def _gaps(moments: dict[str, list[float]]) -> list[float]:
    """Milliseconds from the call of one step's worker to the call of the next step's."""
    return [(later - earlier) * 1000 for times in moments.values() for earlier, later in pairwise(times)]


def _ask_once() -> None:
    """What is asked of the database every few seconds costs by the second, not by the step."""
    from runs import clock
    from runs.reliability import budget

    clock.LOOK_SECONDS = budget.FRESH_SECONDS = float("inf")


def _trace_connections() -> list[Any]:
    """Every connection that psycopg opens from now on writes its messages to a file of its own, and is in the list."""
    import psycopg
    from psycopg import pq

    numbers, traced = itertools.count(), list[Any]()
    open_one = psycopg.Connection.connect.__func__  # type: ignore[attr-defined]

    def connect(cls: Any, *args: Any, **kwargs: Any) -> Any:
        opened = open_one(cls, *args, **kwargs)
        file = os.open(f"{os.environ[TRACE]}/{next(numbers)}", os.O_WRONLY | os.O_CREAT, 0o600)
        opened.pgconn.trace(file)
        opened.pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        traced.append(opened)
        return opened

    psycopg.Connection.connect = classmethod(connect)  # type: ignore[assignment]
    psycopg.connect = psycopg.Connection.connect
    return traced


if __name__ == "__main__":
    main(int(sys.argv[1]))
