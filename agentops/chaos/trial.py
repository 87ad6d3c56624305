"""One trial: services and processes of its own, a phase of runs for each fault, then the judgement."""

import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Sum

from agentops import people as accounts
from agentops.chaos import invariants, ledger
from agentops.chaos.closed import CLOSED
from agentops.chaos.faults import FAULTS, Fault, Injected
from agentops.chaos.fleet import Fleet
from agentops.chaos.guarded import GUARDED
from agentops.chaos.hands import Hands
from agentops.chaos.inbox import INBOX
from agentops.chaos.operations import OPERATIONS, RESTORE
from agentops.chaos.people import People
from agentops.chaos.provider import Provider, provider
from agentops.chaos.recovery import Recovery
from agentops.chaos.servers import DurablePostgres, MortalValkey, Proxy, servers
from agentops.chaos.together import TOGETHER
from runs import pen
from runs.models import Run
from runs.models.run import ENDED

TICK_SECONDS = 0.03
MOST_PATIENCE = 4  # times that of its form, where runs go on but do not end
REFERENCE = "none"
LATE_SECONDS = 600.0  # what begins later comes in the measure of the quick form: a slow machine ends in time too


@dataclass(frozen=True, slots=True)
class Form:
    """How much of it: job processes, errands under way, and how long runs may take to end when the faults are over."""

    name: str
    index: int  # of what is for this form in a fault's pairs
    kinds: int  # of errands
    job_processes: int
    at_once: int
    patience_seconds: float


QUICK = Form("quick", index=0, kinds=10, job_processes=2, at_once=6, patience_seconds=25.0)
FULL = Form("full", index=1, kinds=60, job_processes=8, at_once=60, patience_seconds=60.0)


@dataclass(slots=True)
class World:
    """What a fault can reach. `broken` are sentences of what did not hold, `figures` what is worth knowing besides."""

    directory: Path
    postgres: DurablePostgres
    redis: MortalValkey
    proxy: Proxy
    fleet: Fleet
    chance: random.Random
    lease_seconds: float
    quick: bool
    hurried: bool  # other faults want their time too
    patience_seconds: float
    people: People
    provider: Provider
    recovery: Recovery = field(default_factory=Recovery)
    stack: ExitStack = field(default_factory=ExitStack)  # what ends before the database is replaced
    hands: Hands | None = None
    together: int | None = None  # how many runs are acted on together, where that is said
    hits: int = 0
    broken: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    stopped: Counter[int] = field(default_factory=Counter)  # how often each process was stopped for longer than its lease

    def count(self, hits: int) -> None:
        """So often more has the present fault come over something."""
        self.hits += hits

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
    """One line of the report. Each of the counts after `errors` is to be nought."""

    fault: str
    proof: str
    count: int
    target: int  # how often it is wanted
    runs: int
    recovered: int
    recovery_p95: float | None
    recovery_max: float | None
    seconds: float
    limit_seconds: float
    errors: int
    figures: dict[str, float]
    lost: int = 0
    re_executed: int = 0
    duplicates: int = 0
    stale_writes: int = 0
    other: int = 0

    def held(self, form: Form) -> bool:
        """The quick form judges no seconds: it runs beside other tests."""
        nothing_broken = not (self.lost or self.re_executed or self.duplicates or self.stale_writes or self.other)
        return nothing_broken and (form is QUICK or (self.recovery_p95 or 0.0) <= self.limit_seconds)


def conduct(
    directory: Path, *, form: Form, seed: int, only: str, say: Callable[[str], None], together: int | None = None
) -> dict[str, Any]:
    """Carry out every fault (or those with `only` in their name) and judge. The result says in `held` whether everything held."""
    begun = time.monotonic()
    with provider() as there, _started(directory, form, seed, there, hurried=not only) as world:
        world.together = together
        world.patience_seconds *= max(1.0, (together or 0) / 1000)
        reference = Fault(REFERENCE, "", _nothing, (0, 0), runs=(form.kinds, form.kinds))
        every = (*FAULTS, *GUARDED, *CLOSED, *INBOX, *TOGETHER, *OPERATIONS)
        faults = [fault for fault in every if fault.times[form.index] and only in fault.name]
        rows = [_phase(world, fault, _still(form, begun), say) for fault in (reference, *faults)]
        broken = _judge(world, rows, say)
        world.stack.close()
        if only in RESTORE.name:
            rows.append(_phase(world, RESTORE, _still(form, begun), say))
            broken += _judge(world, rows[-1:], say)
        broken += world.broken
    lines = [asdict(row) | {"held": row.held(form)} for row in rows]
    held = not broken and all(row.held(form) for row in rows)
    seconds = round(time.monotonic() - begun, 1)
    return {"seed": seed, "form": form.name, "held": held, "seconds": seconds, "faults": lines, "broken": broken}


def _still(form: Form, begun: float) -> Form:
    """How much there is time for."""
    return form if time.monotonic() - begun < LATE_SECONDS else QUICK


def _phase(world: World, fault: Fault, form: Form, say: Callable[[str], None]) -> Row:
    begun = time.monotonic()
    world.people, world.recovery = People(fault.name, form.kinds, 0 if fault.alone else form.at_once), Recovery()
    world.hits, world.figures, world.quick = 0, {}, form is QUICK
    _reach_the_database(world, world.proxy if fault.through_proxy else world.postgres)
    world.people.wanted = fault.runs[form.index]
    times = fault.comes(form.index)
    for number in range(1, times + 1):
        if form is FULL and time.monotonic() - begun > fault.seconds:
            break
        say(f"{fault.name}: {number} of {times}, {world.people.started} runs")
        world.people.keep_busy()
        world.go_on(world.chance.uniform(*fault.every))
        for seconds in fault.inject(world):
            world.go_on(seconds)
    say(f"{fault.name}: {world.people.started} runs come to their end")
    _go_on_until(world, lambda: _is_over(world, fault, form))
    _reach_the_database(world, world.postgres)
    if world.people.errors and not fault.errors_allowed:
        world.broken.append(f"{fault.name}: {world.people.errors} commands of people ended in an error.")
    if wrong := world.people.wrong_errors:
        world.broken.append(f"{fault.name}: {wrong} commands of people ended in an error, and what they asked for had happened.")
    return _row(world, fault, time.monotonic() - begun)


def _is_over(world: World, fault: Fault, form: Form) -> bool:
    """What a fault has hit goes on beside the next one, but before an operation and after the reference all is to be quiet."""
    if fault.name == REFERENCE or world.people.change_their_minds or (form is FULL and fault not in FAULTS):
        return world.people.done()
    if form is FULL and fault is FAULTS[-1]:
        return world.people.done() and not _open_runs().exists()
    return world.recovery.complete and (form is QUICK or world.people.started >= world.people.wanted)


def _open_runs() -> Any:
    return Run.objects.exclude(agent="chaos-poison").exclude(status__in=ENDED)


def _reach_the_database(world: World, way: Proxy | DurablePostgres) -> None:
    """People here and processes there, from now on."""
    world.fleet.move_to({"DATABASE_URL": way.url})
    connection.settings_dict["OPTIONS"]["host"] = way.directory if isinstance(way, Proxy) else str(way.sockets)
    disconnect()


def disconnect() -> None:
    """This process; its next question connects it again."""
    connection.close()
    pen.close()


def _go_on_until(world: World, condition: Callable[[], bool]) -> None:
    """The faults are over: it must come to that. A slow machine has longer, as long as something goes on."""
    latest = time.monotonic() + MOST_PATIENCE * world.patience_seconds
    end, seen = 0.0, -1
    while not condition():
        if (came_to := _came_to()) != seen:
            end, seen = min(latest, time.monotonic() + world.patience_seconds), came_to
        if time.monotonic() >= end:
            return
        world.go_on(TICK_SECONDS)


def _came_to() -> int:
    """It grows with every event of any run; 0 while the database cannot say."""
    try:
        return Run.objects.aggregate(events=Sum("last_seq"))["events"] or 0
    except DatabaseError:
        connection.close()
        return 0


def _row(world: World, fault: Fault, seconds: float) -> Row:
    took = sorted(world.recovery.seconds)
    return Row(
        fault=fault.name,
        proof=fault.proof,
        count=world.hits,
        target=fault.target,
        runs=Run.objects.filter(input__phase=fault.name).count(),
        recovered=len(took),
        recovery_p95=round(took[math.ceil(0.95 * len(took)) - 1], 2) if took else None,
        recovery_max=round(took[-1], 2) if took else None,
        seconds=round(seconds, 1),
        limit_seconds=fault.limit_seconds,
        errors=world.people.errors,
        figures=world.figures,
    )


def _judge(world: World, rows: list[Row], say: Callable[[str], None]) -> list[str]:
    world.people.wanted = world.people.started
    _go_on_until(world, lambda: not _open_runs().exists())
    say(f"judging {Run.objects.count()} runs")
    broken = [_sentence(rows, *one) for one in invariants.broken(ledger.rows())]
    late = invariants.late_effects()
    phase_of = dict(Run.objects.filter(pk__in=[run_id for run_id, _ in late]).values_list("pk", "input__phase"))
    for row in rows:
        effects = sum(phase_of[run_id] == row.fault for run_id, _ in late)
        row.figures |= {"effects that had begun when their process was stopped": effects} if effects else {}
    for pid, effects in Counter(pid for _, pid in late).items():
        if effects > (times := world.stopped[pid]):
            broken.append(f"Process {pid} was stopped {times} times, and on waking did {effects} effects for others' runs.")
    return broken


def _sentence(rows: list[Row], invariant: invariants.Invariant, run_ids: list[int]) -> str:
    """Count the broken runs in the rows of their phases, and say what is broken."""
    phase_of = dict(Run.objects.filter(pk__in=run_ids).values_list("pk", "input__phase"))
    column = invariant.column.replace(" ", "_").replace("-", "_")
    for row in rows:
        hit = sum(phase_of.get(run_id) == row.fault for run_id in run_ids)
        setattr(row, column, getattr(row, column) + hit)
    about = [invariants.how_it_stands(run_id) for run_id in run_ids[:3] if run_id in phase_of]
    said = f"Not so: {invariant.sentence}. Runs {', '.join(map(str, run_ids[:10]))} ({len(run_ids)} in all)."
    return " ".join([said, *about])


def _nothing(world: World) -> Injected:
    yield 0


@contextmanager
def _started(directory: Path, form: Form, seed: int, there: Provider, *, hurried: bool) -> Iterator[World]:
    postgres, redis, outside = servers(directory)
    os.environ[ledger.LEDGER] = outside.url
    proxy, fleet = Proxy(directory, postgres), Fleet(form.job_processes, directory / "processes.log")
    try:
        redis.start()
        outside.start()
        postgres.start()
        proxy.start()
        ledger.create()
        call_command("migrate", verbosity=0, interactive=False)
        accounts.ensure_groups()
        chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
        people = People(REFERENCE, form.kinds, form.at_once)
        servers_, lease, quick = (postgres, redis, proxy), settings.LEASE_SECONDS, form is QUICK
        world = World(directory, *servers_, fleet, chance, lease, quick, hurried, form.patience_seconds, people, there)
        with world.stack:
            yield world
    finally:
        fleet.end()
        disconnect()
        proxy.stop()
        for server in (postgres, redis, outside):
            server.stop()
