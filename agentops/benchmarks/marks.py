"""When each worker was called, as seen by the process that called it: in memory, or in a file that all processes append to."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runs import sdk

FILE = "AGENTOPS_BENCH_MARKS"  # where set, its path; a line is short enough to be appended in one piece
moments: dict[str, list[float]] | None = None  # run -> times, where a process measures itself


@dataclass(frozen=True, slots=True)
class Mark:
    at: float
    pid: int
    run_id: int
    step: str


def begun() -> None:
    """The worker of the present step is called now."""
    if moments is None and FILE not in os.environ:
        return
    run_id, _, step = sdk.current_step().key.partition(":")
    if moments is not None:
        moments.setdefault(run_id, []).append(time.perf_counter())
    elif path := os.environ.get(FILE):
        at = time.time()
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{at} {os.getpid()} {run_id} {step}\n".encode())
        os.close(file)


@contextmanager
def kept() -> Iterator[None]:
    """Processes that are started within the block write to one file, which is gone after it."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ[FILE] = f"{directory}/marks"
        try:
            yield
        finally:
            del os.environ[FILE]


def read() -> list[Mark]:
    """Every mark of the file, oldest first."""
    path = Path(os.environ[FILE])
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.split() for line in lines]
    return sorted((Mark(float(at), int(pid), int(run), step) for at, pid, run, step in parts), key=lambda mark: mark.at)


def of_latest() -> dict[int, int]:
    """Run -> the process that called a worker for it last."""
    return {mark.run_id: mark.pid for mark in read()}
