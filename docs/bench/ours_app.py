"""Our rows beside other engines' in a comparison that gives each application a file like this one and a module `common`.

Copy it into the comparison's `peers` directory, name this project in AGENTOPS_HOME, and run it with this project's Python:
$AGENTOPS_HOME/.venv/bin/python peers/ours_app.py inline|multi|queued|latency|human|crash [--runs N] [--conc THREADS] [--procs N]
"""

import argparse
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

HERE = Path(__file__).resolve().parent
HOME = os.environ.get("AGENTOPS_HOME", ".")
sys.path[:0] = [str(HERE.parent), str(HERE), HOME]
import common as C  # type: ignore[import-not-found]  # noqa: E402 - as its other users call it

DB = os.environ.get("BENCH_DB", "b_ours")
os.environ |= {
    "DATABASE_URL": C.dsn(DB),
    "REDIS_URL": f"redis://127.0.0.1:{C.REDIS_PORT}/3",
    "AGENT_APPS": "ours_app",
    "AGENTOPS_ENV": "development",
    "SECRET_KEY": "of a benchmark, and of nothing else",
    "LOG_LEVEL": "ERROR",
    "DJANGO_SETTINGS_MODULE": "agentops.settings",
    "PYTHONPATH": os.pathsep.join(sys.path[:3]),
}
gaps = C.Gaps()


def declare() -> None:
    """The agents; a job process imports this file as an app."""
    from pydantic import BaseModel

    from runs.sdk import Run, agent, current_step, worker

    class Given(BaseModel):
        payload: dict[str, Any] = {}

    class Done(BaseModel):
        payload: dict[str, Any]

    @worker
    def act(payload: dict[str, Any], number: int) -> dict[str, Any]:
        gaps.step()
        return C.work(payload, number)  # type: ignore[no-any-return]

    @worker
    def tell(event: str) -> str:
        C.event(event, current_step().key.partition(":")[0])
        return event

    @worker
    def slow(payload: dict[str, Any], number: int) -> dict[str, Any]:
        run = current_step().key.partition(":")[0]
        C.event("start", run, number)
        time.sleep(0.2)
        C.event("end", run, number)
        return C.work(payload, number)  # type: ignore[no-any-return]

    @agent("run10", title="Ten steps", version="1")
    def run10(run: Run, given: Given) -> Done:
        """Ten steps of 1 KB."""
        payload = given.payload
        for number in range(C.STEPS):
            payload = run.step(f"s{number}", act, payload=payload, number=number)
        return Done(payload=payload)

    @agent("slow10", title="Ten slow steps", version="1")
    def slow10(run: Run, given: Given) -> Done:
        """Ten steps of 0.2 s."""
        payload = given.payload
        for number in range(C.STEPS):
            payload = run.step(f"s{number}", slow, payload=payload, number=number)
        return Done(payload=payload)

    @agent("first", title="First", version="1")
    def first(run: Run, given: Given) -> Done:
        """One step."""
        return Done(payload={"said": run.step("m", tell, event="first")})

    @agent("human", title="A person", version="1")
    def human(run: Run, given: Given) -> Done:
        """One step that a person approves."""
        return Done(payload={"said": run.step("after", tell.gated("A person is asked."), event="resumed")})


def setup() -> None:
    """The agents are those of the file as it was imported, and so are the gaps that they note."""
    global gaps
    import django

    django.setup()
    gaps = sys.modules["ours_app"].gaps


def reset() -> None:
    C.newdb(DB)
    C.clear_events()
    manage("migrate", "--verbosity", "0").wait()
    setup()
    import django_rq

    django_rq.get_connection("default").flushdb()


def manage(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    return C.spawn([sys.executable, str(Path(HOME).resolve() / "manage.py"), *arguments], env=environment)  # type: ignore[no-any-return]


def start(slug: str, *, queued: bool = True) -> int:
    import django_rq

    from runs import commands

    run = commands.start(slug, {"payload": C.payload()}, by="bench")
    if not queued:
        django_rq.get_queue("default").empty()  # type: ignore[no-untyped-call]
    return run.pk


def workers(count: int, threads: int) -> "list[subprocess.Popen[bytes]]":
    import django_rq
    from rq import Worker

    started = [manage("rqworker", "default", JOB_THREADS=str(threads)) for _ in range(count)]
    redis = django_rq.get_connection("default")
    while len({worker.pid for worker in Worker.all(connection=redis)} & {one.pid for one in started}) < count:
        time.sleep(0.05)
    return started


def advance(runs: "SimpleQueue[int]") -> None:
    from runs import executor

    while True:
        try:
            run_id = runs.get_nowait()
        except Empty:
            return
        gaps.run_start()
        executor.advance(run_id, owner=f"{os.getpid()}-{threading.get_ident()}")


def queue_of(ids: list[int]) -> "SimpleQueue[int]":
    runs: SimpleQueue[int] = SimpleQueue()
    for run_id in ids:
        runs.put(run_id)
    return runs


# --- measures -------------------------------------------------------------------------------------------------------


def inline(a: argparse.Namespace) -> None:
    reset()
    advance(queue_of([start("run10", queued=False) for _ in range(5)]))
    runs = queue_of([start("run10", queued=False) for _ in range(a.runs)])
    gaps.xs.clear()
    c0, g0, begun = C.begin(DB)
    advance(runs)
    steps, took = a.runs * C.STEPS, time.perf_counter() - begun
    rate, step = round(steps / took, 1), C.ms(gaps.xs)
    C.out(peer="agentops", measure="inline", steps_s=rate, step=step, **C.cpus(c0, g0, steps), rss_mb=C.peak_mb())


def bulk(a: argparse.Namespace) -> None:
    """A child of `multi`."""
    setup()
    ids = [start("run10", queued=False) for _ in range(a.runs + a.conc)]
    advance(queue_of(ids[: a.conc]))
    runs = queue_of(ids[a.conc :])
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    sys.stdin.readline()
    c0, t0 = C.cpu_s(), time.time()
    threads = [threading.Thread(target=advance, args=(runs,)) for _ in range(a.conc)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"SPAN {t0} {time.time()} {a.runs * C.STEPS} {C.peak_mb()} {C.cpu_s() - c0}\n")


def multi(a: argparse.Namespace) -> None:
    reset()
    command = [sys.executable, __file__, "bulk", "--runs", str(a.runs // a.procs), "--conc", str(a.conc)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen(command, text=True, **pipes) for _ in range(a.procs)]  # type: ignore[call-overload]
    C.finish_multi(children, peer="agentops", procs=a.procs, conc=a.conc)


def queued(a: argparse.Namespace) -> None:
    reset()
    from runs import dispatch
    from runs.models import Run

    ids = [start("run10", queued=False) for _ in range(a.runs)]
    started, g0 = workers(a.procs, a.conc), C.pg_cpu_s()
    try:
        dispatch.enqueue_now([dispatch.Call(run_id, 1) for run_id in ids])
        while Run.objects.ended().count() < a.runs:
            time.sleep(0.05)
        rows = Run.objects.values_list("started_at", "finished_at")
        took = (max(end for _, end in rows if end) - min(begin for begin, _ in rows if begin)).total_seconds()
        memory, cpu = max(C.peak_mb(one.pid) for one in started), sum(C.cpu_s(one.pid) for one in started)
    finally:
        for one in started:
            C.kill9(one)
    steps = a.runs * C.STEPS
    cost = {"cpu_ms_step": round(cpu / steps * 1e3, 3), "pg_cpu_ms_step": round((C.pg_cpu_s() - g0) / steps * 1e3, 3)}
    C.out(peer="agentops", measure="queued", procs=a.procs, conc=a.conc, steps_s=round(steps / took, 1), rss_mb=memory, **cost)


def latency(a: argparse.Namespace) -> None:
    reset()
    started, waits = workers(1, 4), []
    try:
        for _ in range(a.n):
            time.sleep(random.uniform(0.1, 0.6))  # noqa: S311
            C.clear_events()
            begun = time.time()
            start("first")
            waits.append(told("first")["t"] - begun)
    finally:
        C.kill9(started[0])
    C.out(peer="agentops", measure="latency", **C.ms(waits))


def human(a: argparse.Namespace) -> None:
    reset()
    from runs import commands, event_log
    from runs.models import Run

    started, waits = workers(1, 4), []
    try:
        for _ in range(a.n):
            run_id = start("human")
            while not Run.objects.filter(pk=run_id, status="waiting").exists():
                time.sleep(0.01)
            time.sleep(random.uniform(0.5, 1.2))  # noqa: S311
            C.clear_events()
            seen, begun = commands.seen(event_log.RunLog.load(run_id).state.steps[1]), time.time()
            commands.decide(run_id, 1, "approve", by="bench", fingerprint=seen)
            waits.append(told("resumed")["t"] - begun)
    finally:
        C.kill9(started[0])
    C.out(peer="agentops", measure="human", **C.ms(waits))


def crash(a: argparse.Namespace) -> None:
    """The job process is killed; another one is started at once, the sweeper runs on."""
    reset()
    started, sweeper = workers(1, a.runs), manage("sweeper")
    try:
        ids = [str(start("slow10")) for _ in range(a.runs)]
        C.wait_mid_step(a.runs)
        killed = time.time()
        C.kill9(started[0])
        started = [manage("rqworker", "default", JOB_THREADS=str(a.runs))]
        ended = {"e": "end", "k": C.STEPS - 1}
        C.wait_events(lambda e: sum(ended.items() <= one.items() for one in e) >= a.runs, a.wait, poll=0.1)
    finally:
        for one in (*started, sweeper):
            C.kill9(one)
    C.out(peer="agentops", measure="crash", **C.crash_report(C.events(), ids, killed, killed))


def told(event: str) -> dict[str, Any]:
    return C.wait_events(lambda e: next((one for one in e if one["e"] == event), None), 30)  # type: ignore[no-any-return]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    measures = {one.__name__: one for one in (inline, bulk, multi, queued, latency, human, crash)}
    parser.add_argument("measure", choices=measures)
    for name, default in (("runs", 100), ("conc", 8), ("procs", 2), ("n", 25), ("wait", 60)):
        parser.add_argument(f"--{name}", default=default, type=int)
    arguments = parser.parse_args()
    measures[arguments.measure](arguments)
    sys.stdout.flush()
    os._exit(0)
else:
    declare()
