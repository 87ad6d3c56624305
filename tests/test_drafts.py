"""What a reviewer typed and did not send, or sent and took back, is kept for them."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from reviews import decisions
from reviews.confirmation import SIGNED_IN_AT
from reviews.models import Draft
from tests import cast
from tests.interleaved import behind
from tests.reviewing import signed_in
from tests.test_decisions import GOOD, decide, opened
from tests.test_eyes import client, page, post

__all__ = ["client"]  # a fixture
pytestmark = pytest.mark.django_db


def test_a_draft_comes_back_and_goes_with_the_decision(client: Client, people: dict[str, User]) -> None:
    review = opened("guessing")
    assert post(client, review, "edit", "draft_review", value__colour="green", value__amount="many").status_code == 204
    html = page(client, review)
    assert "Your draft of" in html
    assert 'value="many"' in html
    assert "Enter a number" not in html, "a draft is not judged"
    assert post(client, review, "reject", "draft_review", reason="Half a sen").status_code == 204
    assert "Half a sen" in page(client, review)
    other = Client()
    other.force_login(people["reviewer2"])
    assert "Half a sen" not in page(other, review)
    assert post(client, review, "x", "draft_review", discard="1").status_code == 302
    assert not Draft.objects.exists()
    post(client, review, "reject", "draft_review", reason="Not at all")
    assert post(client, review, "reject", reason="Not at all").status_code == 302
    assert not Draft.objects.exists()
    assert post(client, review, "reject", "draft_review", reason="x" * 200_001).status_code in (204, 413)


def test_whoever_comes_second_keeps_what_was_typed_and_sees_how_it_differs(client: Client) -> None:
    review = opened("guessing")
    decide(review, "edit", by="reviewer2", value=GOOD)
    late = post(client, review, "edit", value__colour="green", value__amount="7")
    html = late.content.decode()
    assert late.status_code == 409
    assert "reviewer2" in html
    assert "How what you typed differs from what was decided" in html
    assert "<ins>7</ins>" in html
    assert Draft.objects.get().data == {"value.colour": "green", "value.amount": "7"}
    assert "What you had typed" in page(client, review)


def test_what_is_too_long_to_be_kept_is_shown_with_a_note(client: Client) -> None:
    review, long = opened("guessing"), "x" * 200_001
    decide(review, "reject", by="reviewer2", reason="No.")
    late = post(client, review, "edit", value__colour="green", value__amount=long)
    html = late.content.decode()
    assert (late.status_code, "longer than 200,000 letters" in html) == (409, True)
    paying, session = opened("paying"), client.session
    session[SIGNED_IN_AT] = 0
    session.save()
    to_confirm = post(client, paying, "take_over", value=long, reason="It was urgent.")
    html = to_confirm.content.decode()
    assert (to_confirm.status_code, "longer than 200,000 letters" in html, long in html) == (413, True, True)
    assert not Draft.objects.exists()


@pytest.mark.parametrize("actor", ["reviewer", "admin"])
def test_what_was_typed_comes_back_when_it_is_taken_back(client: Client, people: dict[str, User], actor: str) -> None:
    review = opened("guessing")
    decide(review, "edit", value=GOOD, undo_seconds=600)
    decisions.undo(review.pk, actor=people[actor])
    html = page(client, review)
    assert "Your draft of" in html
    assert 'value="12.5"' in html
    decide(review, "reject", reason="Too <dear>.", tag="other", undo_seconds=600)
    decisions.undo(review.pk, actor=people[actor])
    assert Draft.objects.get().data == {"reason": "Too <dear>.", "tag": "other"}


def test_a_letter_in_one_form_takes_nothing_from_another(client: Client) -> None:
    review = opened("guessing")
    post(client, review, "edit", "draft_review", value__colour="green", value__amount="many")
    post(client, review, "reject", "draft_review", reason="N")
    html = page(client, review)
    assert ('value="many"' in html, "what you typed into another is still there" in html) == (True, True)
    assert [bool(re.search(rf'"choice-{kind}"[^>]* open>', html)) for kind in ("edit", "reject")] == [False, True]
    post(client, review, "nonsense", "draft_review", reason="x")
    assert [one.kind for one in Draft.objects.order_by("pk")] == ["edit", "reject"]


@pytest.mark.parametrize(("saved", "kept"), [(-1, "12.5"), (1, "3")])
def test_what_was_sent_comes_back_unless_something_was_typed_since(people: dict[str, User], saved: int, kept: str) -> None:
    review, me = opened("guessing"), people["reviewer"]
    at = decide(review, "edit", value=GOOD, undo_seconds=600).decided_at + timedelta(seconds=saved)
    Draft.objects.create(review=review, reviewer=me, kind="edit", data={"value.amount": "3"}, saved_at=at)
    decisions.undo(review.pk, actor=me)
    assert Draft.objects.get().data["value.amount"] == kept


@pytest.mark.django_db(transaction=True)
def test_what_is_on_its_way_when_it_is_decided_is_no_draft() -> None:
    people = cast.people()
    review, typist = opened("guessing"), signed_in(people["reviewer"])
    with behind(lambda: post(typist, review, "edit", "draft_review", value__colour="gre")) as typing:
        decide(review, "edit", value=GOOD)
        typing.waits()
    assert (typing.result.status_code, Draft.objects.exists()) == (204, False)
