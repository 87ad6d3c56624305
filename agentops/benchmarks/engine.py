"""What the durable engine costs: steps per second, overhead, and how soon things happen."""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import django_rq
import psycopg
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from rq import Worker
from websockets.asyncio.client import connect

from agentops import people
from agentops.benchmarks.agents import PAYLOAD, STEPS
from reviews import decisions
from reviews.models import Review
from runs import commands, event_log
from runs.engine.events import Kind
from runs.models import Run

BASELINE_INSERTS = 400
PATIENCE_SECONDS = 120.0
PAGES = 10
Figures = dict[str, Any]


def measure(*, rounds: int, runs: int, say: Callable[[str], None]) -> Figures:
    """Take every figure `rounds` times, each between two baselines, and return medians (rates per second, times in ms)."""
    people.ensure_groups()
    taken: list[Figures] = []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        taken.append(_round(runs))
    return {"rounds": rounds, "runs_per_round": runs, "steps_per_run": STEPS} | _medians(taken)


def _round(runs: int) -> Figures:
    figures: Figures = {}
    for processes in (1, 2):
        before = _baseline()
        rate, gaps = _throughput(processes, runs)
        baseline = statistics.mean([before, _baseline()])
        figures |= {f"steps_per_second_{processes}": rate, f"ratio_{processes}": rate / baseline}
        figures |= {f"baseline_inserts_per_second_{processes}": baseline}
        figures |= _spread(f"step_overhead_ms_{processes}", gaps)
    with _processes("rqworker default --verbosity 0"):
        figures |= _spread("start_to_first_step_ms", [_start_to_first_step() for _ in range(20)])
        figures |= _spread("decision_to_next_step_ms", [_decision_to_next_step() for _ in range(20)])
        figures |= _spread("event_to_page_ms", _event_to_page())
    return figures


def _baseline() -> float:
    """Committed INSERTs of 1 KB of jsonb per second, one connection, psycopg alone."""
    database = connection.get_connection_params()
    database.pop("cursor_factory", None)
    database.pop("context", None)
    with psycopg.connect(**database, autocommit=True) as plain:
        plain.execute("CREATE TABLE IF NOT EXISTS bench_baseline (id bigserial PRIMARY KEY, data jsonb)")
        data = json.dumps({"payload": PAYLOAD})
        begun = time.perf_counter()
        for _ in range(BASELINE_INSERTS):
            plain.execute("INSERT INTO bench_baseline (data) VALUES (%s::jsonb)", [data])
        return BASELINE_INSERTS / (time.perf_counter() - begun)


def _throughput(processes: int, runs: int) -> tuple[float, list[float]]:
    """Steps per second from the first start to the last end, and the milliseconds from each step's start to the next's."""
    with _processes(*["rqworker default --verbosity 0"] * processes):
        started = [commands.start("bench-steps", {}, by="").pk for _ in range(runs)]
        _until(lambda: Run.objects.filter(pk__in=started).ended().count() == runs)
    rows = Run.objects.filter(pk__in=started)
    begun = min(run.started_at for run in rows if run.started_at)
    seconds = (max(run.finished_at for run in rows if run.finished_at) - begun).total_seconds()
    gaps = [gap for run_id in started for gap in _gaps(run_id)]
    return runs * STEPS / seconds, gaps


def _gaps(run_id: int) -> Iterator[float]:
    starts = [fact.at for fact in event_log.facts(run_id) if fact.kind == Kind.STEP_STARTED]
    for earlier, later in pairwise(starts):
        yield _milliseconds(earlier, later)


def _start_to_first_step() -> float:
    run = commands.start("bench-steps", {}, by="")
    _until(lambda: Run.objects.get(pk=run.pk).ended)
    return _between(run.pk, Kind.RUN_REQUESTED, Kind.STEP_STARTED)


def _decision_to_next_step() -> float:
    run = commands.start("bench-gate", {}, by="")
    _until(lambda: Review.objects.filter(run=run).exists())
    review = Review.objects.get(run=run)
    decisions.decide(review.pk, actor=_somebody(), kind="approve", seen=review.fingerprint)
    _until(lambda: Run.objects.get(pk=run.pk).ended)
    return _between(run.pk, Kind.STEP_DECIDED, Kind.ATTEMPT_STARTED)


def _event_to_page() -> list[float]:
    """From the time of the newest event in a message to its arrival at a browser's socket, over some runs."""
    port = _free_port()
    arguments = f"-m uvicorn agentops.asgi:application --host 127.0.0.1 --port {port} --log-level warning"
    with _child(sys.executable, *arguments.split()):
        _until(lambda: _answers(port))
        return [late for _ in range(PAGES) for late in _page(port)]


def _page(port: int) -> list[float]:
    """One run that waits at its gate, a page that looks at it, and a decision."""
    run = commands.start("bench-gate", {}, by="")
    _until(lambda: Review.objects.filter(run=run).exists())
    seen = asyncio.run(_look(port, run.pk, Review.objects.get(run=run)))
    times = {fact.seq: fact.at for fact in event_log.facts(run.pk)}
    return [_milliseconds(times[seq], at) for seq, at in seen.items()]


async def _look(port: int, run_id: int, review: Review) -> dict[int, datetime]:
    """Sequence number -> database time at which the socket brought it, for what follows the decision."""
    cursor, actor, session = await asyncio.to_thread(lambda: (_row(run_id).last_seq, _somebody(), _session()))
    headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session}", "Origin": f"http://127.0.0.1:{port}"}
    seen: dict[int, datetime] = {}
    url = f"ws://127.0.0.1:{port}/ws/runs/{run_id}/?after={cursor}"
    async with connect(url, additional_headers=headers) as page:
        deciding = asyncio.to_thread(decisions.decide, review.pk, actor=actor, kind="approve", seen=review.fingerprint)
        await deciding
        row = await asyncio.to_thread(_row, run_id)
        while not row.ended or row.last_seq not in seen:
            message = json.loads(await asyncio.wait_for(page.recv(), PATIENCE_SECONDS))
            if (seq := message.get("seq") or 0) > cursor:
                seen.setdefault(seq, await asyncio.to_thread(event_log.now))
            row = await asyncio.to_thread(_row, run_id)
    return seen


def _row(run_id: int) -> Run:
    return Run.objects.get(pk=run_id)


# --- processes ----------------------------------------------------------------------------------------------------


@contextmanager
def _processes(*commands_: str) -> Iterator[None]:
    """Job processes, ready before the block begins and ended (by id) with it."""
    children = [subprocess.Popen([sys.executable, "manage.py", *command.split()], **_ways()) for command in commands_]
    try:
        redis = django_rq.get_connection("default")
        _until(lambda: Worker.count(connection=redis) >= len(children))
        yield
    finally:
        for child in children:
            _end(child)


@contextmanager
def _child(*arguments: str) -> Iterator[None]:
    child = subprocess.Popen(arguments, **_ways())
    try:
        yield
    finally:
        _end(child)


def _ways() -> dict[str, Any]:
    quiet = os.environ | {"LOG_LEVEL": "ERROR"}
    return {"cwd": settings.BASE_DIR, "env": quiet, "start_new_session": True, "stdout": subprocess.DEVNULL}


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- numbers ------------------------------------------------------------------------------------------------------


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"the benchmark waited {PATIENCE_SECONDS:g} s in vain; look into the log of the job process")
        time.sleep(0.02)


def _between(run_id: int, first: Kind, then: Kind) -> float:
    at = {fact.kind: fact.at for fact in reversed(event_log.facts(run_id))}
    return _milliseconds(at[first], at[then])


def _milliseconds(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() * 1000


def _spread(name: str, values: list[float]) -> Figures:
    ordered = sorted(values)
    return {f"{name}_p50": statistics.median(ordered), f"{name}_p95": ordered[int(0.95 * (len(ordered) - 1))]}


def _medians(taken: list[Figures]) -> Figures:
    return {name: round(statistics.median(figures[name] for figures in taken), 3) for name in taken[0]}


def _somebody() -> User:
    return people.ensure_account("operator", "not used")


def _session() -> str:
    user = _somebody()
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session.create()
    return str(session.session_key)
