"""Each judge of what guard promises passes what went well, and notices what did not: planted cases, nothing is called."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agentops.chaos import closed, guarded, measured, proof, verdicts
from agentops.outside.visits import Visit

OPEN_SECONDS, LIMIT, PERIOD_SECONDS = 3.0, 60, 3.0


def world_of(hits: int = 1) -> Any:
    return SimpleNamespace(quick=False, broken=[], figures={}, hits=hits, people=SimpleNamespace(phase="guard: it"))


def calls(*times: float, last: float = 0.01) -> list[Visit]:
    return [Visit("/v1/cards", "", at, at + last) for at in times]


def every(seconds: float, first: float, count: int) -> list[float]:
    return [first + number * seconds for number in range(count)]


@pytest.mark.parametrize(
    ("pace", "used"), [(0.1, 1.0), (0.2, 0.5), (0.05, 2.0)], ids=["all of it", "half of it", "twice what is allowed"]
)
def test_utilisation_counts_neither_the_first_burst_nor_the_time_after_the_counters_were_lost(pace: float, used: float) -> None:
    """Ten calls in one second are allowed; at 20 the counters are lost, and nothing is called until 22."""
    times = every(pace, 0, round(20 / pace)) + every(pace, 22, round(20 / pace))
    assert measured.utilisation(calls(*times), 10, 1.0, 20.0) == pytest.approx(used, rel=0.03)


def test_the_time_in_which_calls_waited_counts_once_however_many_did() -> None:
    waits = [(0.0, 1.0), (0.5, 2.0), (0.6, 0.7), (3.0, 5.0), (9.0, 30.0)]
    assert measured.waited([(0.0, 4.0), (10.0, 14.0)], waits) == pytest.approx((2 + 1 + 4) / 8)
    assert measured.waited([], waits) == 0


def ridden_out(*, visits: list[Visit] | None = None, **more: Any) -> Callable[[Any], None]:
    """From 0 to 10 all fails; the breaker opens at 1, one call tries it every three seconds, and from 13.5 on it is closed."""
    changes = [(1.0, "open"), (4.0, "half-open"), (4.1, "open"), (13.4, "half-open"), (13.5, "closed")]
    outage = verdicts.Outage("500", 0.0, 10.0, 60, 8.0, OPEN_SECONDS, LIMIT / PERIOD_SECONDS, changes)
    seen = calls(*every(0.1, 0, 10), 4.0, 7.1, 13.4, *every(0.5, 13.6, 60)) if visits is None else visits
    return lambda world: verdicts.rides_out(world, replace(outage, **more), seen)


def cancels(**more: Any) -> Callable[[Any], None]:
    good = {"left": 0, "hanging": 20.0, "calling": 2.0, "at_work": 2, "hung": 5, "wanted": 5}
    return lambda world: verdicts.all_end(world, **good | more)


def within(**more: Any) -> Callable[[Any], None]:
    good = {"made": measured.MOST_CALLS, "questions": 1, "made_when_raised": 60, "wanted": 60, "status": "succeeded"}
    return lambda world: verdicts.stays_within(world, **good | more)


def shares(alone: list[float], beside: list[float], left: int = 40) -> Callable[[Any], None]:
    return lambda world: verdicts.shared(world, alone, beside, times=3, left=left)


def uses(share: float = 0.97, cost_ms: float = 1.0, made: int = 300, waiting: float = 1.0) -> Callable[[Any], None]:
    return lambda world: verdicts.used(world, share, cost_ms, made=made, wanted=300, waiting=waiting)


def comes_back(dead: int = 0, at_once: int = 8) -> Callable[[Any], None]:
    return lambda world: verdicts.come_back(world, calls(*every(0.001, 0, at_once), last=1.0), 8, dead=dead, took=15.0)


def degrades(**other: tuple[str, set[str]]) -> Callable[[Any], None]:
    came_to = {way: (status, {"RunStarted", str(event)}) for way, (status, event) in verdicts.DEGRADED.items()} | other
    return lambda world: verdicts.degrades(world, "500", came_to)


GOOD: dict[str, Callable[[Any], None]] = {
    "limit": lambda world: verdicts.keeps(world, calls(*every(0.125, 0, 100)), 24, 3.0),
    "use": uses(),
    "fair": shares([0.1, 0.1, 0.1], [0.2, 0.2, 0.4]),
    "slots": comes_back(),
    "outage": ridden_out(),
    "fallbacks": degrades(),
    "tries": lambda world: verdicts.not_given_up(world, 0),
    "budget": within(),
    "cancel": cancels(),
}
PLANTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "one call too many in one window": (
        lambda world: verdicts.keeps(world, calls(*sorted([*every(0.125, 0, 100), 7.01])), 24, 3.0),
        "the provider saw 25 calls within 3 s, and the limit is 24",
    ),
    "room is left unused": (uses(share=0.949), "of what the limit allows 94.9% were used."),
    "the runs are slow": (uses(share=0.44, waiting=0.4), "waited for it in 40% of the time only: the runs were slower than"),
    "a call is lost": (uses(made=299), "the provider saw 299 calls of 300"),
    "guard is slow": (uses(cost_ms=2.1), "a call costs 2.1 ms"),
    "one of the rare calls waits": (shares([0.1] * 3, [0.2, 0.2, 0.6]), "rare calls waited 0.6 s beside many others"),
    "one of the rare calls is never made": (shares([0.1] * 3, [0.1] * 2), "5 of 6 rare calls were made"),
    "nobody calls beside them any more": (shares([0.1] * 3, [0.1] * 3, left=0), "no other call waited any more"),
    "a slot is lost": (comes_back(dead=1), "1 slots were held since before the last kill"),
    "one more than there are slots": (comes_back(at_once=9), "the provider had 9 calls at once, and there are 8 slots"),
    "two canaries at once": (
        ridden_out(visits=calls(*every(0.1, 0, 10), 4.0, 5.0, 13.4)),
        "more than one call in 3 s while it was open",
    ),
    "no canary": (ridden_out(visits=calls(*every(0.1, 0, 10))), "no call tried it while it was open"),
    "the breaker opens late": (
        ridden_out(visits=calls(*every(0.05, 0, 21), 4.0)),
        "the breaker opened after 21 calls",
    ),
    "the breaker stays open": (ridden_out(changes=[(1.0, "open")]), "the breaker did not open and close again"),
    "the breaker never opens": (ridden_out(changes=[(13.5, "closed")]), "the breaker opened after 73 calls"),
    "all who waited come at once": (
        ridden_out(visits=calls(4.0, 13.4, *every(0.05, 13.6, 60))),
        "18 calls in the first second after the outage",
    ),
    "who waited is forgotten": (ridden_out(drained_seconds=13.0), "it took 13 s to drain, the ideal is 6 s"),
    "nobody waits when it is over": (ridden_out(waited=0), "no run waited when it was over"),
    "a fallback is not in the log": (degrades(other=("succeeded", {"RunStarted"})), "the run that has the fallback 'other'"),
    "a run ends without its fallback": (degrades(partial=("failed", {"StepSkipped"})), "the fallback 'partial' is failed"),
    "nobody is asked": (degrades(person=("running", {"StepEscalated"})), "the fallback 'person' is running"),
    "a step is given up": (lambda world: verdicts.not_given_up(world, 1), "1 steps were given up although they had tries left"),
    "a call beyond the budget": (within(made=21), "21 calls were made of a budget of 20"),
    "a budget is asked about twice": (within(questions=2), "2 questions were asked about one budget"),
    "a call is not made when the budget is raised": (within(made_when_raised=59), "59 of 60 calls were made"),
    "a run ends at its budget": (within(status="failed"), "the run was failed when its budget was raised"),
    "a run goes on": (cancels(left=1), "1 runs did not end as cancelled"),
    "nothing is under way": (cancels(at_work=0), "no call was under way when runs were cancelled"),
    "nothing hangs": (cancels(hung=0), "0 of 5 runs hung when they were cancelled"),
    "what hangs hangs on": (cancels(hanging=31.0), "a run that hung was 31 s being cancelled"),
    "what does not hang goes on": (cancels(calling=7.0), "a run that did not hang was 7 s being cancelled"),
}


@pytest.mark.parametrize("what", GOOD)
def test_what_went_well_passes(what: str) -> None:
    world = world_of()
    GOOD[what](world)
    assert world.broken == []
    assert world.figures, "and there is a figure of it"


@pytest.mark.parametrize("what", PLANTED)
def test_the_judge_of_guard_notices(what: str) -> None:
    world = world_of()
    judge, sentence = PLANTED[what]
    judge(world)
    assert [one for one in world.broken if sentence in one], world.broken


def test_the_overshoot_of_a_budget_is_a_figure() -> None:
    world = world_of()
    within(made=23)(world)
    assert world.figures["overshoot in calls"] == 3


def test_what_came_over_nothing_has_shown_nothing() -> None:
    def nothing(world: Any) -> Any:
        yield 0

    world = world_of(hits=0)
    assert list(proof.counted(nothing)(world)) == [0]
    assert world.broken == ["guard: it: nothing came of it, so nothing was shown."]
    assert {fault.inject.__name__ for fault in (*guarded.GUARDED, *closed.CLOSED)} == {"phase"}, "each of them is judged so"
