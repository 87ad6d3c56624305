"""Many runs that wait, and runs whose process is killed."""

import time

from django.db import connection

from agentops.benchmarks import marks
from agentops.benchmarks.figures import Taken, spread
from agentops.benchmarks.processes import Child, job_processes, kill, peak_mb, pids_of, process, until
from agentops.benchmarks.throughput import prepared
from runs import commands, dispatch
from runs.models import Run

RUNS_AT_A_KILL = 8
ENDLESS = 10_000  # steps: the runs are cancelled


def waiting(*, runs: int, steps: int, seconds: float, threads: int) -> Taken:
    """Runs whose steps wait for the outside, in two job processes: steps per second, their memory, their connections."""
    ids, connections = prepared(runs, steps=steps, seconds=seconds), 0
    with job_processes(2, threads=threads) as children:
        begun = time.perf_counter()
        dispatch.enqueue_now([dispatch.Call(run_id, 1) for run_id in ids])
        while (ended := Run.objects.filter(pk__in=ids).ended().count()) < runs:
            connections = max(connections, _connections())
            _check(children, f"{ended} of {runs} runs have ended")
            time.sleep(0.25)
        taken = time.perf_counter() - begun
        memory = peak_mb(children)
    return {
        "waiting_steps_per_second": runs * steps / taken,
        "waiting_peak_mb": memory,
        "waiting_connections": float(connections),
    }


def takeover(kills: int) -> Taken:
    """Seconds from kill -9 of one of two job processes until each of its runs has a step called in the other."""
    with process("manage.py", "sweeper"):
        return spread("takeover_seconds", [late for _ in range(kills) for late in _one_kill()])


def _one_kill() -> list[float]:
    with marks.kept(), job_processes(2, threads=RUNS_AT_A_KILL) as children:
        ids = prepared(RUNS_AT_A_KILL, steps=ENDLESS, seconds=0.1)
        dispatch.enqueue_now([dispatch.Call(run_id, 1) for run_id in ids])
        until(lambda: len(marks.of_latest()) == len(ids))
        victim = next(child for child in children if set(marks.of_latest().values()) & pids_of(child))
        killed = pids_of(victim)
        kill(victim)
        at, orphans = time.time(), {run_id for run_id, pid in marks.of_latest().items() if pid in killed}
        until(lambda: orphans <= _called_after(at).keys())
        waits = [_called_after(at)[run_id] - at for run_id in orphans]
        for run_id in ids:
            commands.cancel(run_id, by="")
        until(lambda: Run.objects.filter(pk__in=ids).ended().count() == len(ids))
    return waits


def _called_after(at: float) -> dict[int, float]:
    """Run -> when a worker was first called for it after that moment; what was killed calls none."""
    return {mark.run_id: mark.at for mark in reversed(marks.read()) if mark.at > at}


def _connections() -> int:
    """Of everybody but this process, in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def _check(children: list[Child], how_far: str) -> None:
    if any(child.poll() is not None for child in children):
        raise RuntimeError(f"a job process of the benchmark ended by itself when {how_far}")
