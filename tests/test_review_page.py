"""What stands beside a question: how alike ones were decided, earlier steps, what waits; what an edit changes; keys."""

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

from reviews import background, decisions
from reviews.models import Preference, Review
from reviews.presentation import ReviewPage
from runs import commands, executor, sdk
from runs.integrations import conversation
from runs.models import Run
from tests import agents

pytestmark = pytest.mark.django_db
MOST_QUERIES = 40


@sdk.worker
def consult(text: str) -> sdk.Result[agents.Choice]:
    said = [ModelRequest([UserPromptPart(text)]), ModelResponse([TextPart("Red.")])]
    conversation.record("openai:gpt", said, tokens=(12, 3), cost=None)
    return sdk.Result(agents.Choice(colour="red", amount=1), 0.3)


@sdk.agent("consulting", title="Consulting", version="1", threshold=0.8)
def consulting(run: sdk.Run, order: agents.Order) -> agents.Answer:
    return agents.Answer(said=run.step("consult", consult, text=order.text).colour)


def stopped(slug="guessing", text="a message", number=3):
    """The review at which a new run of the agent stops."""
    run = commands.start(slug, {"text": text, "number": number}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.select_related("run").open().filter(run=run).first()


@pytest.fixture
def reviewer(people):
    client = Client()
    client.force_login(people["reviewer"])
    return client


def test_alike_reviews_are_counted_by_how_they_were_decided_and_identical_questions_come_first(people, django_assert_num_queries):
    kinds = ["approve", "reject", "approve", "edit"]
    past = [stopped(text="x" * length) for length in (3, 4, 5, 6)]
    for review, kind in zip(past, kinds, strict=True):
        value = {"colour": "green", "amount": 1} if kind == "edit" else None
        decisions.decide(review.pk, actor=people["reviewer"], kind=kind, seen=review.fingerprint, value=value, reason="because")
    stopped("asking")  # another worker
    now = stopped(text="xxxx")
    with django_assert_num_queries(2):
        found = background.precedents(now)
    assert (found.count, found.identical, found.is_all) == (4, 1, True)
    assert dict(found.counts) == {"approved": 2, "rejected": 1, "edited": 1}
    assert [one.review_id for one in found.examples] == [past[1].pk, past[3].pk, past[2].pk, past[0].pk]
    Review.objects.update(cause="sample")  # of which nothing was approved
    now.cause = "sample"
    assert dict(background.precedents(now).counts) == {"found right": 2, "found wrong": 1, "corrected": 1}


def test_a_decision_that_can_be_or_was_taken_back_is_no_precedent(people):
    review = stopped()
    decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint, undo_seconds=60)
    assert background.precedents(stopped()).count == 0
    decisions.undo(review.pk, actor=people["reviewer"])
    assert background.precedents(stopped()).count == 0


def test_what_waits_for_it(people):
    review = stopped()
    assert background.blocked(review).parent is None
    parent = stopped("asking").run
    Run.objects.filter(pk=parent.pk).update(waiting_runs=[review.run_id])
    Run.objects.filter(pk=review.run_id).update(parent=parent)
    assert background.blocked(Review.objects.get(pk=review.pk)).parent == parent


def test_the_page_asks_as_much_whatever_came_before(people, reviewer):
    def asked(review):
        with CaptureQueriesContext(connection) as queries:
            assert reviewer.get(review.get_absolute_url()).status_code == 200
        return len(queries)

    bare = asked(stopped())
    for _ in range(4):
        past = stopped()
        decisions.decide(past.pk, actor=people["reviewer2"], kind="approve", seen=past.fingerprint)
        stopped(text="another one")
    assert asked(stopped()) <= bare + 1 < MOST_QUERIES  # the examples


def test_what_an_edit_would_change_is_shown_and_nothing_is_kept(reviewer):
    review = stopped()
    typed = {"decision": "edit", "value.colour": "green", "value.amount": "9"}
    answer = reviewer.post(f"/reviews/{review.pk}/diff/", typed).content.decode()
    assert "<del>red</del><ins>green</ins>" in answer
    assert "Amount" not in answer
    unfit = reviewer.post(f"/reviews/{review.pk}/diff/", typed | {"value.amount": "much"}).content.decode()
    assert "Not every field fits yet" in unfit
    same = reviewer.post(f"/reviews/{review.pk}/diff/", typed | {"value.colour": "red"}).content.decode()
    assert "Nothing differs" in same
    assert reviewer.post(f"/reviews/{review.pk}/diff/", {"decision": "reject"}).status_code == 204
    assert Review.objects.open().filter(pk=review.pk).exists()
    assert not review.decisions.exists()


def test_what_a_person_typed_is_text_in_the_difference(reviewer):
    review = stopped("paying")
    typed = {"decision": "edit", "value.amount": "3", "value.ledger": "<b>\u202e"}
    answer = reviewer.post(f"/reviews/{review.pk}/diff/", typed).content.decode()
    assert "&lt;b&gt;" in answer
    assert "U+202E" in answer


def test_a_rejection_leads_to_its_review_and_that_says_how_one_goes_on_when_the_run_failed(people, reviewer):
    review = stopped()
    sent = {"decision": "reject", "seen": review.fingerprint, "reason": "It is not red."}
    told = reviewer.post(f"/reviews/{review.pk}/decision/", sent, follow=True).content.decode()
    assert f'Rejected review {review.pk}. <a href="{review.get_absolute_url()}">Show it</a>' in told
    assert "has failed" not in reviewer.get(review.get_absolute_url()).content.decode()
    executor.advance(review.run_id, owner="test")
    page = reviewer.get(review.get_absolute_url()).content.decode()
    assert f"<strong>Run {review.run_id} has failed</strong>" in page
    assert "An operator can retry it" in page
    operator = Client()
    operator.force_login(people["operator"])
    assert "You can retry it" in operator.get(review.get_absolute_url()).content.decode()
    Run.objects.filter(pk=review.run_id).update(agent="gone")
    page = operator.get(review.get_absolute_url()).content.decode()
    assert "You can retry it" not in page
    assert "it is neither retried nor forked" in page
    assert "has failed" not in reviewer.get(stopped("paying").get_absolute_url()).content.decode()


def test_all_earlier_steps_are_there_when_they_are_asked_for(reviewer):
    review = stopped()
    run = commands.start("counting", {"text": "five", "number": 5}, by="operator")
    executor.advance(run.pk, owner="test")
    Review.objects.filter(pk=review.pk).update(run=run, position=6)
    page = ReviewPage(Review.objects.get(pk=review.pk), [])
    assert [step.position for step in page.steps_before] == [3, 4, 5]
    shown = reviewer.get(f"/reviews/{review.pk}/steps/").content.decode()
    assert [f"{position}. Count" in shown for position in (1, 2, 3, 4, 5, 6)] == [True] * 5 + [False]


def test_what_a_model_was_asked_is_there_when_it_is_asked_for(reviewer):
    review, other = stopped("consulting", "<b>Which?"), stopped()
    address = f"/reviews/{review.pk}/conversation/"
    page = reviewer.get(review.get_absolute_url()).text
    assert (address in page, "Red." in page, "Show it in step" in page) == (True, False, True)
    nobody = User.objects.create(username="reviews only")
    nobody.user_permissions.set(Permission.objects.filter(codename__in=("view_review", "view_payload")))
    looks = Client()
    looks.force_login(nobody)
    page = looks.get(review.get_absolute_url()).text
    assert (f'<a href="{address}">' in page, "Show it in step" in page) == (True, False), "the run is not theirs to see"
    shown = reviewer.get(address).text
    assert "Conversation with openai:gpt: 2 messages, 12 tokens in, 3 tokens out" in shown
    assert [f'<p class="label">{label}</p>' in shown for label in ("Prompt", "The model answers")] == [True, True]
    assert ("&lt;b&gt;Which?" in shown, "<b>" in shown) == (True, False)
    assert "/conversation/" not in reviewer.get(other.get_absolute_url()).text
    assert "Nothing of it is kept" in reviewer.get(f"/reviews/{other.pk}/conversation/").text


def test_single_keys_are_switched_off_for_one_person_until_they_switch_them_on(people, reviewer):
    review = stopped()
    assert 'data-single="on"' in reviewer.get(review.get_absolute_url()).content.decode()
    answer = reviewer.post("/reviews/keys/", {"back": review.get_absolute_url()})
    assert answer.url == review.get_absolute_url()
    assert 'data-single="off"' in reviewer.get("/reviews/").content.decode()
    assert reviewer.get("/reviews/keys/").url == "/reviews/"  # opened by its address: nothing changes
    assert Preference.objects.get().single_keys is False
    elsewhere = reviewer.post("/reviews/keys/", {"single_keys": "on", "back": "https://example.com/"})
    assert elsewhere.url == "/reviews/"
    assert 'data-single="on"' in reviewer.get("/reviews/").content.decode()


@pytest.mark.parametrize("name", ["outsider"])
def test_strangers_get_nothing_of_it(people, name):
    review, client = stopped(), Client()
    client.force_login(people[name])
    for part in ("steps", "conversation"):
        assert client.get(f"/reviews/{review.pk}/{part}/").status_code == 403
    assert client.post(f"/reviews/{review.pk}/diff/", {"decision": "edit"}).status_code == 403
    assert client.post("/reviews/keys/").status_code == 403


@sdk.worker
def deaf(text: str) -> sdk.Result[agents.Choice]:
    return sdk.Result(agents.Choice(colour="red", amount=1), 0.3)


@sdk.agent("deafness", title="Deafness", version="1", threshold=0.8)
def deafness(run: sdk.Run, order: agents.Order) -> agents.Answer:
    return agents.Answer(said=run.step("deaf", deaf, text=order.text).colour)


def test_send_back_says_whether_the_worker_reads_the_remark(reviewer):
    heard, unheard = (reviewer.get(stopped(slug).get_absolute_url()).content.decode() for slug in ("guessing", "deafness"))
    assert "The worker begins anew with your remark. It was sent back 0 of 5" in heard
    assert "Remark for the worker" in heard
    assert "it takes no remarks, so what you write is for the history alone" in unheard
    assert "The worker takes no remarks: the run&#x27;s history carries it." in unheard
    assert "Remark for the worker" not in unheard


def test_the_tabs_are_counted_on_the_page_where_no_script_asks_for_it(reviewer):
    first, _ = stopped(), stopped(text="another")
    counts = re.compile(r'data-count="(\w+)" data-number="(\d*)"')
    found = dict(counts.findall(reviewer.get(first.get_absolute_url()).text))
    assert found | {"all": "2", "unassigned": "2", "mine": "0"} == found
    assert found == dict(counts.findall(reviewer.get("/reviews/").text))
    reviewer.cookies["scripts"] = "on"
    assert set(dict(counts.findall(reviewer.get(first.get_absolute_url()).text)).values()) == {""}
