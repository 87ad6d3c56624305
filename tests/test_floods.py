"""Floods of reviews: a run with its family, and an agent, have so many open; the rest waits, and goes on by itself."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from reviews import digest, notices
from reviews.models import Notice, NoticeSettings, Review, Risk
from runs import audit, commands, describe, event_log, executor, floods, keeper, policies, sdk, waiting
from runs.models import Run, open_reviews
from runs.passes import Pass
from runs.sdk import Result, agent, call, worker
from tests.agents import Answer, Order, pay

pytestmark = pytest.mark.django_db
CALLED: list[str] = []


@worker
def doubt(name: str) -> Result[str]:
    CALLED.append(name)
    return Result(name, 0.1)


@agent("flooding", title="Flooding", version="1", threshold=0.8)
def flooding(run: sdk.Run, order: Order) -> Answer:
    """Doubts so often: side by side, or in as many children; with "pay", it also asks so often before it pays."""
    if order.text == "children":
        outcomes = run.join(*run.spawn_many("children", "flooding", [{"text": "one", "number": 1}] * order.number))
        return Answer(said=" ".join(one.status for one in outcomes))
    calls: list[Any] = [call(f"doubt_{number}", doubt, name=str(number)) for number in range(order.number)]
    if order.text == "pay":
        gated = pay.gated("Money leaves the house.")
        calls += [call(f"pay_{number}", gated, amount=float(number)) for number in range(order.number)]
    return Answer(said=str(len(run.gather(*calls))))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    CALLED.clear()


def started(text: str, number: int, **caps: int) -> Run:
    commands.configure("flooding", by="admin", **caps)
    return advanced(commands.start("flooding", {"text": text, "number": number}, by="operator"))


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def open_() -> list[Review]:
    return list(Review.objects.open().in_turn())


def decide(review: Review, decision: str = "approve") -> None:
    commands.decide(review.run_id, review.position, decision, by="reviewer", fingerprint=review.fingerprint)
    Review.objects.filter(pk=review.pk).update(state="decided")


def everything_due() -> None:
    """What the sweeper and the job processes would do now."""
    floods.wake()
    for run in Run.objects.due().order_by("pk"):
        advanced(run)


def test_a_thousand_doubts_of_one_run_are_twenty_reviews_and_what_is_risky_comes_first() -> None:
    run = started("gather", 1000)
    advanced(commands.start("paying", {"text": "rent", "number": 5}, by="operator"))
    found = open_()
    assert (len(found), len(CALLED), run.waiting_cause) == (21, 1000, "person")
    assert [review.agent for review in found[:5]].count("paying") == 1
    assert found[0].agent == "paying"


def test_what_found_no_room_keeps_its_answer_and_is_asked_when_somebody_decided() -> None:
    run = started("gather", 5, reviews_per_run=2)
    assert page(run.get_absolute_url()).count("It waits to be put to a person") == 3
    assert [step.status for step in run.steps.all()] == ["waiting"] * 5
    assert len(CALLED) == 5
    for _ in range(5):
        assert len(open_()) <= 2
        decide(open_()[0])
        run = advanced(run)
    assert (run.status, run.output, len(CALLED)) == ("succeeded", {"said": "5"}, 5), "no worker was called twice"


def test_what_is_of_high_risk_waits_for_its_like_alone() -> None:
    run, decided = started("pay", 4, reviews_per_run=2), 0
    while found := open_():
        risky = [review.cause for review in found if review.risk == Risk.HIGH]
        assert (risky, len(found) - len(risky) <= 2) == (["gated"] * min(2, max(0, 4 - decided)), True)
        decide(found[0])
        run, decided = advanced(run), decided + 1
    assert (run.status, run.output, len(CALLED), decided) == ("succeeded", {"said": "8"}, 4, 8)


@pytest.mark.parametrize(
    ("asked", "finds_room"),
    [
        ({"cause": "gated", "risk": "normal"}, False), ({"cause": "low_confidence", "risk": "normal"}, False),
        ({"cause": "gated", "risk": "high"}, True), ({"cause": "outcome_unknown", "risk": "high"}, True),
        ({"cause": "budget"}, True), ({"cause": "code_changed"}, True),
    ],
)  # fmt: skip
def test_where_doubts_have_filled_the_room(asked: dict[str, str], finds_room: bool) -> None:
    run = started("gather", 3, reviews_per_run=2)
    here = Pass(event_log.RunLog.load(run.pk), keeper.Held(run.pk, 1, 0.0))
    assert here.has_room_for(4, asked) is finds_room
    assert here.has_room_for(open_()[0].position, asked), "it has its place already"


def test_a_run_that_is_cancelled_and_retried_asks_what_had_no_room() -> None:
    run = started("gather", 3, reviews_per_run=1)
    commands.cancel(run.pk, by="operator")
    assert not open_()
    commands.retry(run.pk, by="operator")
    run = advanced(run)
    for _ in range(3):
        assert len(open_()) == 1
        decide(open_()[0])
        run = advanced(run)
    assert (run.status, len(CALLED)) == ("succeeded", 3)


def test_children_share_the_room_of_their_family() -> None:
    run = started("children", 6, reviews_per_run=2)
    everything_due()
    assert (len(open_()), len(CALLED), open_reviews.of_family(run.pk)) == (2, 6, 2)
    held = open_reviews.waiting()
    assert held.count() == 4
    answer = waiting.answer(held[0])
    assert answer.sentence.startswith("Step 1 (Doubt) waits to be put to a person. As many of its reviews are open")
    assert floods.wake() == 0, "there is no room"
    rounds = 0
    while Review.objects.open().exists():
        decide(open_()[0], "approve")
        everything_due()
        assert len(open_()) <= 2
        rounds += 1
    assert (rounds, len(CALLED), advanced(run).output) == (6, 6, {"said": " ".join(["succeeded"] * 6)})


def test_an_agent_with_too_many_is_paused_others_are_not_and_it_goes_on_by_itself() -> None:
    first, second = started("one", 1, reviews_per_agent=2), started("one", 1)
    third = started("one", 1)
    assert (first.waiting_cause, second.waiting_cause, third.waiting_cause, len(CALLED)) == ("person", "person", "reviews", 2)
    assert waiting.answer(third).sentence.startswith("It has not begun. Its agent is paused")
    assert [(one.agent, one.open) for one in open_reviews.paused()] == [("flooding", 2)]
    assert advanced(commands.start("counting", {"text": "x", "number": 1}, by="operator")).status == "succeeded"
    everything_due()
    assert len(open_()) == 2
    for url in ("/agents/flooding/", "/", "/reviews/"):
        assert "Flooding is paused" in page(url), url
    decide(open_()[0])
    everything_due()
    assert "is paused" in page("/agents/flooding/"), "as many are open again"
    assert (advanced(third).waiting_cause, advanced(first).status, len(CALLED)) == ("person", "succeeded", 3)
    assert [line for line in map(said, event_log.facts(third.pk)) if "paused" in line or "room" in line] == [
        "The run waits until fewer reviews are open; no process is held. "
        "Its agent is paused: as many of its reviews are open as may be at once.",
        "The run was woken before its time: There is room for its reviews.",
    ]


def page(url: str) -> str:
    client = Client()
    client.force_login(User.objects.get(username="operator"))
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.text


def said(fact: Any) -> str:
    return describe.sentence(fact, {})


def test_samples_take_no_room_and_pause_nobody() -> None:
    policies.configure(by="admin", agent="counting", sample_share=1.0)
    commands.configure("counting", by="admin", reviews_per_agent=1)
    for _ in range(2):
        assert advanced(commands.start("counting", {"text": "x", "number": 2}, by="operator")).status == "succeeded"
    assert open_reviews.paused() == []
    assert Review.objects.open().count() == 1


# --- what people are told of it -------------------------------------------------------------------------------------


def test_notices_of_a_flood_are_one_line_and_what_matters_stands_beside_it(people: dict[str, User]) -> None:
    started("gather", 9)
    advanced(commands.start("paying", {"text": "rent", "number": 5}, by="operator"))
    notices.tell_due()
    assert notices.counts(people["reviewer"]) == (10, 10)
    told = page("/notices/")
    assert (told.count("Unread: "), told.count("6 more of Flooding"), told.count("Pay")) == (5, 1, 1)
    assert 'href="/reviews/?agent=flooding"' in told
    mine = Notice.objects.filter(user=people["reviewer"]).select_related("review").order_by("-review__risk", "at")
    letter = digest.text(mine, NoticeSettings.of(people["reviewer"]))
    assert letter.startswith("New: Paying, Pay (Gated)")
    assert "New: 6 more of Flooding\nhttp" in letter
    assert letter.count("Doubt") == 3
    Notice.objects.exclude(review__agent="paying").filter(review__in=open_()[1:6]).delete()
    assert "more of Flooding" not in page("/notices/"), "four need no folding"


def test_notices_for_one_person_and_of_high_risk_are_never_folded(people: dict[str, User]) -> None:
    at = timezone.now()
    review = Review(pk=1, agent="a", risk=1)
    told = [Notice(pk=number, review=review, kind="new", at=at) for number in range(10)]
    for kind, risk, lines in (("new", 1, 4), ("half", 0, 4), ("assigned", 1, 10), ("taken_over", 1, 10), ("new", 2, 10)):
        review.risk = risk
        for one in told:
            one.kind = kind
        assert len(notices.folded(told)) == lines, (kind, risk)
    review.risk = 1
    for number, one in enumerate(told):
        one.kind, one.at, one.read_at = "new", at - timedelta(days=number % 2), at if number % 4 > 1 else None
    assert [line.more for line in notices.folded(told)] == [0] * 10, "three of each day and of those that are read"
