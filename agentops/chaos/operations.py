"""What happens to an installation without a fault of its own: deploys, pauses, wrong clocks, poison, a backlog, a restore."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import django_rq
from django.db import connection
from django.test import Client

from agentops import people as accounts
from agentops.chaos import ledger
from agentops.chaos.agents import RELEASE
from agentops.chaos.faults import Fault, Injected
from agentops.chaos.people import ERRAND
from reviews.models import Review
from runs import commands, pen
from runs.models import Run, Step
from runs.models.run import OPEN

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from agentops.chaos.trial import World

DAY_SECONDS = 86_400.0
SKEWS = (-DAY_SECONDS, -300.0, 0.0, 300.0, DAY_SECONDS)
BACKLOG_SECONDS = 60.0  # it is as long as it has become by then
FIRST = 10**6  # a number that no other run of its phase has
PAGE_SECONDS = 0.5  # a page of a full installation, 95 of 100


def wrong_clocks(world: "World") -> Injected:
    """Job processes whose clocks are up to a day off; the sweeper's is a day ahead."""
    world.fleet.man(len(SKEWS), skews=SKEWS)
    world.count(len(SKEWS))
    world.people.at_once *= 2
    for _ in range(2 if world.quick else 20):
        world.people.keep_busy()
        yield 0.5
    world.fleet.man(world.fleet.job_processes)


def poison(world: "World") -> Injected:
    """Among good runs there are some with a step that ends its process: each goes to a person after three tries alone."""
    runs = world.people.start("chaos-poison", 2 if world.quick else 15)
    world.count(len(runs))
    end = time.monotonic() + world.patience_seconds + 10 * world.lease_seconds
    while Run.objects.filter(pk__in=runs).exclude(status="waiting").exists() and time.monotonic() < end:
        world.people.keep_busy()
        yield 0.2


def long_pause(world: "World") -> Injected:
    """Runs wait for a person; a month passes on every clock but the database's, all processes begin anew, Redis is emptied."""
    people, count = world.people, 20 if world.quick else 1000
    people.leave_alone.add("chaos-wait")
    commands.configuration("chaos-wait")
    commands.configure("chaos-wait", by="chaos", reviews_per_agent=10 * count)  # else it would be paused meanwhile
    for _ in range(0, count, 20):
        people.start("chaos-wait", 20)
        yield 0
    waiting = people.runs("chaos-wait")  # of this phase: others leave such runs in every state
    yield from _until(world, lambda: Review.objects.open().filter(run__in=waiting).count() == count)
    for _ in range(1 if world.quick else 5):
        world.fleet.man(world.fleet.job_processes, skews=[30 * DAY_SECONDS])
        django_rq.get_connection("default").flushall()
        yield 1.0
    world.count(count)
    calls = tuple(f"advance-{run_id}-" for run_id in waiting.values_list("pk", flat=True))
    jobs = [job_id for job_id in django_rq.get_queue("default").job_ids if job_id.startswith(calls)]
    held = waiting.filter(lease_until__isnull=False).count() + len(jobs)
    if held:
        world.broken.append(f"Runs that wait for a person hold {held} leases or jobs.")
    tick = {"phase": people.phase, "which": FIRST, "number": FIRST}  # the month is over when somebody is at work again
    first = commands.start("chaos-tick", tick, by="operator").pk
    yield from _until(world, lambda: Run.objects.filter(pk=first, status="succeeded").exists())
    while decided := people.decide_about("chaos-wait", 10):
        world.recovery.expect(decided)
        yield 0.1
    yield from _until(world, lambda: not waiting.exclude(status="succeeded").exists())
    world.fleet.man(world.fleet.job_processes)


def deploy(world: "World") -> Injected:
    """A release that renames a step comes under running and waiting runs; who stops there goes on when it is taken back."""
    people, before = world.people, dict(world.fleet.environment)
    others = Run.objects.filter(agent=ERRAND, status__in=OPEN).exclude(input__phase=people.phase)
    yield from _until(world, lambda: not others.exists())  # who has not come by the step would take it from the release
    people.at_once = 9 if world.quick else 250
    people.keep_busy()
    yield from _until(world, lambda: people.started >= people.at_once)
    past_it = Step.objects.filter(run__in=people.runs().filter(status__in=OPEN), name="fetch")
    yield from _until(world, lambda: past_it.count() >= people.at_once // 3)
    people.code_has_changed, people.wanted = True, people.runs().count()
    under_way = people.runs().exclude(status__in=["succeeded", "failed"]).count()
    world.count(under_way)
    world.fleet.move_to(before | {RELEASE: "2"})
    stopped = Review.objects.open().filter(run__in=people.runs(), cause="code_changed")
    yield from _until(world, lambda: stopped.count() == people.runs().exclude(status="succeeded").count())
    world.figures["stopped at the changed step"] = stopped.count()
    world.fleet.move_to(before)
    people.code_has_changed = False


def backlog(world: "World") -> Injected:
    """Many runs are started before there is any job process; then they are carried in their order, and pages stay quick."""
    count, end = 30 if world.quick else 10_000, time.monotonic() + BACKLOG_SECONDS
    world.fleet.man(0)
    while world.hits < count and time.monotonic() < end:
        world.count(len(world.people.start_together("chaos-tick", min(500, count))))
        yield 0
    world.fleet.man(world.fleet.job_processes)
    visitor = _visitor()
    took: list[float] = []
    ticks = _ticks(world)
    while ticks.exclude(status="succeeded").exists() and len(took) < 20 * world.patience_seconds:
        begun = time.monotonic()
        status = visitor.get("/runs/").status_code
        took.append(time.monotonic() - begun)
        if status != 200:
            world.broken.append(f"The list of runs answered with {status}.")
        yield 0.1
    p95 = sorted(took)[math.ceil(0.95 * len(took)) - 1]
    world.figures["page_p95_seconds"] = round(p95, 3)
    if p95 > PAGE_SECONDS and not world.quick:
        world.broken.append(f"A page took {p95:.2f} s meanwhile (95 of 100).")
    world.figures["furthest_out_of_order"] = _furthest_out_of_order(ticks)


def restore(world: "World") -> Injected:
    """A dump taken under load takes the place of the database, with an empty Redis: every run as of the dump goes on."""
    world.people.wanted = 12 if world.quick else 60
    yield 1.0
    file = world.directory / "dump"
    world.postgres.dump(file)
    world.people.wanted = 0
    yield 1.0
    world.fleet.rest()
    connection.close()
    pen.close()
    world.postgres.restore(file)
    ledger.forget()  # what happened after the dump is unknown to it
    world.redis.fall()
    world.redis.start()
    world.recovery.expect([])
    world.people.wanted = world.people.runs().count()
    world.count(world.people.runs().exclude(status="succeeded").count())
    yield 0


OPERATIONS = [
    Fault("clocks up to a day off", "H6", wrong_clocks, times=(1, 1), runs=(4, 100), target=5),
    Fault("a step that kills its process", "R10", poison, times=(0, 1), runs=(4, 200), target=6),
    Fault("a month's pause", "R13", long_pause, times=(1, 1), limit_seconds=2, target=1000),
    Fault("deploy of changed code", "R14", deploy, times=(1, 1), runs=(4, 100), target=250),
    Fault("backlog before any job process", "R17", backlog, times=(1, 1), target=10_000),
]
RESTORE = Fault("restore of a dump taken under load", "R16", restore, times=(1, 1), target=1)


def _until(world: "World", condition: Callable[[], bool]) -> Injected:
    """Until it is so, but not for ever: what never comes shows in the judgement."""
    end = time.monotonic() + 2 * world.patience_seconds
    while not condition() and time.monotonic() < end:
        yield 0.1


def _visitor() -> Client:
    """Somebody with a browser, as far as the server can tell."""
    client = Client(raise_request_exception=False, HTTP_HOST="localhost")
    client.force_login(accounts.ensure_account("operator", "not used"))
    return client


def _ticks(world: "World") -> "QuerySet[Run]":
    """Those of the backlog, not the children of errands."""
    runs: QuerySet[Run] = world.people.runs("chaos-tick").filter(parent__isnull=True)
    return runs


def _furthest_out_of_order(ticks: "QuerySet[Run]") -> int:
    """How many places the run that was carried most out of order is from its place."""
    begun = list(ticks.order_by("started_at", "pk").values_list("pk", flat=True))
    place = {run_id: number for number, run_id in enumerate(begun)}
    return max((abs(place[run_id] - number) for number, run_id in enumerate(sorted(begun))), default=0)
