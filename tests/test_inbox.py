"""The pages of the inbox: what they show, whom they let in, and how they answer what a person does."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models import F
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pydantic import BaseModel

from reviews import decisions, drafts, presence, sweep
from reviews.models import Decision, Draft, Presence, Review
from runs import commands, executor, sdk
from runs.models import Run
from tests import agents

pytestmark = pytest.mark.django_db
HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"


def opened(slug: str, text: str = "hello", number: int = 3) -> Review:
    """The review at which a new run of the agent stops."""
    run = commands.start(slug, {"text": text, "number": number}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    browser = Client()
    browser.force_login(people["reviewer"])
    return browser


def page(client: Client, review: Review) -> str:
    return client.get(review.get_absolute_url()).content.decode()


def decide(client: Client, review: Review, decision: str, *, query: str = "", **typed: Any) -> HttpResponse:
    sent = {"decision": decision, "seen": review.fingerprint} | {name.replace("__", "."): text for name, text in typed.items()}
    return client.post(f"{reverse('decide_review', args=[review.pk])}?{query}", sent)


def state(review: Review) -> str:
    review.refresh_from_db()
    return review.state


class Letter(BaseModel):
    text: str = ""


@sdk.worker
def measured(text: str) -> int:
    return len(text)


@sdk.agent("overdue", title="Overdue", version="1")
def overdue(run: sdk.Run, order: agents.Order) -> agents.Answer:
    """Nobody can answer in time."""
    return agents.Answer(said=run.step("ask", sdk.ask_human(agents.Choice, within=0), question="Which?").colour)


@sdk.agent("measuring", title="Measuring", version="1")
def measuring(run: sdk.Run, letter: Letter) -> Letter:
    return Letter(text=str(run.step("measure", measured.gated("look"), text=letter.text)))


def test_a_large_value_can_be_edited_as_a_browser_sends_it(client: Client) -> None:
    review, text = opened("measuring"), "é" * 1_200_000
    sent = urlencode({"decision": "edit", "seen": review.fingerprint, "value.text": text, "reason": "longer"})
    path = reverse("decide_review", args=[review.pk])
    assert client.post(path, sent, content_type="application/x-www-form-urlencoded").status_code == 302
    executor.advance(review.run_id, owner="test")
    assert Run.objects.get(pk=review.run_id).output == {"text": "1200000"}


# --- the page of a review -------------------------------------------------------------------------------------------


def test_the_page_says_why_what_and_offers_exactly_what_is_allowed(client: Client) -> None:
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    for slug, text, why, allowed in [
        ("paying", "x", "Money leaves the house.", {"approve", "edit", "reject", "take_over"}),
        ("guessing", "x", "because of its length", {"approve", "edit", "reject", "send_back"}),
        ("asking", "x", "Which colour for x?", {"answer", "reject"}),
        ("stumbling", "tired", "the bank said no", {"retry", "take_over", "reject"}),
    ]:
        html = page(client, opened(slug, text))
        assert why in html
        offered = {kind for kind in Decision.Kind.values if f'name="decision" value="{kind}"' in html}
        assert offered == allowed, slug


def test_what_comes_from_outside_is_shown_as_text(client: Client) -> None:
    html = page(client, opened("asking", HOSTILE))
    assert "<script>document" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;document" in html


def test_a_long_question_is_shown_to_its_end(client: Client) -> None:
    text = "word " * 700 + "the end"
    assert f"Which colour for {text}?" in page(client, opened("asking", text))


def test_a_worker_that_is_gone_leaves_the_proposal_to_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    review = opened("guessing")
    monkeypatch.delitem(sdk.WORKERS, review.worker)
    html = page(client, review)
    assert "no longer in the code" in html
    assert 'name="decision" value="edit"' not in html
    assert decide(client, review, "edit", value__colour="green", value__amount="3").status_code == 400
    assert state(review) == "open"


def test_a_review_that_never_was_is_a_404(client: Client) -> None:
    for name in ("review", "review_news"):
        assert client.get(reverse(name, args=[987654321])).status_code == 404
    for name in ("decide_review", "claim_review", "release_review"):
        assert client.post(reverse(name, args=[987654321])).status_code == 404
    assert client.get("/reviews/99999999999999999999999999/").status_code == 404


# --- deciding -------------------------------------------------------------------------------------------------------


def test_a_decision_leads_to_the_next_review_of_the_same_filter(client: Client) -> None:
    first, other, following = opened("paying", "one"), opened("guessing", "two"), opened("paying", "three")
    response = decide(client, first, "approve", query="cause=gated", reason="Owed.")
    assert response.url == f"/reviews/{following.pk}/?cause=gated"  # type: ignore[attr-defined]
    assert f"Approved review {first.pk}." in client.get(response.url).content.decode()  # type: ignore[attr-defined]
    response = decide(client, following, "approve", query="cause=gated", reason="Owed.")
    assert response.url == reverse("inbox")  # type: ignore[attr-defined]
    assert state(other) == "open"


def test_an_edit_that_does_not_fit_comes_back_with_everything_that_was_typed(client: Client) -> None:
    review = opened("guessing")
    response = decide(client, review, "edit", value__colour="green", value__amount="many")
    html = response.content.decode()
    assert response.status_code == 422
    assert "Enter a number." in html
    assert 'value="many"' in html
    assert '<option value="green" selected>' in html
    assert '<details id="choice-edit" name="choice" open>' in html
    assert state(review) == "open"


def test_an_edit_that_fits_is_what_the_run_goes_on_with(client: Client) -> None:
    review = opened("guessing")
    assert decide(client, review, "edit", value__colour="green", value__amount="12.5").status_code == 302
    executor.advance(review.run_id, owner="test")
    review.run.refresh_from_db()
    assert review.run.output == {"said": "green 12.5"}
    html = page(client, review)
    assert "reviewer edited and approved it" in html
    assert "<del>red</del><ins>green</ins>" in html


def test_a_rejection_without_a_reason_is_refused_beside_the_field(client: Client) -> None:
    review = opened("paying")
    for reason in ("", "   "):
        response = decide(client, review, "reject", reason=reason)
        assert response.status_code == 422
        assert "a rejection needs a reason" in response.content.decode()
    assert state(review) == "open"
    assert decide(client, review, "reject", reason="Too dear.").status_code == 302
    assert review.decision.reason == "Too dear."


def test_a_result_is_sent_back_with_a_remark(client: Client) -> None:
    review = opened("guessing")
    assert decide(client, review, "send_back").status_code == 422
    assert decide(client, review, "send_back", reason="Look again.").status_code == 302
    executor.advance(review.run_id, owner="test")
    review.run.refresh_from_db()
    assert review.run.status == "succeeded"  # the worker is sure once it has a remark


def test_a_question_is_answered_with_a_typed_form(client: Client) -> None:
    review = opened("asking")
    assert decide(client, review, "answer", value__colour="").status_code == 422
    assert decide(client, review, "answer", value__colour="green", value__amount="1").status_code == 302
    executor.advance(review.run_id, owner="test")
    review.run.refresh_from_db()
    assert review.run.output == {"said": "green"}


def test_whoever_comes_second_learns_who_was_first_and_keeps_what_was_typed(client: Client, people: dict[str, User]) -> None:
    review = opened("guessing")
    decisions.decide(review.pk, actor=people["reviewer2"], kind="approve", seen=review.fingerprint)
    response = decide(client, review, "edit", value__colour="green", value__amount="12.5")
    html = response.content.decode()
    assert response.status_code == 409
    assert "reviewer2 approved it" in html
    assert "What you had typed" in html
    assert "12.5" in html
    late = decide(client, review, "reject", reason="my long reason").content.decode()
    assert "my long reason" in late


def test_a_cancelled_run_needs_no_answer(client: Client) -> None:
    review = opened("paying")
    commands.cancel(review.run_id, by="operator")
    response = decide(client, review, "approve")
    assert response.status_code == 409
    assert "The run was cancelled" in response.content.decode()


def test_a_decision_about_something_else_than_was_seen_is_refused(client: Client) -> None:
    review = opened("guessing")
    sent = {"decision": "edit", "seen": "0" * 64, "value.colour": "green", "value.amount": "12.5"}
    response = client.post(reverse("decide_review", args=[review.pk]), sent)
    html = response.content.decode()
    assert response.status_code == 409
    assert "has changed since you looked" in html
    assert 'value="12.5"' in html
    assert f'name="seen" value="{review.fingerprint}"' in html
    assert state(review) == "open"


@pytest.mark.parametrize("decision", ["retry", "answer", "", "delete"])
def test_a_decision_that_is_not_allowed_is_a_400(client: Client, decision: str) -> None:
    review = opened("paying")
    response = decide(client, review, decision, reason="because")
    assert response.status_code == 400
    assert "It allows: approve, edit, reject" in response.content.decode()
    assert state(review) == "open"


def test_what_was_typed_is_still_there_after_a_refusal(client: Client) -> None:
    review = opened("overdue")
    late = decide(client, review, "answer", value__colour="green", value__amount="12.5")
    assert late.status_code == 400
    assert "The time to decide ran out" in late.text
    assert 'value="12.5"' in late.text
    client.post(reverse("draft_review", args=[review.pk]), {"decision": "answer", "value.amount": "47.25"})
    for refused in (decide(client, review, "retry"), client.post(reverse("undo_review", args=[review.pk]))):
        assert "is in the form below" in refused.text
        assert 'value="47.25"' in refused.text


def test_what_is_kept_of_closed_reviews_goes_some_time(client: Client, people: dict[str, User]) -> None:
    closed, still = opened("paying"), opened("guessing")
    for review in (closed, still):
        presence.beat(review.pk, people["reviewer"])
        client.post(reverse("draft_review", args=[review.pk]), {"decision": "reject", "reason": "Not now."})
    decisions.decide(closed.pk, actor=people["reviewer2"], kind="reject", seen=closed.fingerprint, reason="no")

    def kept() -> list[int]:
        cache.delete("agentops:settled")
        sweep.sweep()
        return [*Presence.objects.values_list("review", flat=True), *Draft.objects.values_list("review", flat=True)]

    assert sorted(kept()) == sorted([closed.pk, still.pk] * 2)
    Presence.objects.update(since=F("since") - presence.KEPT_FOR)
    Draft.objects.update(saved_at=F("saved_at") - drafts.KEPT_FOR)
    assert kept() == [still.pk] * 2


# --- claims and news ------------------------------------------------------------------------------------------------


def test_a_claim_is_shown_to_others_who_may_still_decide(client: Client, people: dict[str, User]) -> None:
    review, other = opened("paying"), Client()
    other.force_login(people["reviewer2"])
    other.post(reverse("claim_review", args=[review.pk]))
    assert "reviewer2 is at it" in page(client, review)
    assert "reviewer2" in client.get(reverse("inbox")).content.decode()
    refused = client.post(reverse("claim_review", args=[review.pk]), follow=True).content.decode()
    assert f"reviewer2 is at review {review.pk}. You can still decide it." in refused
    assert decide(client, review, "approve", reason="Owed.").status_code == 302


def test_only_the_claimer_gives_a_claim_back(client: Client, people: dict[str, User]) -> None:
    review, other = opened("paying"), Client()
    other.force_login(people["reviewer2"])
    other.post(reverse("claim_review", args=[review.pk]))
    client.post(reverse("release_review", args=[review.pk]))
    assert Review.objects.get(pk=review.pk).held() is not None
    assert other.delete(reverse("claim_review", args=[review.pk])).status_code == 204
    assert Review.objects.get(pk=review.pk).held() is None


def test_a_decision_knows_since_when_its_page_was_open_where_no_script_has_said_so(client: Client) -> None:
    first, second = opened("guessing"), opened("guessing", "another")
    said = re.findall(r'name="opened" value="([^"]+)"', page(client, first))[0]
    assert decide(client, first, "approve", opened=said).status_code == 302
    known = Decision.objects.get(review=first)
    assert known.opened_at is not None
    assert known.opened_at < known.decided_at
    assert decide(client, second, "approve", opened=said).status_code == 302
    assert Decision.objects.get(review=second).opened_at is None, "it was said of another review"


def test_news_say_who_decided_the_open_review(client: Client, people: dict[str, User]) -> None:
    review = opened("paying")
    address = reverse("review_news", args=[review.pk])
    assert client.get(address).content.decode().strip() == ""
    decisions.decide(review.pk, actor=people["reviewer2"], kind="reject", seen=review.fingerprint, reason="No.")
    html = client.get(address).content.decode()
    assert "reviewer2 rejected it" in html
    assert "data-closed" in html


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "status"), [("operator", 200), ("reviewer", 200), ("admin", 200), ("outsider", 403)])
def test_who_may_see_the_inbox(people: dict[str, User], name: str, status: int) -> None:
    review, browser = opened("paying"), Client()
    browser.force_login(people[name])
    for address in (
        reverse("inbox"),
        reverse("review_list"),
        review.get_absolute_url(),
        reverse("review_news", args=[review.pk]),
    ):
        assert browser.get(address).status_code == status


def test_who_may_not_decide_is_refused_and_sees_no_forms(people: dict[str, User]) -> None:
    review, browser = opened("paying"), Client()
    browser.force_login(people["outsider"])
    assert decide(browser, review, "approve").status_code == 403
    assert browser.post(reverse("claim_review", args=[review.pk])).status_code == 403
    assert decide(Client(), review, "approve").status_code == 302
    assert state(review) == "open"
