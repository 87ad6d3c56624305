"""Many runs cancelled and retried together while whoever carries that out is killed: each once, and no other."""

import re
import signal
from collections.abc import Callable
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.db import connection

from agentops import people as accounts
from agentops.benchmarks.processes import kill, web, web_process
from agentops.chaos.faults import Fault, Injected
from agentops.chaos.proof import counted, judge, over, until
from agentops.visitor import Visitor
from runs import commands
from runs.engine.events import Kind
from runs.models import BulkAction, Run

if TYPE_CHECKING:
    from agentops.chaos.trial import World

WAITS = "chaos-together"
LATER = 5  # runs that fit the filter when it is too late
STOPPED_AT = 0.4  # of all


def together(world: "World") -> Injected:
    """The web server that took the confirmation dies at once, job processes half way; one action is stopped and gone on with."""
    count = world.together or (300 if world.quick else 1000)
    world.people.leave_alone |= {WAITS}
    runs = world.people.start_together(WAITS, count)
    waiting = Run.objects.filter(pk__in=runs, status="waiting")
    yield from until(world, lambda: waiting.count() == count)
    cancelling = _confirmed(world, "cancel", f"agent={WAITS}&status=waiting")
    yield from _half_way(world, cancelling, 0.5)
    _kill_all(world)
    yield from until(world, lambda: cancelling.left == 0)
    _judge_each(world, cancelling, runs, Kind.RUN_CANCELLED)

    with web() as port:
        operator = Visitor(port, accounts.ensure_account("operator", "not used"))
        retrying = _confirmed(world, "retry", f"agent={WAITS}&status=cancelled", meanwhile=lambda: _later(world))
        yield from _half_way(world, retrying, STOPPED_AT)
        operator.post(f"{retrying.get_absolute_url()}stop/")
        _kill_all(world)
        yield 2.0
        left = retrying.left
        said = f"the other {left:,} were not touched" in operator.get(retrying.get_absolute_url()).body
        judge(world, 0 < left < count and said, f"{left} of {count} were left when it was stopped, and its page said otherwise")
        touched = len(_events(Kind.RUN_RETRIED, runs))
        judge(world, touched == count - left, f"{touched} runs were retried, and its page said {count - left}")
        operator.post(f"{retrying.get_absolute_url()}continue/")
    yield from _half_way(world, retrying, 0.8)
    _kill_all(world)
    yield from until(world, lambda: retrying.left == 0)
    _judge_each(world, retrying, runs, Kind.RUN_RETRIED)
    later = set(world.people.runs(WAITS).values_list("pk", flat=True)) - set(runs)
    judge(world, len(later) == LATER and not _events(Kind.RUN_RETRIED, later), "runs that came later were retried too")
    world.count(2 * count)
    yield from over(world)


def _confirmed(world: "World", kind: str, query: str, meanwhile: Callable[[], object] = lambda: None) -> BulkAction:
    """Looked at and confirmed in a browser, whose server is killed when it has answered; `meanwhile` happens between the two."""
    known = set(BulkAction.objects.values_list("pk", flat=True))
    with web_process() as (port, server):
        operator = Visitor(port, accounts.ensure_account("operator", "not used"))
        page = operator.post(f"/runs/bulk/preview/?{query}", all=kind).body
        meanwhile()
        seen = re.search(r'name="seen" value="([^"]+)"', page)
        answer = operator.post("/runs/bulk/begin/", seen=unescape(seen[1]) if seen else "", reason="as in every trial")
        kill(server)
    judge(world, urlsplit(answer.location).path.startswith("/runs/bulk/"), f"it was answered with {answer.status}")
    action: BulkAction = BulkAction.objects.exclude(pk__in=known).get()
    return action


def _later(world: "World") -> None:
    for run_id in world.people.start(WAITS, LATER):
        commands.cancel(run_id, by="operator", reason="as in every trial")


def _half_way(world: "World", action: BulkAction, share: float) -> Injected:
    total = action.items.count()
    yield from until(world, lambda: action.left <= (1 - share) * total)


def _kill_all(world: "World") -> None:
    """kill -9: one of them carries it out."""
    for worker in world.fleet.workers:
        worker.send(signal.SIGKILL)


def _events(kind: Kind, runs: "set[int] | list[int]") -> list[int]:
    """The run of each such event."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM runs_event WHERE kind = %s AND run_id = ANY(%s)", [kind, list(runs)])
        return [run_id for (run_id,) in cursor.fetchall()]


def _judge_each(world: "World", action: BulkAction, runs: list[int], kind: Kind) -> None:
    """As confirmed, each once."""
    items = dict(action.items.values_list("run", "outcome"))
    events = _events(kind, runs)
    undone = [run_id for run_id, outcome in items.items() if outcome != "done"]
    judge(world, set(items) == set(runs), f"{len(set(items) ^ set(runs))} runs were not those that were confirmed")
    judge(world, not undone, f"of {len(undone)} runs it says that they were not done")
    judge(world, sorted(events) == sorted(runs), f"{len(events)} events {kind} stand in the logs of {len(runs)} runs")


NAME = "many runs together, killed half way"
TOGETHER = [Fault(NAME, "L7", counted(together), times=(0, 1), runs=(0, 0), every=(0, 0), alone=True, target=10_000)]
