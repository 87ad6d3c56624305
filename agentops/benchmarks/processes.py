"""Processes that a benchmark starts, ends by their id, and asks the kernel about."""

import json
import os
import signal
import socket  # noqa: TID251 - a free port
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django_rq
from django.conf import settings
from django.db import connection
from rq import Worker

PATIENCE_SECONDS = 90.0
GRACE_SECONDS = 30
TICKS = os.sysconf("SC_CLK_TCK")
Child = subprocess.Popen[str]


def until(true: Callable[[], object], *, look_seconds: float = 0.02) -> None:
    """Return as soon as it is true. Raises TimeoutError when that does not come."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"the benchmark waited {PATIENCE_SECONDS:g} s in vain; look into the log of the job process")
        time.sleep(look_seconds)


# --- processes ----------------------------------------------------------------------------------------------------


@contextmanager
def job_processes(count: int, *, threads: int = 8, environment: dict[str, str] | None = None) -> Iterator[list[Child]]:
    """Job processes, ready before the block begins and ended with it."""
    more = {"JOB_THREADS": str(threads)} | (environment or {})
    children = [_start("manage.py", "rqworker", "default", "--verbosity", "0", environment=more) for _ in range(count)]
    try:
        redis = django_rq.get_connection("default")
        until(lambda: sum(_alive(worker.pid, children) for worker in Worker.all(connection=redis)) >= count)
        yield children
    finally:
        _end_all(children)


@contextmanager
def process(*arguments: str, piped: bool = False) -> Iterator[Child]:
    """One other process of Python; `piped`: it can be told lines, and heard."""
    child = _start(*arguments, piped=piped)
    try:
        yield child
    finally:
        _end_all([child])


@contextmanager
def web() -> Iterator[int]:
    """The web server on a free port, which answers before the block begins."""
    with web_process() as (port, _):
        yield port


@contextmanager
def web_process() -> Iterator[tuple[int, Child]]:
    """The same, with its process."""
    port = _free_port()
    where = f"--host 127.0.0.1 --port {port} --log-level warning --ws-per-message-deflate false"
    arguments = f"-m uvicorn agentops.asgi:application {where}"
    with process(*arguments.split()) as child:
        until(lambda: _answers(port))
        yield port, child


def kill(child: Child) -> None:
    """kill -9, with all that it forked."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True, slots=True)
class Carried:
    """What carriers measured together. `seconds`: from the first one's begin to the last one's end."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    gaps_ms: list[float]


def carry(
    runs: Sequence[int], *, warm_up: Sequence[int], processes: int, threads: int, environment: dict[str, str] | None = None
) -> Carried:
    """Have the runs advanced by carriers (agentops.benchmarks.carrier), each with its share of them, all begun at once."""
    module = ("-m", "agentops.benchmarks.carrier", str(threads))
    children = [_start(*module, piped=True, environment=environment) for _ in range(processes)]
    try:
        for number, child in enumerate(children):
            tell(child, json.dumps(warm_up[number::processes]))
            tell(child, json.dumps(runs[number::processes]))
        for child in children:
            heard(child)
        for child in children:
            tell(child, "go")
        said = [json.loads(heard(child)) for child in children]
    finally:
        _end_all(children)
    return Carried(
        seconds=max(one["ended"] for one in said) - min(one["begun"] for one in said),
        cpu_seconds=sum(one["cpu_seconds"] for one in said),
        peak_mb=sum(one["peak_mb"] for one in said),
        gaps_ms=[gap for one in said for gap in one["gaps_ms"]],
    )


def _start(*arguments: str, piped: bool = False, environment: dict[str, str] | None = None) -> Child:
    pipe = subprocess.PIPE if piped else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=settings.BASE_DIR, env=os.environ | (environment or {}),
        start_new_session=True, stdin=pipe, stdout=pipe, text=True,
    )  # fmt: skip


def tell(child: Child, line: str) -> None:
    if child.stdin:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()


def heard(child: Child) -> str:
    line = child.stdout.readline() if child.stdout else ""
    if not line:
        raise RuntimeError("a process of the benchmark ended early; what it said stands above")
    return line


def _alive(pid: int | None, children: list[Child]) -> bool:
    return any(child.pid == pid and child.poll() is None for child in children)


def _end_all(children: list[Child]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            kill(child)
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()


# --- what the kernel knows ------------------------------------------------------------------------------------------


def peak_mb(children: list[Child]) -> float:
    """The largest resident memory that these processes, and what they forked, have had, summed."""
    return sum(_status_kb(pid, "VmHWM") for child in children for pid in pids_of(child)) / 1024


def memory_mb(child: Child) -> float:
    """The resident memory of this process, without what it forked."""
    return _status_kb(child.pid, "VmRSS") / 1024


def pids_of(child: Child) -> set[int]:
    """Its own and those of what it forked."""
    return {child.pid, *_children_of(child.pid)}


def server_cpu_seconds() -> float:
    """CPU time of the whole PostgreSQL server so far; 0 where it is on another machine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = int(cursor.fetchone()[0])
    if not _is_postgres(backend):
        return 0.0
    postmaster = int(_stat(backend)[1])
    return sum(cpu_seconds(pid) for pid in (postmaster, *_children_of(postmaster)))


def _children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """User and system time, its own and that of its ended children."""
    fields = _stat(pid)
    return sum(int(part) for part in fields[11:15]) / TICKS if fields else 0.0


def _stat(pid: int) -> list[Any]:
    """The fields of /proc/PID/stat after the name; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _status_kb(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
