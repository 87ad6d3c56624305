"""Durable steps per second: what processes and threads reach, and what a step costs the database."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import django_rq
from django.db import connection

from agentops.benchmarks import processes
from agentops.benchmarks.agents import STEPS
from agentops.benchmarks.carrier import TRACE
from agentops.benchmarks.figures import Taken, spread
from runs import commands, dispatch
from runs.models import Run

COUNTED_RUNS = 10
WARM_UP = 2  # runs for each thread
LONGER = 3 * STEPS


@dataclass(frozen=True, slots=True)
class Rate:
    """Steps per second, and the CPU time of one step in milliseconds."""

    steps_per_second: float
    client_ms: float
    server_ms: float


def in_process(*, runs: int, processes_: int, threads: int) -> tuple[Rate, processes.Carried]:
    """Processes that call executor.advance themselves."""
    warm_up, ids = prepared(processes_ * threads * WARM_UP), prepared(runs)
    before = processes.server_cpu_seconds()
    carried = processes.carry(ids, warm_up=warm_up, processes=processes_, threads=threads)
    server = processes.server_cpu_seconds() - before
    _all_succeeded(ids)
    steps = runs * STEPS
    return Rate(steps / carried.seconds, carried.cpu_seconds / steps * 1000, server / steps * 1000), carried


def through_rq(*, runs: int, processes_: int, threads: int) -> float:
    """Job processes that get the runs from the queue, from the first run's start to the last one's end."""
    ids = prepared(runs)
    with processes.job_processes(processes_, threads=threads):
        dispatch.enqueue_now([dispatch.Call(run_id, 1) for run_id in ids])
        processes.until(lambda: Run.objects.filter(pk__in=ids).ended().count() == runs, look_seconds=0.1)
    _all_succeeded(ids)
    with connection.cursor() as cursor:
        taken = "SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM runs_run WHERE id = ANY(%s)"
        cursor.execute(taken, [ids])
        return runs * STEPS / float(cursor.fetchone()[0])


def prepared(runs: int, *, steps: int = STEPS, seconds: float = 0.0) -> list[int]:
    """Runs that have been started and stand on no queue."""
    ids = [commands.start("bench-steps", {"steps": steps, "seconds": seconds}, by="").pk for _ in range(runs)]
    django_rq.get_queue("default").empty()  # type: ignore[no-untyped-call]
    return ids


def one_thread(runs: int) -> Taken:
    rate, carried = in_process(runs=runs, processes_=1, threads=1)
    taken = {"steps_per_second_1x1": rate.steps_per_second, "client_cpu_ms_per_step": rate.client_ms}
    return taken | {"server_cpu_ms_per_step": rate.server_ms, "peak_mb_1x1": carried.peak_mb} | spread("gap_ms", carried.gaps_ms)


# --- counted ------------------------------------------------------------------------------------------------------


NO_RENEWAL = {"LEASE_SECONDS": "600", "LEASE_RENEW_SECONDS": "200"}  # it costs by the second, not by the step


def counts() -> Taken:
    """Per step, from runs of 30 steps less runs of 10: what a run costs once is not in it."""
    short, long = _counted(STEPS), _counted(LONGER)
    steps = COUNTED_RUNS * (LONGER - STEPS)
    return {f"{name}_per_step": (long[name] - short[name]) / steps for name in long}


def _counted(steps: int) -> Counter[str]:
    ids = prepared(COUNTED_RUNS, steps=steps)
    with tempfile.TemporaryDirectory() as directory:
        before = _written_bytes()
        processes.carry(ids, warm_up=[], processes=1, threads=1, environment={TRACE: directory} | NO_RENEWAL)
        counted = _written_bytes()
        counted.subtract(before)
        for trace in Path(directory).iterdir():
            counted.update(_messages(trace))
    _all_succeeded(ids)
    return counted


def _messages(trace: Path) -> Counter[str]:
    """Statements that were sent, how often their sender waited for an answer, and what was committed."""
    with trace.open(errors="replace") as lines:
        return counted_messages(lines)


def counted_messages(lines: Iterable[str]) -> Counter[str]:
    """Of a trace as libpq writes it. A wait is a Sync or a simple query; a transaction has ended when the server has
    completed something and is then ready in no transaction (I), which it also says, completing nothing, after it was
    connected to and after a Parse alone.
    """
    counted, completed = Counter[str](statements=0, round_trips=0, commits=0), False
    for line in lines:
        if not line.startswith(("F\t", "B\t")):  # text of a message that goes over several lines
            continue
        direction, _, message, *rest = line.rstrip("\n").split("\t")
        if direction == "F":
            counted["statements"] += message in ("Execute", "Query")
            counted["round_trips"] += message in ("Sync", "Query")
        elif message == "CommandComplete":
            completed = True
        elif message == "ReadyForQuery":
            counted["commits"] += completed and rest[-1].strip() == "I"
            completed = False
    return counted


def _written_bytes() -> Counter[str]:
    """Of write-ahead log, by everybody on the server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return Counter({"wal_bytes": cursor.fetchone()[0]})


def _all_succeeded(ids: list[int]) -> None:
    if failed := Run.objects.filter(pk__in=ids).exclude(status="succeeded").first():
        raise RuntimeError(f"run {failed.pk} of the benchmark is {failed.status}: {failed.error} (process {os.getpid()})")
