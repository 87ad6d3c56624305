"""What guard promises, under load and faults: judged by what the provider itself saw and by what the log says."""

import signal
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import django_rq

from agentops import people as accounts
from agentops.chaos import verdicts
from agentops.chaos.faults import Fault, Injected, owned_by
from agentops.chaos.fleet import send
from agentops.chaos.measured import (
    CALLS_EACH,
    PARTS,
    given_up,
    held_back,
    longest_cancel,
    p95,
    spans,
    utilisation,
    waited,
)
from agentops.chaos.proof import counted, until
from agentops.chaos.provider import Provider
from reviews import decisions
from reviews.models import Review
from runs import commands, dependencies, event_log
from runs.models import BreakerChange, Run
from runs.models.run import ENDED
from runs.reliability import guard, terms
from runs.reliability.slots import holders

if TYPE_CHECKING:
    from agentops.chaos.trial import World
    from agentops.outside.visits import Visit

NAME = guard.declare("card-processor", kind="api")
MANY, RARE, HANGING, SPENDING, PART = "chaos-call", "chaos-rare", "chaos-hang", "chaos-spend", "chaos-part"
DEGRADING = "chaos-degrade"
PLAIN: dict[str, Any] = {
    "connect_timeout_seconds": 2, "read_timeout_seconds": 5, "attempt_timeout_seconds": 8,
    "limit_requests": None, "limit_period_seconds": 60, "concurrency": None,
    "breaker_failure_ratio": 0.5, "breaker_minimum_calls": 10, "breaker_window_seconds": 10, "breaker_open_seconds": 10,
    "retry_attempts": 20, "retry_first_wait_seconds": 0.5, "retry_longest_wait_seconds": 4,
}  # fmt: skip
WARM_UP = 8  # calls, until every process is there


def rate_limit(world: "World") -> Injected:
    """Far more calls than the limit allows; Redis forgets everything half-way."""
    limit, period, runs, calls = (20, 3.0, 25, 2) if world.quick else (50, 4.0, 75, 4)
    there = yield from provided(world, limit_requests=limit, limit_period_seconds=period)
    cost = _cost_ms(50 if world.quick else 1000)
    start(world, MANY, runs, calls=calls)
    yield from until(world, lambda: there.count() >= runs * calls / 2)
    flushed = time.time()
    django_rq.get_connection("default").flushall()
    yield from until(world, lambda: _all_ended(world))
    visits = there.visits()
    world.count(len(visits))
    verdicts.keeps(world, visits, limit, period)
    share, held = utilisation(visits, limit, period, flushed), held_back(world.people.phase)
    waiting = waited(spans(visits, limit, period, flushed), held)
    verdicts.used(world, share, cost, made=len(visits), wanted=runs * calls, waiting=waiting)


def fairness(world: "World") -> Injected:
    """One agent calls now and then: first alone, then while another one has far more calls waiting than the limit allows."""
    limit, period, times, every = 60, 3.0, 8 if world.quick else 20, 0.5
    there = yield from provided(world, limit_requests=limit, limit_period_seconds=period)
    yield from _now_and_then(world, times, every)
    flood = limit + int(limit / period * times * every * 1.2)
    start(world, MANY, flood // 4 + 1, calls=4)
    yield from until(world, lambda: there.count() >= times + limit // 2)
    yield from _now_and_then(world, times, every)
    left = flood + 2 * times - there.count()
    yield from until(world, lambda: _all_ended(world))
    visits = there.visits()
    waits, steps = _waits(world, visits)
    world.count(len(visits))
    verdicts.shared(world, waits[:times], waits[times:], times=times, left=left)
    world.figures |= {"its step alone": p95(steps[:times]), "its step beside": p95(steps[times:])}
    verdicts.keeps(world, visits, limit, period)


def dead_holders(world: "World") -> Injected:
    """kill -9 of job processes while they hold slots; half of their runs are cancelled, so that nobody comes back."""
    limit, kills, runs, calls = (8, 3, 16, 3) if world.quick else (24, 12, 100, 4)
    there = yield from provided(world, concurrency=limit, breaker_minimum_calls=1000)
    there.fault("latency", 1.0)
    start(world, MANY, runs, calls=calls)
    for _ in range(kills):
        yield from until(world, lambda: _under_way(there) >= limit / 2 or _all_ended(world))
        world.count(_kill_one(world))
        yield 0.3
    last = time.time()
    yield from until(world, lambda: not _held_since_before(last) or time.time() - last > verdicts.SLOTS_BACK_SECONDS)
    dead, took = _held_since_before(last), time.time() - last
    there.recover()
    yield from until(world, lambda: _all_ended(world))
    verdicts.come_back(world, there.visits(), limit, dead=dead, took=took)


def outage(world: "World") -> Injected:
    """Every call fails for a while, each time in another way; then those that waited are let in."""
    kinds = ("500",) if world.quick else ("429", "500", "hang")
    runs, lasts, opened, minimum, slots = (30, 2.5, 1.0, 4, None) if world.quick else (120, 7.0, 3.0, 10, 8)
    limit, period, window = 60, 3.0, 2.0 if world.quick else 4.0
    there = yield from provided(
        world, limit_requests=limit, limit_period_seconds=period, concurrency=slots, connect_timeout_seconds=1.0,
        read_timeout_seconds=1.0, attempt_timeout_seconds=3.0, breaker_minimum_calls=minimum, breaker_open_seconds=opened,
        breaker_window_seconds=window,
    )  # fmt: skip
    for kind in kinds:
        yield window  # so that no good calls are left in it
        yield from _one_outage(world, there, kind, runs=runs, lasts=lasts, opened=opened, per_second=limit / period)
    verdicts.keeps(world, there.visits(), limit, period)
    verdicts.not_given_up(world, given_up(world.people.phase))


def _one_outage(
    world: "World", there: Provider, kind: str, *, runs: int, lasts: float, opened: float, per_second: float
) -> Injected:
    begun = time.time()
    there.fault(kind, 120.0)
    yield from _degrade(world, kind)
    start(world, MANY, runs)
    yield from until(world, lambda: time.time() - begun > lasts and (_was_tried(begun) or time.time() - begun > 4 * lasts))
    over = there.recover()
    world.people.leave_alone.discard(DEGRADING)
    left = Run.objects.filter(agent=MANY, input__phase=world.people.phase).exclude(status__in=ENDED).count()
    yield from until(world, lambda: _all_ended(world))
    visits, drained = there.visits(since=begun), time.time() - over
    changes = [(change.at.timestamp(), change.new) for change in reversed(BreakerChange.objects.filter(at__gte=_moment(begun)))]
    world.count(runs)
    verdicts.rides_out(world, verdicts.Outage(kind, begun, over, left, drained, opened, per_second, changes), visits)


def _degrade(world: "World", kind: str) -> Injected:
    """The first to call have one try each, and something else instead: it is taken, and the log says so."""
    world.people.leave_alone.add(DEGRADING)
    runs = {way: start(world, DEGRADING, 1, way=way)[0] for way in verdicts.DEGRADED}
    yield from until(world, lambda: not Run.objects.filter(pk__in=runs.values(), status__in=["queued", "running"]).exists())
    came_to = {way: (Run.objects.get(pk=pk).status, {row.kind for row in event_log.rows(pk)}) for way, pk in runs.items()}
    verdicts.degrades(world, kind, came_to)


def _was_tried(begun: float) -> bool:
    """Whether one call has been let in since the breaker opened, and came to its end."""
    changes = list(BreakerChange.objects.filter(at__gte=_moment(begun)).order_by("at", "pk").values_list("new", flat=True))
    return "half-open" in changes and changes[-1] == "open"


def budget(world: "World") -> Injected:
    """A run and its children, in several processes and with steps side by side, race to the end of their budget."""
    there = yield from provided(world, breaker_minimum_calls=1000)
    there.fault("latency", 0.3)
    world.people.leave_alone |= {SPENDING, PART}
    runs = start(world, SPENDING, 1)
    asked = Review.objects.open().filter(cause="budget", run__input__phase=world.people.phase)
    going = Run.objects.filter(agent=PART, input__phase=world.people.phase).exclude(status__in=[*ENDED, "waiting"])
    yield from until(world, lambda: asked.exists() and not going.exists())
    yield 2.0
    made, questions = there.count(), asked.count()
    for review in asked:
        by = accounts.ensure_account("reviewer", "not used")
        decisions.decide(review.pk, actor=by, kind="raise", seen=review.fingerprint, value=str(PARTS * CALLS_EACH))
    yield from until(world, lambda: _all_ended(world))
    there.recover()
    wanted, status = PARTS * CALLS_EACH, Run.objects.get(pk=runs[0]).status
    world.count(wanted)
    verdicts.stays_within(
        world, made=made, questions=questions, made_when_raised=there.count(), wanted=wanted, status=status
    )  # fmt: skip


def cancelled(world: "World") -> Injected:
    """Runs are cancelled while they call outside; some of them hang in C, where no exception reaches them."""
    calling, hanging = (6, 0) if world.quick else (45, 5)
    there = yield from provided(world)
    there.fault("latency", 0.8)
    runs = [*start(world, HANGING, hanging), *start(world, MANY, calling, calls=10)]
    yield from until(world, lambda: _under_way(there) >= 2 and _hang(runs) == hanging)
    at_work, hung = _under_way(there), _hang(runs)
    for run_id in runs:
        commands.cancel(run_id, by="operator", reason="as in every trial")
        yield 0
    yield from until(world, lambda: _all_ended(world))
    there.recover()
    left = Run.objects.filter(pk__in=runs).exclude(status="cancelled").count()
    world.count(len(runs))
    took = {agent: longest_cancel(world.people.phase, agent) for agent in (HANGING, MANY)}
    verdicts.all_end(world, left=left, hanging=took[HANGING], calling=took[MANY], at_work=at_work, hung=hung, wanted=hanging)


# In the quick form only what no test of the suite tries by itself: it has 90 s.
GUARDED = [
    Fault(f"guard: {name}", proof, counted(inject), times, runs=(0, 0), every=(0, 0), alone=True, target=target)
    for name, proof, inject, times, target in (
        ("rate limit", "L1", rate_limit, (0, 1), 10_000),
        ("fairness between agents", "L2", fairness, (0, 1), 0),
        ("slots of the dead", "L3", dead_holders, (0, 1), 1000),
        ("outage of the provider", "L4", outage, (0, 1), 500),
        ("budget of a run and its children", "L5", budget, (0, 1), 50),
        ("cancel, also what hangs", "L6", cancelled, (1, 1), 500),
    )
]


def provided(world: "World", **wanted: Any) -> Generator[float, None, Provider]:
    """The provider, as if nobody had ever called it; job processes that begin anew know these terms of it."""
    terms.of(NAME)
    dependencies.configure(NAME, by="chaos", **PLAIN | wanted)
    world.fleet.rest()
    start(world, MANY, WARM_UP)
    yield from until(world, lambda: _all_ended(world))
    world.provider.forget()
    return world.provider


def start(world: "World", agent: str, count: int, **more: Any) -> list[int]:
    there = Run.objects.filter(agent=agent, input__phase=world.people.phase).count()
    given = [{"phase": world.people.phase, "which": which, "number": 0} | more for which in range(there, there + count)]
    return [commands.start(agent, one, by="operator").pk for one in given]


def _now_and_then(world: "World", times: int, every: float) -> Injected:
    for _ in range(times):
        start(world, RARE, 1)
        yield every


def _all_ended(world: "World") -> bool:
    return not Run.objects.filter(input__phase=world.people.phase).exclude(status__in=ENDED).exists()


# --- what the figures come from -----------------------------------------------------------------------------------


def _cost_ms(calls: int) -> float:
    """What guard adds to a call that does nothing, with a limit, slots and a breaker to ask."""
    name = guard.declare("chaos-nothing", kind="api")
    terms.of(name)
    dependencies.configure(name, by="chaos", limit_requests=10**6, concurrency=100)
    took = []
    for _ in range(calls):
        begun = time.perf_counter()
        guard.call(name, lambda: None)
        took.append(time.perf_counter() - begun)
    return round(sorted(took)[len(took) // 2] * 1000, 2)


def _waits(world: "World", visits: "list[Visit]") -> tuple[list[float], list[float]]:
    """Until the provider saw the call of each rare run: from the start of the run, and from the start of its step."""
    seen = {visit.key: visit.at for visit in reversed(visits)}
    rare = Run.objects.filter(agent=RARE, input__phase=world.people.phase, steps__name="call_1").order_by("pk")
    times = rare.values_list("pk", "created_at", "steps__started_at")
    made = [(seen[f"{pk}:call_1"], run, step) for pk, run, step in times if f"{pk}:call_1" in seen]
    return [at - run.timestamp() for at, run, _ in made], [at - step.timestamp() for at, _, step in made if step]


def _under_way(there: Provider) -> int:
    return sum(visit.until is None for visit in there.visits())


def _kill_one(world: "World") -> int:
    """One that calls; every second run that it had is cancelled. Returns how many calls it was in."""
    victim = max(world.fleet.workers, key=lambda worker: len(owned_by([worker.pid])) if worker.alive else -1)
    runs = [run_id for run_id, _ in owned_by([victim.pid, *victim.children()])]
    children = victim.children()
    victim.send(signal.SIGKILL)
    send(signal.SIGKILL, children)
    held = _held() & {str(run_id) for run_id in runs}
    for run_id in runs[::2]:
        commands.cancel(run_id, by="operator", reason="as in every trial")
    return len(held)


def _held() -> set[str]:
    """Runs whose steps hold a slot."""
    return {holder.name.partition(":")[0] for holder in holders(NAME)}


def _held_since_before(moment: float) -> int:
    """Slots: whoever lives is done with a call long before anybody asks."""
    return sum(holder.since.timestamp() < moment for holder in holders(NAME))


def _hang(runs: list[int]) -> int:
    return Run.objects.filter(pk__in=runs, agent=HANGING, status="running", steps__name="hang").count()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
