"""Many reviews decided together: what may be, what is shown before, what came of each, and that none is decided twice."""

import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pydantic import BaseModel
from pytest_django import Settings

from reviews import bulk, decisions, selection
from reviews.models import BulkDecision, Claim, Decision, Review
from reviews.presentation import ReviewPage
from runs import commands, executor, policies, sdk
from runs.models import Run
from tests.reviewing import signed_in

pytestmark = pytest.mark.django_db


class Order(BaseModel):
    text: str
    number: float


class Answer(BaseModel):
    said: str


@sdk.worker
def refund(amount: float, currency: str) -> str:
    return f"refunded {amount}"


@sdk.agent("refunding", title="Refunding", version="1")
def refunding(run: sdk.Run, order: Order) -> Answer:
    """Refunds after a person approved it; says so when one did not."""
    try:
        return Answer(said=run.step("refund", refund.gated("Money leaves."), amount=order.number, currency="EUR"))
    except sdk.Rejected as rejected:
        return Answer(said=f"not refunded: {rejected.reason}")


def opened(slug: str, text: str = "hello", number: int = 3) -> Review:
    """The review at which a new run of the agent stops."""
    run = commands.start(slug, {"text": text, "number": number}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    return signed_in(people["reviewer"])


def preview(client: Client, *reviews: Review, query: str = "", **more: Any) -> HttpResponse:
    return client.post(f"{reverse('bulk_preview')}?{query}", {"review": [review.pk for review in reviews]} | more)


def decide(client: Client, page: HttpResponse, decision: str, *, follow: bool = False, **more: Any) -> HttpResponse:
    seen = re.search(r'name="seen" value="([^"]+)"', page.content.decode())
    assert seen, page.content.decode()
    return client.post(reverse("decide_bulk"), {"seen": unescape(seen[1]), "decision": decision} | more, follow=follow)


def outcomes(answer: HttpResponse) -> Counter[str]:
    found = BulkDecision.objects.get(pk=answer.headers["Location"].split("/")[3])
    return Counter(found.items.values_list("outcome", flat=True))


def states(*reviews: Review) -> list[str]:
    return [Review.objects.get(pk=review.pk).state for review in reviews]


def ended(review: Review) -> Any:
    executor.advance(review.run_id, owner="test")
    return Run.objects.get(pk=review.run_id).output


# --- what is shown before -----------------------------------------------------------------------------------------


def test_the_preview_says_what_differs_what_is_the_same_and_decides_nothing(client: Client) -> None:
    first, second = opened("refunding", "first order", 3), opened("refunding", "second order", 4)
    html = preview(client, first, second).content.decode()
    assert "Decide 2 reviews together" in html
    same, differs = html.split("What differs")
    assert "Currency" in same.split("The same in all")[1]
    assert [text for text in ("first order", "second order", "<td>3\n", "<td>4\n") if text not in differs] == []
    assert states(first, second) == ["open", "open"]
    assert "Trying again hands it to a worker that takes remarks." in html


def test_what_cannot_be_decided_together_is_named_with_the_reason(client: Client, people: dict[str, User]) -> None:
    fit = [opened("refunding"), opened("refunding")]
    other = opened("asking")
    unknown, risky, eyes, held, snoozed, closed, foreign = (opened("refunding") for _ in range(7))
    Review.objects.filter(pk=unknown.pk).update(cause="outcome_unknown")
    Review.objects.filter(pk=foreign.pk).update(group=Group.objects.create(name="Night shift"))
    Review.objects.filter(pk=risky.pk).update(risk=2)
    Review.objects.filter(pk=eyes.pk).update(approvals=2)
    Review.objects.filter(pk=snoozed.pk).update(snoozed_until=timezone.now() + timedelta(hours=1))
    Claim.objects.create(review=held, reviewer=people["reviewer2"], until=timezone.now() + timedelta(minutes=5))
    decisions.decide(closed.pk, actor=people["reviewer2"], kind="approve", seen=closed.fingerprint)
    shown = selection.preview(Review.objects.in_turn().with_people().filter(pk__gte=fit[0].pk), people["reviewer"])
    assert shown.rows == fit
    assert {why.split(":")[0]: reviews for why, reviews in shown.excluded.items()} == {
        "Another agent, step or cause than “Refund”": [other],
        "Each of these needs an answer of its own.": [unknown],
        "This review is for the group Night shift. Ask one of its members, or have it reassigned to you.": [foreign],
        "High risk": [risky],
        "Four eyes": [eyes],
        "Snoozed": [snoozed],
        "reviewer2 is at these now.": [held],
        "Closed meanwhile.": [closed],
    }
    page = preview(client, *Review.objects.all()).content.decode()
    assert ("Decide 2 of 10 reviews together" in page, "Left out: 8 of the 10 that you chose" in page) == (True, True)
    assert page.index("Left out: 8") < page.index("Leave out review"), "it stands before what is decided"
    decide(client, preview(client, *fit, risky), "approve")
    assert states(*fit, risky) == ["decided", "decided", "open"]


def test_of_samples_it_is_said_that_they_were_right(client: Client) -> None:
    policies.configure(by="admin", agent="guessing", sample_share=1.0)
    for text in ("first", "second"):
        executor.advance(commands.start("guessing", {"text": text, "number": 9}, by="operator").pk, owner="test")
    page = preview(client, *Review.objects.filter(cause="sample"))
    assert ("They were right" in page.text, "Approve" in page.text) == (True, False)
    told = decide(client, page, "approve", follow=True).text
    assert ("It was right: 2 reviews" in told, "Approved" in told) == (True, False)


def test_nothing_chosen_or_nothing_that_fits_says_so(client: Client) -> None:
    assert "You have chosen no review" in client.post(reverse("bulk_preview"), follow=True).content.decode()
    review = opened("refunding")
    Review.objects.filter(pk=review.pk).update(cause="outcome_unknown")
    html = preview(client, review).content.decode()
    assert "Nothing to decide together" in html
    assert "answer of its own" in html


def test_all_that_match_the_filter_and_no_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [opened("refunding", f"wanted {number}") for number in range(3)]
    other = opened("refunding", "not this one")
    html = preview(client, query="text=wanted", all="1").content.decode()
    assert all(f'value="{review.pk}"' in html for review in wanted)
    assert f'value="{other.pk}"' not in html
    monkeypatch.setattr(selection, "MOST", 2)
    page = preview(client, query="text=wanted", all="1")
    assert "More than 2 match" in page.content.decode()
    decide(client, page, "approve")
    assert states(*wanted, other) == ["decided", "decided", "open", "open"]


def test_identical_questions_are_decided_once(client: Client) -> None:
    same = [opened("refunding", "one text", 7), opened("refunding", "another text", 7)]
    other = opened("refunding", "one text", 8)
    page = preview(client, same=str(same[0].pk))
    assert "They are identical" in page.content.decode()
    decide(client, page, "approve")
    assert states(*same, other) == ["decided", "decided", "open"]


@pytest.mark.parametrize(
    ("changed", "offered"),
    [
        ({}, True),
        ({"risk": 2}, False),
        ({"approvals": 2}, False),
        ({"cause": "outcome_unknown"}, False),
        ({"cause": "budget"}, False),
    ],
)
def test_only_what_may_be_decided_together_is_offered_as_identical(
    client: Client, changed: dict[str, Any], offered: bool
) -> None:
    same = [opened("refunding", "one text", 7), opened("refunding", "another text", 7)]
    Review.objects.update(**changed)
    page = ReviewPage(Review.objects.get(pk=same[0].pk), [])
    assert page.identical == (1 if offered else 0)


def test_a_long_value_is_cut_and_says_so_and_nothing_is_hidden_in_it(client: Client) -> None:
    review = opened("refunding")
    Review.objects.filter(pk=review.pk).update(proposal={"note": "<b>\u202eall is paid" + "\n" * 300 + "pay twice"})
    html = preview(client, review).content.decode()
    assert "letters more: open the review" in html
    assert "&lt;b&gt;" in html
    assert "U+202E" in html


def test_the_preview_asks_as_much_of_many_as_of_few(client: Client) -> None:
    reviews = [opened("refunding", number=number) for number in range(2, 8)]
    preview(client, *reviews[:2])
    with CaptureQueriesContext(connection) as few:
        preview(client, *reviews[:2])
    with CaptureQueriesContext(connection) as many:
        preview(client, *reviews)
    assert len(few) == len(many)


# --- the decision -------------------------------------------------------------------------------------------------


def test_each_is_decided_by_itself_and_its_run_goes_on(client: Client, people: dict[str, User]) -> None:
    reviews = [opened("refunding", number=number) for number in (3, 4, 5)]
    page = preview(client, *reviews)
    answer = decide(client, page, "approve", without=[reviews[2].pk])
    assert outcomes(answer) == {"decided": 2}
    assert states(*reviews) == ["decided", "decided", "open"]
    assert [ended(review) for review in reviews[:2]] == [{"said": "refunded 3.0"}, {"said": "refunded 4.0"}]
    taken = Decision.objects.order_by("pk")
    assert {(one.actor, one.channel, one.seen_fingerprint == one.review.fingerprint) for one in taken} == {
        (people["reviewer"], "bulk", True)
    }
    assert len({one.bulk for one in taken}) == 1
    assert "Done" in client.get(answer.headers["Location"]).content.decode()


def test_while_it_is_carried_out_the_numbers_are_asked_for_and_each_row_once(client: Client) -> None:
    reviews = [opened("refunding", number=number) for number in (3, 4)]
    answer = decide(client, preview(client, *reviews), "approve")
    items = BulkDecision.objects.get().items
    items.filter(review=reviews[0]).update(outcome="")
    address = answer.headers["Location"].split("?")[0]
    part, whole = client.get(f"{address}?part=now").text, client.get(address).text
    for html in (part, whole):
        assert "1 of 2 are still to come" in html
        assert html.count("?part=now") == 1
    assert [html.count('scope="row"') for html in (part, whole)] == [0, 2]
    items.update(outcome="decided")
    with CaptureQueriesContext(connection) as queries:
        end = client.get(f"{address}?part=now").text
    assert 'id="bulk-items" hx-swap-oob="true"' in end
    assert (end.count('scope="row"'), "?part=now" in end) == (2, False)
    assert not any('"proposal"' in query["sql"] or '"schema"' in query["sql"] for query in queries)


def test_a_rejection_needs_a_reason_and_what_was_left_out_stays_so(client: Client) -> None:
    reviews = [opened("refunding"), opened("refunding")]
    page = preview(client, *reviews)
    refused = decide(client, page, "reject", without=[reviews[1].pk])
    assert refused.status_code == 422
    assert "a rejection needs a reason" in refused.content.decode()
    assert re.search(rf'value="{reviews[1].pk}"[^>]*checked', refused.content.decode())
    assert states(*reviews) == ["open", "open"]
    assert outcomes(decide(client, page, "reject", reason="not ours", tag="not_needed")) == {"decided": 2}
    assert set(Decision.objects.values_list("reason", "tag")) == {("not ours", "not_needed")}
    assert ended(reviews[0]) == {"said": "not refunded: not ours"}


@pytest.mark.parametrize("decision", ["edit", "answer", "fork", "cancel", "nonsense", ""])
def test_a_decision_that_is_none_for_many_is_refused(client: Client, decision: str) -> None:
    review = opened("refunding")
    assert decide(client, preview(client, review), decision).status_code == 422
    assert states(review) == ["open"]


def test_what_happened_meanwhile_is_said_of_each(client: Client, people: dict[str, User]) -> None:
    fine, first, changed, held, withdrawn = (opened("refunding", number=number) for number in range(3, 8))
    page = preview(client, fine, first, changed, held, withdrawn)
    decisions.decide(first.pk, actor=people["reviewer2"], kind="reject", seen=first.fingerprint, reason="no")
    Review.objects.filter(pk=changed.pk).update(fingerprint="f" * 64)
    Claim.objects.create(review=held, reviewer=people["reviewer2"], until=timezone.now() + timedelta(minutes=5))
    commands.cancel(withdrawn.run_id, by="operator")
    answer = decide(client, page, "approve")
    assert outcomes(answer) == {"decided": 1, "too_late": 2, "changed": 1, "refused": 1}
    html = client.get(answer.headers["Location"]).content.decode()
    for said in (
        "reviewer2 decided “Rejected”",
        "Its run has ended",
        "has changed since you looked",
        "reviewer2 is at these now",
    ):
        assert said in html


def test_sent_twice_it_is_decided_once_and_another_page_cannot_be_made_up(client: Client, people: dict[str, User]) -> None:
    reviews = [opened("refunding"), opened("refunding")]
    page = preview(client, *reviews)
    first, second = decide(client, page, "approve"), decide(client, page, "reject", reason="no")
    assert first.headers["Location"] == second.headers["Location"]
    assert Decision.objects.filter(kind="approve").count() == Decision.objects.count() == 2
    other, late = Client(), opened("refunding")
    other.force_login(people["reviewer2"])
    page = preview(client, late)
    assert "look again" in decide(other, page, "approve", follow=True).content.decode()
    forged = client.post(reverse("decide_bulk"), {"seen": f"{late.pk}:1", "decision": "approve"}, follow=True)
    assert "look again" in forged.content.decode()
    assert states(late) == ["open"]


def test_an_opened_address_decides_nothing(client: Client) -> None:
    review = opened("refunding")
    for name in ("bulk_preview", "decide_bulk"):
        assert "Nothing was done" in client.get(reverse(name), follow=True).content.decode()
    assert states(review) == ["open"]


def test_all_of_it_is_taken_back_while_there_is_time(client: Client, settings: Settings) -> None:
    settings.UNDO_SECONDS = 60.0
    reviews = [opened("refunding", number=number) for number in (3, 4, 5)]
    answer = decide(client, preview(client, *reviews), "approve")
    assert [ended(review) for review in reviews] == [None] * 3
    begun = BulkDecision.objects.get()
    assert "Undo" in client.get(answer.headers["Location"]).content.decode()
    page = client.get(reviews[0].get_absolute_url()).content.decode()
    assert "<strong>3 decisions</strong> are not carried out yet: Approved, Refund." in page
    assert [f'action="{reverse("undo_bulk", args=[begun.pk])}?' in page, f'id="undo-{reviews[0].pk}"' in page] == [True, True]
    alone = client.post(reverse("undo_review", args=[reviews[0].pk]), follow=True).content.decode()
    assert "Before that: <strong>2 decisions</strong> are not carried out yet" in alone
    assert outcomes(answer) == {"decided": 2, "undone": 1}
    begun.items.filter(review=reviews[2]).update(outcome="", at=None)  # as if nobody had come to it
    said = client.post(reverse("undo_bulk", args=[begun.pk]), follow=True).content.decode()
    assert "Taken back: 2 reviews are open again." in said
    assert outcomes(answer) == {"undone": 3}
    assert states(*reviews) == ["open"] * 3
    bulk.carry(str(begun.pk))
    assert states(*reviews) == ["open"] * 3
    assert "Undo" not in client.get(answer.headers["Location"]).content.decode()
    assert outcomes(decide(client, preview(client, *reviews), "approve")) == {"decided": 3}


def test_a_bulk_under_way_hides_no_later_decision_and_says_all_that_its_undo_stops(
    client: Client, people: dict[str, User], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.UNDO_SECONDS = 60.0
    monkeypatch.setattr(bulk, "go_on", lambda begun: None)  # a job process comes to each of them below
    *many, single = [opened("refunding", number=number) for number in (3, 4, 5, 6)]
    decide(client, preview(client, *many), "approve")
    begun = BulkDecision.objects.get()
    mine = decisions.decide(single.pk, actor=people["reviewer"], kind="approve", seen=single.fingerprint, undo_seconds=60)
    bulk._carry(begun, begun.items.order_by("pk")[0], undo_seconds=60)
    found = decisions.undoable(people["reviewer"])
    assert found
    assert (found.last, found.bulk, found.is_earlier) == (mine, None, False)
    decisions.undo(single.pk, actor=people["reviewer"])
    found = decisions.undoable(people["reviewer"])
    assert found
    assert (found.bulk, found.count, found.is_earlier) == (begun.pk, 3, True)
    said = client.post(reverse("undo_bulk", args=[begun.pk]), follow=True).content.decode()
    assert "Taken back: 1 review is open again and 2 that nobody had come to stay open." in said
    assert states(*many, single) == ["open"] * 4


def test_what_the_code_calls_risky_since_it_was_asked_is_decided_alone_and_with_a_reason(
    client: Client, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    review, other = opened("refunding"), opened("refunding")
    answer = preview(client, review, other)
    monkeypatch.setitem(sdk.WORKERS, review.worker, replace(sdk.WORKERS[review.worker], risk="high"))
    assert outcomes(decide(client, answer, "approve")) == {"refused": 2}
    assert "High risk: each of these is looked at by itself." in preview(client, review).content.decode()
    page = client.get(review.get_absolute_url()).content.decode()
    assert ['data-risk="2"' in page, "High risk</span>" in page] == [True, True]
    with pytest.raises(commands.Refused, match="The risk is high: say why"):
        decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint)
    Run.objects.filter(pk=review.run_id).update(started_by="reviewer")
    with pytest.raises(decisions.NotYours, match="You started this run"):
        decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint, reason="It is owed.")
