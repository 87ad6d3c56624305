"""The inbox under many hands: people who decide, take and send the same at one moment, judged by rows, log and ledger."""

import time
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING

from django.contrib.auth.models import Group

from agentops.chaos import ledger
from agentops.chaos.faults import Fault, Injected
from agentops.chaos.flood import flood
from agentops.chaos.hands import REVIEWERS, Hands, hands
from agentops.chaos.proof import judge, over, until
from agentops.visitor import Answer, Visitor
from reviews import notices
from reviews.models import Decision, Review, ReviewEvent
from runs import commands, event_log

if TYPE_CHECKING:
    from agentops.chaos.trial import World

ASKS, HURRIES = "chaos-wait", "chaos-hurry"
KINDS = ("approve", "reject", "edit")
MOST_DECIDERS = 8
SECONDS = 75.0  # for one proof, among all the others of a full trial; by itself it takes what it takes
WON, LOST = 302, 409


def deciders(world: "World") -> Injected:
    """Two to eight people decide one review at the same moment, each in another way."""
    people = _hands(world)
    reviews = yield from _asked(world, ASKS, 4 if world.quick else 1000)
    done = []
    for number, review in enumerate(_in_time(world, reviews)):
        chosen = people.visitors[: 2 + number % (MOST_DECIDERS - 1)]
        kinds = [KINDS[(number + place) % len(KINDS)] for place in range(len(chosen))]
        tries = [partial(people.decide, visitor, review, kind) for visitor, kind in zip(chosen, kinds, strict=True)]
        answers = people.together(*tries)
        _one_has_won(world, review, answers)
        done.append(review)
        if number % 10 == 0:
            yield 0
    yield from over(world)
    world.count(len(done))
    _happened_once(world, done)


def takers(world: "World") -> Injected:
    """Twenty people press "Next" at the same moment, again and again, until nothing is left to be taken."""
    taken: list[str] = []
    people = _hands(world)
    reviews = yield from _asked(world, ASKS, 9 if world.quick else 1000)
    press = [
        partial(visitor.post, f"/reviews/next/?agent={ASKS}") for visitor in people.visitors[: 4 if world.quick else REVIEWERS]
    ]
    left, end, in_vain = Review.objects.open().filter(agent=ASKS, claim=None), _end(world), 0
    while left.exists() and time.monotonic() < end:
        given = [one.location for one in people.together(*press) if one.location.split("/")[2].isdecimal()]
        taken += given
        in_vain += not given
        yield 0
    most = Counter(taken).most_common(1)[0][1] if taken else 0
    world.count(len(taken))
    world.figures |= {"times that one was taken at most": most, "times that nobody was given one": in_vain}
    judge(world, most == 1, f"a review was given to {most} people")
    judge(world, left.exists() or len(taken) == len(reviews), f"{len(taken)} of {len(reviews)} reviews were given away")
    yield from over(world)


def races(world: "World") -> Injected:
    """A decision at the same moment as a cancel, a fork, and an escalation to a second group."""
    rivals: dict[str, Callable[[Review], object]] = {"cancel": _cancel, "fork": _fork, "escalation": _escalate}
    people = _hands(world)
    for name, rival in rivals.items():
        reviews = yield from _asked(world, ASKS, 3 if world.quick else 500)
        won = 0
        for number, review in enumerate(_in_time(world, reviews, share=len(rivals) + 1)):
            kind = "approve" if number % 2 else "reject"
            answer, _ = people.together(
                partial(people.decide, people.visitors[number % 2], review, kind), partial(_soon, world, people, rival, review)
            )
            won += _they_agree(world, review, answer, name)
            world.count(1)
            if number % 10 == 0:
                yield 0
        world.figures[f"decided before or beside the {name}"] = won
        yield from over(world)
    asked = ReviewEvent.objects.filter(kind=ReviewEvent.Kind.ESCALATED, review__run__input__phase=world.people.phase)
    times = Counter(asked.values_list("review", flat=True)).values()
    world.figures["second groups asked"] = len(times)
    judge(world, max(times, default=0) <= 1, "a second group was asked twice about a review")


def deadlines(world: "World") -> Injected:
    """A decision at the very moment at which the time for it runs out."""
    won, at_once, wanted = 0, 4 if world.quick else MOST_DECIDERS, 4 if world.quick else 500
    people = _hands(world)
    end = _end(world)
    while world.hits < wanted and time.monotonic() < end:
        reviews = yield from _asked(world, HURRIES, at_once)
        tries = [partial(_at_the_end, world, people, *one) for one in zip(people.visitors, reviews, strict=False)]
        answers = people.together(*tries)
        ids = [review.pk for review in reviews]
        yield from until(world, lambda ids=ids: not Review.objects.open().filter(pk__in=ids).exists())  # type: ignore[misc]
        won += sum(_they_agree(world, *one, "deadline") for one in zip(reviews, answers, strict=True))
        world.count(at_once)
    yield from over(world)
    world.figures["decided before the deadline"] = won


def resubmits(world: "World") -> Injected:
    """A double click, the same form again after the run went on, and another decision from another tab."""
    people = _hands(world)
    reviews = yield from _asked(world, ASKS, 4 if world.quick else 200)
    mine = people.visitors[0]
    other_tab = Visitor(people.visitors[1].port, mine.user)
    for review in _in_time(world, reviews):
        twice = people.together(
            partial(people.decide, mine, review, "approve"), partial(people.decide, other_tab, review, "approve")
        )
        yield 0
        again, otherwise = people.decide(mine, review, "approve"), people.decide(other_tab, review, "reject")
        statuses = [one.status for one in (*twice, again, otherwise)]
        judge(world, statuses == [WON, WON, WON, LOST], f"the same form, sent again, was answered with {statuses}")
        judge(world, Decision.objects.filter(review=review).count() == 1, "a form that was sent twice decided twice")
        world.count(1)
    yield from over(world)
    _happened_once(world, reviews[: world.hits])


INBOX = [
    Fault(f"inbox: {name}", proof, inject, times, runs=(0, 0), every=(0, 0), alone=True, target=target)
    for name, proof, inject, times, target in (
        ("many decide one", "H1", deciders, (1, 1), 1000),
        ("many take the next", "H2", takers, (0, 1), 1000),
        ("decision beside something else", "H3", races, (0, 1), 1500),
        ("decision at the deadline", "H3", deadlines, (0, 1), 500),
        ("sent again", "H5", resubmits, (0, 1), 200),
        ("a flood", "H7", flood, (1, 1), 1000),
    )
]


# --- what happens at the same moment ------------------------------------------------------------------------------


def _cancel(review: Review) -> None:
    try:
        commands.cancel(review.run_id, by="operator", reason="at the same moment")
    except commands.Refused:
        return  # it has ended by the decision


def _fork(review: Review) -> None:
    """The fork itself is not wanted: it would do outside what its original does."""
    fork = commands.fork(review.run_id, step=1, by="operator")
    commands.cancel(fork.pk, by="operator", reason="as in every trial")


def _escalate(review: Review) -> None:
    others = Group.objects.get(name="Operator")
    Review.objects.open().filter(pk=review.pk).update(escalate_at=event_log.now(), second_group=others)
    notices.escalate_due()


def _soon(world: "World", people: Hands, rival: Callable[[Review], object], review: Review) -> None:
    """Somewhere in the time that a decision needs to arrive and to be recorded."""
    time.sleep(world.chance.uniform(0, people.took))
    rival(review)


def _at_the_end(world: "World", people: Hands, visitor: Visitor, review: Review) -> Answer:
    """So much before the deadline, by the database's clock, that it arrives about then."""
    left = (review.due_at or event_log.now()) - event_log.now()
    time.sleep(max(0.0, left.total_seconds() - world.chance.uniform(0, 1.5 * people.took)))
    return people.decide(visitor, review, "approve")


# --- what must be so ----------------------------------------------------------------------------------------------


def _one_has_won(world: "World", review: Review, answers: list[Answer]) -> None:
    """The others are told who was first, what they did and when."""
    statuses = sorted(answer.status for answer in answers)
    told = f"review {review.pk} was answered with {statuses}"
    judge(world, statuses == [WON] + [LOST] * (len(answers) - 1), told)
    winner = Review.objects.get(pk=review.pk).decision
    judge(world, winner is not None and Decision.objects.filter(review=review).count() == 1, f"{told}, and not decided once")
    for answer in answers:
        if answer.status == LOST and winner:
            says = f"{winner.actor} " in answer.body and f"{winner.decided_at:%Y-%m-%d %H:%M}" in answer.body
            judge(world, says, f"who lost review {review.pk} was not told who was first and when")


def _they_agree(world: "World", review: Review, answer: Answer, rival: str) -> bool:
    """The person was told what the rows say, and the rows say one thing: whether the decision counted."""
    review.refresh_from_db()
    kinds = Counter(row.kind for row in event_log.rows(review.run_id) if row.step == review.position)
    decided = review.state == Review.State.DECIDED
    withdrawn = review.state in (Review.State.CANCELLED, Review.State.EXPIRED)
    told = f"beside the {rival} review {review.pk} was answered with {answer.status} and is {review.state}"
    judge(world, decided or withdrawn, told)
    judge(world, decided == (answer.status == WON), told)
    judge(world, decided == bool(review.decision) == (kinds["StepDecided"] == 1), f"{told}; its log says {dict(kinds)}")
    return decided


def _happened_once(world: "World", reviews: list[Review]) -> None:
    """Each run went on once from its decision, and outside there is one effect, or none where it was rejected."""
    effects = Counter(row["run_id"] for row in ledger.rows())
    for review in reviews:
        decision = review.decision
        wanted = 0 if decision is None or decision.kind == "reject" else 1
        told = f"run {review.run_id} was decided with {decision and decision.kind}"
        judge(world, effects[review.run_id] == wanted, f"{told} and had {effects[review.run_id]} effects")
        resumed = sum(row.kind == "RunResumed" for row in event_log.rows(review.run_id))
        judge(world, resumed == 1, f"{told} and was resumed {resumed} times")


# --- parts --------------------------------------------------------------------------------------------------------


def _hands(world: "World") -> Hands:
    """The same for every proof."""
    if world.hands is None:
        world.hands = world.stack.enter_context(hands())
    return world.hands


def _asked(world: "World", agent: str, count: int) -> Generator[float, None, list[Review]]:
    """So many runs of the agent that have come to their question, which nobody else decides."""
    world.people.leave_alone.add(agent)
    commands.configuration(agent)
    commands.configure(agent, by="chaos", reviews_per_agent=10 * count)
    runs = [run_id for first in range(0, count, 100) for run_id in world.people.start_together(agent, min(100, count - first))]
    reviews = Review.objects.filter(run__in=runs).order_by("pk")
    yield from until(world, lambda: reviews.count() == count)
    return list(reviews)


def _in_time(world: "World", reviews: list[Review], share: int = 1) -> Generator[Review, None, None]:
    """As many as there is time for."""
    end = _end(world, share)
    for review in reviews:
        if time.monotonic() > end:
            return
        yield review


def _end(world: "World", share: int = 1) -> float:
    return time.monotonic() + (SECONDS / share if world.hurried else 10**6)
