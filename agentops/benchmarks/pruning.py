"""What prune costs those who browse meanwhile: their pages with it and without it, and who waits for a lock how long."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from agentops import people
from agentops.benchmarks import processes
from agentops.benchmarks.beside import beside
from agentops.benchmarks.engine import server
from agentops.benchmarks.figures import spread
from agentops.seeding import filling
from agentops.visitor import Visitor
from runs import holds
from runs.models import Run, Tombstone

THINK_SECONDS = 4.0  # on average, between two pages of one person
LOOK_SECONDS = 0.02
OLDER_THAN = "1d"
# Who builds an index waits for whole transactions to end, and nobody waits for that.
WAITING = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)) * 1000, 0)
FROM pg_locks WHERE NOT granted AND locktype <> 'virtualxid'
"""


@dataclass(frozen=True, slots=True)
class Form:
    """About twenty events a run. `seconds`: how long people browse before, and after."""

    runs: int = 50_000
    people: int = 50
    seconds: float = 30.0


QUICK = Form(runs=1_000, people=5, seconds=3.0)


def measure(form: Form, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Pages of each phase, what was removed at which rate, and the longest wait for a lock."""
    people.ensure_groups()
    users = [people.ensure_account(name, "") for name in people.CAST if people.CAST[name]]
    say(f"making {form.runs:,} runs")
    filling.fill(form.runs, days=30, seed=1, tell=lambda done, of: None)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    held = Run.objects.filter(finished_at__lt=timezone.now() - timedelta(days=2)).earliest("finished_at")
    holds.hold(held.pk, by="bench", reason="it must be there afterwards")
    with processes.web() as port:
        browse(form.people, port, users, _for(2.0))  # what a server does once
        say("browsing alone")
        alone = browse(form.people, port, users, _for(form.seconds))
        say("browsing while old runs are removed")
        begun = time.monotonic()
        with processes.process("manage.py", "prune", "--older-than", OLDER_THAN) as prune, longest_wait() as waited:
            meanwhile = browse(form.people, port, users, lambda: prune.poll() is None)
        took = time.monotonic() - begun
        say("browsing alone again")
        alone += browse(form.people, port, users, _for(form.seconds))
    quiet, busy = spread("pages_ms_alone", alone), spread("pages_ms_meanwhile", meanwhile)
    tombstones = Tombstone.objects.values_list("last_seq", flat=True)
    return {
        "server": server(), "runs_removed": len(tombstones), "events_removed": sum(tombstones), "seconds": round(took, 1),
        "events_per_second": round(sum(tombstones) / took), "pages": len(alone) + len(meanwhile), **quiet, **busy,
        "ratio_p95": round(busy["pages_ms_meanwhile_p95"] / quiet["pages_ms_alone_p95"], 2),
        "longest_lock_wait_ms": round(max(waited), 1), "held_is_there": Run.objects.filter(pk=held.pk).exists(),
    }  # fmt: skip


def _for(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def browse(many: int, port: int, users: list[User], goes_on: Callable[[], bool]) -> list[float]:
    """So many people. Milliseconds of every page that all of them opened."""
    newest = list(Run.objects.order_by("-pk").values_list("pk", flat=True)[:50])
    paths = [
        "/",
        "/runs/",
        "/runs/?status=failed",
        "/reviews/",
        "/reviews/history/",
        "/alerts/",
        *(f"/runs/{run}/" for run in newest),
    ]
    visitors = [Visitor(port, users[number % len(users)]) for number in range(many)]
    with ThreadPoolExecutor(many) as pool:
        return [took for one in pool.map(lambda visitor: _visit(visitor, paths, goes_on), visitors) for took in one]


def _visit(visitor: Visitor, paths: list[str], goes_on: Callable[[], bool]) -> list[float]:
    took = []
    chance = random.Random(visitor.cookie)  # noqa: S311 - not for secrets
    while goes_on():
        time.sleep(min(chance.expovariate(1 / THINK_SECONDS), 2 * THINK_SECONDS))
        path = chance.choice([*paths[:6], chance.choice(paths[6:])])
        begun = time.perf_counter()
        answer = visitor.get(path)
        took.append((time.perf_counter() - begun) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}: {answer.body[:2000]}")
    return took


@contextmanager
def longest_wait() -> Iterator[list[float]]:
    """What is longest of all waits for locks, looked for again and again."""
    found = [0.0]
    with beside(_look, found):
        yield found


def _look(over: threading.Event, found: list[float]) -> None:
    with connection.cursor() as cursor:
        while not over.wait(LOOK_SECONDS):
            cursor.execute(WAITING)
            found.append(float(cursor.fetchone()[0]))
