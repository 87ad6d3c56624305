"""One run that asks people a thousand times: they see few of its questions, and everything else as ever."""

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from django.http import QueryDict

from agentops.chaos.faults import Injected
from agentops.chaos.proof import judge, over, until
from reviews.listing import Listing, listing
from reviews.models import Review
from runs import commands
from runs.models import Run, Step, open_reviews

if TYPE_CHECKING:
    from agentops.chaos.trial import World

FLOODS, CRITICAL, OTHERS = "chaos-flood", "chaos-critical", "chaos-wait"
CAP = 20  # open reviews of a run, and of its agent
FIRST = 5  # places of the inbox that people look at in any case
LATER_RUNS = 2  # of the agent that floods, begun while it is paused
SLOWER, SLOWER_SECONDS = 2.0, 1.0  # others may come to their questions so much later, on a machine that has more to do


def flood(world: "World") -> Injected:
    """Beside the flood others ask, and one of them about something that must not wait."""
    people, doubts, others = world.people, 60 if world.quick else 1000, 2 if world.quick else 20
    people.leave_alone |= {FLOODS, CRITICAL, OTHERS}
    for agent, most in ((FLOODS, CAP), (OTHERS, 10 * others)):
        commands.configuration(agent)
        commands.configure(agent, by="chaos", reviews_per_run=CAP, reviews_per_agent=most)
    before = yield from _asked(world, others)
    run = commands.start(FLOODS, {"phase": people.phase, "which": doubts, "number": doubts}, by="operator")
    yield from until(world, lambda: Step.objects.filter(run=run).exists())
    beside = yield from _asked(world, others)
    critical = people.start(CRITICAL, 1)
    doubted, held = Step.objects.filter(run=run, status="waiting"), Run.objects.filter(pk=run.pk, status="waiting")
    yield from until(world, lambda: doubted.count() == doubts and held.exists() and _open(CRITICAL) == 1)
    world.count(doubted.count())
    judge(world, doubted.count() == doubts, f"{doubted.count()} of {doubts} doubts came to their question")
    _people_see_little_of_it(world, run, listing(QueryDict()), critical[0])
    _others_wait_no_longer(world, before, beside)
    yield from _its_agent_is_paused(world)
    yield from _it_goes_on_by_itself(world, run, doubts)
    yield from over(world)


def _asked(world: "World", count: int) -> Generator[float, None, list[float]]:
    """How long each of so many runs of another agent took to come to its question."""
    runs = world.people.start_together(OTHERS, count)
    reviews = Review.objects.filter(run__in=runs)
    yield from until(world, lambda: reviews.count() == count)
    judge(world, reviews.count() == count, f"{count - reviews.count()} of {count} runs of another agent came to no question")
    return [(one.opened_at - one.run.created_at).total_seconds() for one in reviews.select_related("run")]


def _open(agent: str) -> int:
    return open_reviews.of_agent(agent)


def _people_see_little_of_it(world: "World", run: Run, shown: Listing, critical: int) -> None:
    rows = [row for row in shown.rows if row.review.run_id == run.pk]
    judge(world, _open(FLOODS) == CAP, f"{_open(FLOODS)} reviews of the run that floods are open, not {CAP}")
    judge(world, [row.alike for row in rows] == [CAP], f"they are not one row of the inbox but {len(rows)}")
    first = [row.review.run_id for row in shown.rows[:FIRST]]
    judge(world, critical in first, f"what must not wait is not among the first {FIRST}")
    world.figures["open reviews of the flood"] = _open(FLOODS)


def _others_wait_no_longer(world: "World", before: list[float], beside: list[float]) -> None:
    """Judged in the full form alone, as all seconds are."""
    usual, now = _p95(before), _p95(beside)
    world.figures |= {"others' way to their question, p95 in s, before": usual, "beside": now}
    told = f"others came to their questions within {now} s, and within {usual} s before the flood"
    judge(world, world.quick or now <= SLOWER * usual + SLOWER_SECONDS, told)


def _p95(seconds: list[float]) -> float:
    return round(sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1], 3) if seconds else 0.0


def _its_agent_is_paused(world: "World") -> Injected:
    """Its later runs wait before their first step, and people are told so."""
    later = [
        commands.start(FLOODS, {"phase": world.people.phase, "which": which, "number": which}, by="operator").pk
        for which in range(1, LATER_RUNS + 1)
    ]
    held = Run.objects.filter(pk__in=later, status="waiting", waiting_cause=open_reviews.CAUSE, step_count=0)
    yield from until(world, lambda: held.count() == LATER_RUNS)
    judge(world, held.count() == LATER_RUNS, f"{LATER_RUNS - held.count()} runs of an agent that is paused have begun")
    judge(world, bool(open_reviews.paused(FLOODS)), "nobody is told that the agent is paused")


def _it_goes_on_by_itself(world: "World", run: Run, doubts: int) -> Injected:
    """As many as are decided are asked next, and no worker is called twice; when the run ends its agent is paused no more."""
    asked = Review.objects.filter(run=run)
    world.people.decide_about(FLOODS, CAP)
    yield from until(world, lambda: asked.count() == 2 * CAP)
    now = (asked.count(), asked.open().count())
    judge(world, now == (2 * CAP, CAP), f"when {CAP} had been decided {now[0]} had been asked, and {now[1]} are open")
    again = Step.objects.filter(run=run, attempt__gt=1).count()
    judge(world, not again, f"{again} of {doubts} workers were called again")
    commands.cancel(run.pk, by="operator", reason="as in every trial")
    yield from until(world, lambda: _open(FLOODS) == sum(range(1, LATER_RUNS + 1)))
    judge(world, not asked.open().exists(), "reviews of a run that was cancelled are open")
    judge(world, _open(FLOODS) > 0, "the agent is paused although there is room")
