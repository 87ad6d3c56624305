"""What guard promises, under load and faults: judged by what the provider itself saw and by what the log says."""

import math
import signal
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import django_rq

from agentops import people as accounts
from agentops.chaos.faults import Fault, Injected, owned_by
from agentops.chaos.fleet import send
from agentops.chaos.measured import (
    CALLS_EACH,
    MOST_CALLS,
    PARTS,
    between,
    calls_at_once,
    given_up,
    longest_cancel,
    most_calls,
    p95,
    utilisation,
)
from agentops.chaos.proof import judge, until
from agentops.chaos.provider import Provider
from reviews import decisions
from reviews.models import Review
from runs import commands, dependencies
from runs.models import BreakerChange, Run
from runs.models.run import ENDED
from runs.reliability import guard, terms
from runs.reliability.slots import holders

if TYPE_CHECKING:
    from agentops.chaos.trial import World
    from agentops.outside.visits import Visit

NAME = guard.declare("card-processor", kind="api")
MANY, RARE, HANGING, SPENDING, PART = "chaos-call", "chaos-rare", "chaos-hang", "chaos-spend", "chaos-part"
PLAIN: dict[str, Any] = {
    "connect_timeout_seconds": 2, "read_timeout_seconds": 5, "attempt_timeout_seconds": 8,
    "limit_requests": None, "limit_period_seconds": 60, "concurrency": None,
    "breaker_failure_ratio": 0.5, "breaker_minimum_calls": 10, "breaker_window_seconds": 10, "breaker_open_seconds": 10,
    "retry_attempts": 20, "retry_first_wait_seconds": 0.5, "retry_longest_wait_seconds": 4,
}  # fmt: skip
WARM_UP = 8  # calls, until every process is there
LEAST_UTILISATION = 0.95
MOST_COST_MS = 2.0
NOTICED_SECONDS = 0.25  # twice a wait shorter than this is no harm
SETTLED_SECONDS = 0.3  # what had entered when the breaker opened has arrived by then
MOST_FAILURES = 20  # until a breaker opens
SLOTS_BACK_SECONDS = 30.0
CANCELLED_SECONDS = 30.0


def rate_limit(world: "World") -> Injected:
    """Far more calls than the limit allows; Redis forgets everything half-way."""
    limit, period, runs, calls = (20, 3.0, 25, 2) if world.quick else (50, 4.0, 75, 4)
    there = yield from provided(world, limit_requests=limit, limit_period_seconds=period)
    world.figures["a call costs p50 ms"] = cost = _cost_ms(50 if world.quick else 1000)
    start(world, MANY, runs, calls=calls)
    yield from until(world, lambda: there.count() >= runs * calls / 2)
    flushed = time.time()
    django_rq.get_connection("default").flushall()
    yield from until(world, lambda: _all_ended(world))
    visits = there.visits()
    used = utilisation(visits, limit, period, flushed)
    _keeps(world, visits, limit, period)
    world.count(len(visits))
    world.figures |= {} if world.quick else {"utilisation": round(used, 3)}
    judge(world, len(visits) >= runs * calls, f"the provider saw {len(visits)} calls of {runs * calls}")
    judge(world, world.quick or used >= LEAST_UTILISATION, f"of what the limit allows {used:.0%} were used")
    judge(world, world.quick or cost <= MOST_COST_MS, f"a call costs {cost} ms")


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
    alone, beside = p95(waits[:times]), p95(waits[times:])
    world.count(len(visits))
    world.figures |= {"p95 wait alone": alone, "p95 wait beside": beside, "calls still waiting": left}
    world.figures |= {"its step alone": p95(steps[:times]), "its step beside": p95(steps[times:])}
    _keeps(world, visits, limit, period)
    judge(world, len(waits) == 2 * times, f"{len(waits)} of {2 * times} rare calls were made")
    fair = beside <= 2 * max(alone, NOTICED_SECONDS)
    judge(world, fair, f"rare calls waited {beside} s beside many others, {alone} s alone")


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
    yield from until(world, lambda: not _dead(world) or time.time() - last > SLOTS_BACK_SECONDS)
    dead, took = len(_dead(world)), time.time() - last
    there.recover()
    yield from until(world, lambda: _all_ended(world))
    visits = there.visits()
    most = calls_at_once(visits)
    world.figures |= {"slots": limit, "most calls at once": most, "slots of the dead": dead, "free again after s": round(took, 1)}
    judge(world, not dead, f"{dead} slots were held by dead processes {SLOTS_BACK_SECONDS:g} s after the last kill")
    judge(world, most <= limit, f"the provider had {most} calls at once, and there are {limit} slots")


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
    _keeps(world, there.visits(), limit, period)
    gave_up = given_up(world.people.phase)
    world.figures["failed or escalated that had tries left"] = gave_up
    judge(world, not gave_up, f"{gave_up} steps were given up although they had tries left")


def _one_outage(
    world: "World", there: Provider, kind: str, *, runs: int, lasts: float, opened: float, per_second: float
) -> Injected:
    begun = time.time()
    there.fault(kind, 120.0)
    start(world, MANY, runs)
    yield from until(world, lambda: time.time() - begun > lasts)
    over = there.recover()
    left = Run.objects.filter(agent=MANY, input__phase=world.people.phase).exclude(status__in=ENDED).count()
    yield from until(world, lambda: _all_ended(world))
    visits, drained = there.visits(since=begun), time.time() - over
    changes = [(change.at.timestamp(), change.new) for change in reversed(BreakerChange.objects.filter(at__gte=_moment(begun)))]
    first = next((at for at, new in changes if new == "open"), math.inf)
    closed = next((at for at, new in changes if new == "closed" and at >= over), math.inf)
    failures = between(visits, begun, first + SETTLED_SECONDS)
    canaries = [visit for visit in visits if first + SETTLED_SECONDS <= visit.at < min(over, closed)]
    ideal = opened + left / per_second
    ramp = [between(visits, closed + second, closed + second + 1) for second in range(3)]
    world.count(runs)
    world.figures |= {
        f"{kind}: calls until it opened": failures,
        f"{kind}: canaries in any {opened:g} s": most_calls(canaries, 0.95 * opened),
        f"{kind}: runs that waited": left,
        f"{kind}: drained after s": round(drained, 1),
        f"{kind}: ideal s": round(ideal, 1),
    } | {f"{kind}: calls in second {number} after it": calls for number, calls in enumerate(ramp, start=1)}
    judge(world, closed < math.inf, f"{kind}: the breaker did not open and close again")
    judge(world, failures <= MOST_FAILURES, f"{kind}: the breaker opened after {failures} calls")
    judge(world, most_calls(canaries, 0.95 * opened) <= 1, f"{kind}: more than one call in {opened:g} s while it was open")
    judge(world, ramp[0] < per_second / 2, f"{kind}: {ramp[0]} calls in the first second after the outage")
    judge(world, world.quick or drained <= 2 * ideal, f"{kind}: it took {drained:.0f} s to drain, the ideal is {ideal:.0f} s")


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
    wanted, all_made = PARTS * CALLS_EACH, there.count()
    world.count(wanted)
    world.figures |= {
        "budget in calls": MOST_CALLS,
        "calls made": made,
        "questions": questions,
        "calls when it was raised": all_made,
    }
    judge(world, made == MOST_CALLS, f"{made} calls were made of a budget of {MOST_CALLS}")
    judge(world, questions == 1, f"{questions} questions were asked about one budget")
    judge(world, all_made == wanted, f"{all_made} of {wanted} calls were made when it was raised")
    judge(world, Run.objects.get(pk=runs[0]).status == "succeeded", "the run did not succeed when its budget was raised")


def cancelled(world: "World") -> Injected:
    """Runs are cancelled while they call outside; some of them hang in C, where no exception reaches them."""
    calling, hanging = (6, 0) if world.quick else (45, 5)
    there = yield from provided(world)
    there.fault("latency", 0.8)
    runs = [*start(world, HANGING, hanging), *start(world, MANY, calling, calls=10)]
    yield from until(world, lambda: _under_way(there) >= 2 and _hang(runs) == hanging)
    for run_id in runs:
        commands.cancel(run_id, by="operator", reason="as in every trial")
        yield 0
    yield from until(world, lambda: _all_ended(world))
    there.recover()
    took = longest_cancel(world.people.phase)
    left = Run.objects.filter(pk__in=runs).exclude(status="cancelled").count()
    world.count(len(runs))
    world.figures |= {"longest from asked to ended s": round(took, 1), "not cancelled": left}
    judge(world, not left, f"{left} runs did not end as cancelled")
    judge(world, took <= CANCELLED_SECONDS, f"a run was {took:.0f} s being cancelled")


# In the quick form only what no test of the suite tries by itself: it has 90 s.
GUARDED = [
    Fault(f"guard: {name}", proof, inject, times, runs=(0, 0), every=(0, 0), alone=True, target=target)
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


def _keeps(world: "World", visits: "list[Visit]", limit: int, period: float) -> None:
    """Never more than the limit, in any window."""
    most = most_calls(visits, period)
    world.figures |= {"limit": limit, f"most calls in any {period:g} s": most}
    judge(world, most <= limit, f"the provider saw {most} calls within {period:g} s, and the limit is {limit}")


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


def _dead(world: "World") -> set[str]:
    """Those of them that no living process carries."""
    alive = {str(run_id) for run_id, _ in owned_by([worker.pid for worker in world.fleet.workers if worker.alive])}
    return _held() - alive


def _hang(runs: list[int]) -> int:
    return Run.objects.filter(pk__in=runs, agent=HANGING, status="running", steps__name="hang").count()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
