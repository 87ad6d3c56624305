"""One trial: services and processes of its own, a phase of runs for each fault, then the judgement."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import Error as DatabaseError
from django.db import connection

from agentops import people as accounts
from agentops.chaos import invariants, ledger
from agentops.chaos.faults import FAULTS, Fault
from agentops.chaos.fleet import Fleet
from agentops.chaos.people import People
from agentops.chaos.recovery import Recovery
from agentops.chaos.servers import DurablePostgres, Proxy, servers
from agentops.services.valkey import Valkey
from runs.models import Run

TICK_SECONDS = 0.05
REFERENCE = "none"


@dataclass(frozen=True, slots=True)
class Form:
    """How much of it: runs of each phase, job processes, and how long runs may take to end when the faults are over."""

    name: str
    runs: int
    job_processes: int
    patience_seconds: float


QUICK = Form("quick", runs=6, job_processes=2, patience_seconds=25.0)
FULL = Form("full", runs=60, job_processes=3, patience_seconds=60.0)


@dataclass(slots=True)
class World:
    """What a fault can reach."""

    postgres: DurablePostgres
    redis: Valkey
    proxy: Proxy
    fleet: Fleet
    people: People
    recovery: Recovery
    chance: random.Random
    lease_seconds: float

    def go_on(self, seconds: float) -> None:
        """Let people and processes work for so long."""
        end = time.monotonic() + seconds
        while True:
            self.fleet.keep_alive()
            self.people.work()
            try:
                self.recovery.look()
            except DatabaseError:
                connection.close()
            if time.monotonic() >= end:
                return
            time.sleep(TICK_SECONDS)


@dataclass(slots=True)
class Row:
    """One line of the report. Each of the counts after `recovery` is to be nought."""

    fault: str
    count: int
    runs: int
    recovered: int
    recovery_p95: float | None
    recovery_max: float | None
    seconds: float
    limit_seconds: float
    lost: int = 0
    re_executed: int = 0
    duplicates: int = 0
    stale_writes: int = 0
    other: int = 0

    def held(self) -> bool:
        nothing_broken = not (self.lost or self.re_executed or self.duplicates or self.stale_writes or self.other)
        return nothing_broken and (self.recovery_p95 or 0.0) <= self.limit_seconds


def conduct(directory: Path, *, form: Form, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Carry out every fault and judge. The result says in `held` whether everything held."""
    begun = time.monotonic()
    with _started(directory, form, seed) as world:
        phases = [Fault(REFERENCE, _nothing, 0, 0), *(fault for fault in FAULTS if form is FULL or fault.quick_times)]
        rows = [_phase(world, fault, form, say) for fault in phases]
        say("judging")
        broken = [_sentence(rows, *one) for one in invariants.broken(ledger.lines())]
    lines = [asdict(row) | {"held": row.held()} for row in rows]
    held = not broken and all(row.held() for row in rows)
    seconds = round(time.monotonic() - begun, 1)
    return {"seed": seed, "form": form.name, "held": held, "seconds": seconds, "faults": lines, "broken": broken}


def _phase(world: World, fault: Fault, form: Form, say: Callable[[str], None]) -> Row:
    say(fault.name)
    begun = time.monotonic()
    world.people, world.recovery = People(fault.name, form.runs), Recovery()
    url = world.proxy.url if fault.through_proxy else world.postgres.url
    if url != world.fleet.database_url:
        world.fleet.reach_the_database_by(url)
    world.people.wanted = form.runs
    times = fault.quick_times if form is QUICK else fault.times
    for _ in range(times):
        world.people.keep_busy()
        world.go_on(world.chance.uniform(*fault.every))
        for seconds in fault.inject(world):
            world.go_on(seconds)
    _let_end(world, form)
    return _row(world, fault, times, time.monotonic() - begun)


def _let_end(world: World, form: Form) -> None:
    """The faults are over: everything that was started must end."""
    end = time.monotonic() + form.patience_seconds
    while not world.people.done() and time.monotonic() < end:
        world.go_on(TICK_SECONDS)


def _row(world: World, fault: Fault, times: int, seconds: float) -> Row:
    took = sorted(world.recovery.seconds)
    return Row(
        fault=fault.name,
        count=world.proxy.swallowed() if fault.through_proxy else times,  # it asks, but somebody must commit
        runs=world.people.runs().count(),
        recovered=len(took),
        recovery_p95=round(took[math.ceil(0.95 * len(took)) - 1], 2) if took else None,
        recovery_max=round(took[-1], 2) if took else None,
        seconds=round(seconds, 1),
        limit_seconds=fault.limit_seconds,
    )


def _sentence(rows: list[Row], invariant: invariants.Invariant, run_ids: list[int]) -> str:
    """Count the broken runs in the rows of their phases, and say what is broken."""
    phase_of = dict(Run.objects.filter(pk__in=run_ids).values_list("pk", "input__phase"))
    column = invariant.column.replace(" ", "_").replace("-", "_")
    for row in rows:
        hit = sum(phase_of[run_id] == row.fault for run_id in run_ids)
        setattr(row, column, getattr(row, column) + hit)
    return f"Not so: {invariant.sentence}. Runs {', '.join(map(str, run_ids[:10]))} ({len(run_ids)} in all)."


def _nothing(world: World) -> Iterator[float]:
    yield 0


@contextmanager
def _started(directory: Path, form: Form, seed: int) -> Iterator[World]:
    postgres, redis = servers(directory)
    proxy, fleet = Proxy(directory, postgres), Fleet(form.job_processes, directory / "processes.log")
    try:
        redis.start()
        postgres.start()
        proxy.start()
        call_command("migrate", verbosity=0, interactive=False)
        accounts.ensure_groups()
        chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        people, recovery = People(REFERENCE, form.runs), Recovery()
        yield World(postgres, redis, proxy, fleet, people, recovery, chance, settings.LEASE_SECONDS)
    finally:
        fleet.end()
        connection.close()
        proxy.stop()
        postgres.stop()
        redis.stop()
