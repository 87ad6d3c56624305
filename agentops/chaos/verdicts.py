"""What did not hold of what guard promises, given what a provider saw: each judge is shown a planted case by the tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentops.chaos.measured import MOST_CALLS, between, calls_at_once, most_calls, p95
from agentops.chaos.proof import judge
from runs.engine.events import Kind

if TYPE_CHECKING:
    from agentops.chaos.trial import World
    from agentops.outside.visits import Visit

LEAST_UTILISATION = 0.95
MOST_COST_MS = 2.0
NOTICED_SECONDS = 0.25  # twice a wait shorter than this is no harm
SETTLED_SECONDS = 0.3  # what had entered when the breaker opened has arrived by then
MOST_FAILURES = 20  # until a breaker opens
SLOTS_BACK_SECONDS = 30.0
CANCELLED_SECONDS = 30.0  # also what hangs
COOPERATIVE_SECONDS = 6.0  # what does not: a call of a second, and five


def keeps(world: "World", visits: "Sequence[Visit]", limit: int, period: float) -> None:
    """Never more than the limit, in any window."""
    most = most_calls(visits, period)
    world.figures |= {"limit": limit, f"most calls in any {period:g} s": most}
    judge(world, most <= limit, f"the provider saw {most} calls within {period:g} s, and the limit is {limit}")


def used(world: "World", share: float, cost_ms: float, *, made: int, wanted: int, waiting: float) -> None:
    """All calls were made, as quickly as the limit allows, and guard itself costs next to nothing.

    `waiting` is the share of the time in which calls were held back at all: it tells guard from runs that were slow to come.
    """
    world.figures |= {"a call costs p50 ms": cost_ms}
    world.figures |= {} if world.quick else {"utilisation": round(share, 3), "time with calls waiting": round(waiting, 3)}
    judge(world, made >= wanted, f"the provider saw {made} calls of {wanted}")
    slow = f"; but calls waited for it in {waiting:.0%} of the time only: the runs were slower than the limit"
    told = f"of what the limit allows {share:.1%} were used{slow if waiting < LEAST_UTILISATION else ''}"
    judge(world, world.quick or share >= LEAST_UTILISATION, told)
    judge(world, world.quick or cost_ms <= MOST_COST_MS, f"a call costs {cost_ms} ms")


def shared(world: "World", alone: list[float], beside: list[float], *, times: int, left: int) -> None:
    """Who calls now and then waits no longer beside somebody who calls without end: so many of those calls waited still."""
    long_alone, long_beside = p95(alone), p95(beside)
    world.figures |= {"p95 wait alone": long_alone, "p95 wait beside": long_beside, "calls still waiting": left}
    made = len(alone) + len(beside)
    judge(world, made == 2 * times, f"{made} of {2 * times} rare calls were made")
    judge(world, left > 0, "no other call waited any more beside the last rare ones, so nothing was shown")
    fair = long_beside <= 2 * max(long_alone, NOTICED_SECONDS)
    judge(world, fair, f"rare calls waited {long_beside} s beside many others, {long_alone} s alone")


def come_back(world: "World", visits: "Sequence[Visit]", limit: int, *, dead: int, took: float) -> None:
    """Slots of processes that were killed; and never are more calls inside than there are slots."""
    most = calls_at_once(visits)
    world.figures |= {"slots": limit, "most calls at once": most, "slots of the dead": dead, "free again after s": round(took, 1)}
    judge(world, not dead, f"{dead} slots were held since before the last kill, {SLOTS_BACK_SECONDS:g} s after it")
    judge(world, most <= limit, f"the provider had {most} calls at once, and there are {limit} slots")


@dataclass(frozen=True, slots=True)
class Outage:
    """One of them: from `begun` to `over`; then so many runs waited, until the last had ended. Times are seconds since 1970."""

    kind: str
    begun: float
    over: float
    waited: int
    drained_seconds: float
    open_seconds: float  # as the breaker is configured
    per_second: float  # calls that the limit allows
    changes: list[tuple[float, str]]  # of the breaker: when, to which state


def rides_out(world: "World", outage: Outage, visits: "Sequence[Visit]") -> None:
    """The breaker opens soon, one call tries it now and then, and those who waited come in growing cohorts, all in good time."""
    kind, open_s = outage.kind, outage.open_seconds
    first = next((at for at, new in outage.changes if new == "open"), math.inf)
    closed = next((at for at, new in outage.changes if new == "closed" and at >= outage.over), math.inf)
    failures = between(visits, outage.begun, first + SETTLED_SECONDS)
    canaries = [visit for visit in visits if first + SETTLED_SECONDS <= visit.at < min(outage.over, closed)]
    most, ideal = most_calls(canaries, 0.95 * open_s), open_s + outage.waited / outage.per_second
    ramp = [between(visits, closed + second, closed + second + 1) for second in range(3)]
    world.figures |= {
        f"{kind}: calls until it opened": failures,
        f"{kind}: canaries": len(canaries),
        f"{kind}: canaries in any {open_s:g} s": most,
        f"{kind}: runs that waited": outage.waited,
        f"{kind}: drained after s": round(outage.drained_seconds, 1),
        f"{kind}: ideal s": round(ideal, 1),
    } | {f"{kind}: calls in second {number} after it": calls for number, calls in enumerate(ramp, start=1)}
    judge(world, closed < math.inf, f"{kind}: the breaker did not open and close again")
    judge(world, outage.waited > 0, f"{kind}: no run waited when it was over, so nothing was shown of how they were let in")
    judge(world, failures <= MOST_FAILURES, f"{kind}: the breaker opened after {failures} calls")
    judge(world, len(canaries) > 0, f"{kind}: no call tried it while it was open, so nothing was shown of that")
    judge(world, most <= 1, f"{kind}: more than one call in {open_s:g} s while it was open")
    judge(world, ramp[0] < outage.per_second / 2, f"{kind}: {ramp[0]} calls in the first second after the outage")
    took = outage.drained_seconds
    judge(world, world.quick or took <= 2 * ideal, f"{kind}: it took {took:.0f} s to drain, the ideal is {ideal:.0f} s")


# What a run comes to whose fallback is another worker, a person, or nothing; and the event that says which was taken.
DEGRADED = {
    "other": ("succeeded", Kind.FALLBACK_TAKEN),
    "person": ("waiting", Kind.STEP_ESCALATED),
    "partial": ("partial", Kind.STEP_SKIPPED),
}


def degrades(world: "World", kind: str, came_to: dict[str, tuple[str, set[str]]]) -> None:
    """The status of the run of each way, and the kinds of its events."""
    held = {way: came_to[way][0] == status and event in came_to[way][1] for way, (status, event) in DEGRADED.items()}
    world.figures[f"{kind}: fallbacks taken"] = sum(held.values())
    for way, (status, _) in came_to.items():
        judge(world, held[way], f"{kind}: the run that has the fallback {way!r} is {status}, or does not say what was taken")


def not_given_up(world: "World", gave_up: int) -> None:
    """Steps that could have been tried again."""
    world.figures["failed or escalated that had tries left"] = gave_up
    judge(world, not gave_up, f"{gave_up} steps were given up although they had tries left")


def stays_within(world: "World", *, made: int, questions: int, made_when_raised: int, wanted: int, status: str) -> None:
    """A budget in calls: none beyond it, one question, and all of them when it is raised."""
    world.figures |= {
        "budget in calls": MOST_CALLS,
        "overshoot in calls": made - MOST_CALLS,
        "questions": questions,
        "calls when it was raised": made_when_raised,
    }
    judge(world, made == MOST_CALLS, f"{made} calls were made of a budget of {MOST_CALLS}")
    judge(world, questions == 1, f"{questions} questions were asked about one budget")
    judge(world, made_when_raised == wanted, f"{made_when_raised} of {wanted} calls were made when it was raised")
    judge(world, status == "succeeded", f"the run was {status} when its budget was raised")


def all_end(world: "World", *, left: int, hanging: float, calling: float, at_work: int, hung: int, wanted: int) -> None:
    """Runs that were cancelled; so many seconds the longest took, of those that hang and of those that do not.

    At that moment so many calls were under way, and so many runs hung of as many as wanted.
    """
    longest = {"longest from asked to ended s": max(hanging, calling), "the same of what does not hang": calling}
    world.figures |= {name: round(seconds, 1) for name, seconds in longest.items()} | {"not cancelled": left}
    judge(world, at_work > 0, "no call was under way when runs were cancelled, so nothing was shown of those")
    judge(world, hung == wanted, f"{hung} of {wanted} runs hung when they were cancelled")
    judge(world, not left, f"{left} runs did not end as cancelled")
    judge(world, hanging <= CANCELLED_SECONDS, f"a run that hung was {hanging:.0f} s being cancelled")
    in_time = calling <= (CANCELLED_SECONDS if world.quick else COOPERATIVE_SECONDS)
    judge(world, in_time, f"a run that did not hang was {calling:.0f} s being cancelled")
