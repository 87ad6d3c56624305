"""What migrations cost those who work meanwhile: runs that go on, people who browse, somebody who reads for long."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection

from agentops import people
from agentops.benchmarks import processes
from agentops.benchmarks.agents import STEPS
from agentops.benchmarks.beside import beside
from agentops.benchmarks.engine import server
from agentops.benchmarks.figures import spread
from agentops.benchmarks.pruning import browse, longest_wait
from agentops.seeding import filling
from runs import commands
from runs.models import Run

READS = "SELECT count(*) FROM runs_event, pg_sleep(1.5)"  # a report: no table is free of it meanwhile
BETWEEN_READS_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Form:
    """`history`: runs that are there already; `rate`: how many more are started each second."""

    history: int = 20_000
    rate: float = 10.0
    seconds: float = 240.0
    people: int = 20


QUICK = Form(history=200, rate=3.0, seconds=6.0, people=2)


def measure(form: Form, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Migrations back and forth for so long: what became of runs and pages, and the longest wait of anybody for a lock."""
    people.ensure_groups()
    users = [people.ensure_account(name, "") for name in people.CAST if people.CAST[name]]
    say(f"making {form.history:,} runs")
    filling.fill(form.history, days=30, seed=1, tell=lambda done, of: None)
    before = Run.objects.latest("pk").pk if form.history else 0
    said = io.StringIO()
    with processes.web() as port, processes.job_processes(2), processes.process("manage.py", "sweeper"):
        say(f"migrations for {form.seconds:g} s, {form.rate:g} runs a second, {form.people} people")
        end = time.monotonic() + form.seconds
        with beside(_start_runs, form), beside(_read), longest_wait() as waited, beside(_migrate, said, end) as migrating:
            pages = browse(form.people, port, users, migrating.is_alive)
        begun = Run.objects.filter(pk__gt=before)
        processes.until(lambda: not begun.exclude(pk__in=begun.ended()).exists(), look_seconds=0.2)
    return {
        "server": server(), "runs": begun.count(), "runs_not_succeeded": begun.exclude(status="succeeded").count(),
        "migrations": said.getvalue().count(" OK"), "stepped_back": said.getvalue().count("stepped back"),
        "pages": len(pages), **spread("pages_ms", pages), "longest_lock_wait_ms": round(max(waited), 1),
    }  # fmt: skip


def _migrate(over: threading.Event, said: io.StringIO, end: float) -> None:
    """Back and forth, until the time is over and it has met somebody. Raises CalledProcessError with what the command said."""
    while not over.is_set() and (time.monotonic() < end or "stepped back" not in said.getvalue()):
        for target in ("zero", "0005"):
            command = [sys.executable, "manage.py", "migrate", "tomorrow", target]
            said.write(subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True, check=True).stdout)


def _start_runs(over: threading.Event, form: Form) -> None:
    while not over.wait(1 / form.rate):
        commands.start("bench-steps", {"steps": STEPS, "seconds": 0.0}, by="")


def _read(over: threading.Event) -> None:
    while not over.wait(BETWEEN_READS_SECONDS):
        with connection.cursor() as cursor:
            cursor.execute(READS)
