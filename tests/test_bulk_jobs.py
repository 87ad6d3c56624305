"""Many reviews decided together by a job process: what is left when it ends, and who goes on with it."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from reviews import bulk, decisions, retention, selection, sweep
from reviews.models import BulkDecision, BulkItem, Decision
from runs import dispatch, event_log
from runs.engine.events import Kind
from runs.models import Run
from tests.interleaved import behind, ends_who_waits, somebody_waits
from tests.processes import eventually, kill, process
from tests.reviewing import signed_in
from tests.test_bulk import decide, opened, outcomes, preview, states

pytestmark = pytest.mark.django_db
FAST = {"SWEEP_SECONDS": "0.2", "UNDO_SECONDS": "0", "LOG_LEVEL": "WARNING"}


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    return signed_in(people["reviewer"])


def test_many_are_left_to_a_job_and_one_that_ended_can_be_gone_on_with(
    client: Client, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 1)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(dispatch, "ask", lambda *job: asked.append(job))
    reviews = [opened("refunding", number=number) for number in (3, 4, 5)]
    answer = decide(client, preview(client, *reviews), "approve")
    begun = BulkDecision.objects.get()
    assert asked == [(bulk.JOB, str(begun.pk))]
    assert outcomes(answer) == {"": 3}
    # the first is decided, and the process ends before it says so
    decisions.decide(
        reviews[0].pk, actor=people["reviewer"], kind="approve", seen=reviews[0].fingerprint, channel="bulk", bulk=begun.pk
    )
    assert 'hx-trigger="every 1s"' in client.get(answer.headers["Location"]).content.decode()
    BulkDecision.objects.update(begun_at=timezone.now() - timedelta(minutes=1))
    silent = client.get(answer.headers["Location"]).content.decode()
    assert "Go on with the other 3" in silent
    assert "hx-trigger" not in silent.split("<main")[1]
    stranger = Client()
    stranger.force_login(people["reviewer2"])
    assert stranger.post(reverse("continue_bulk", args=[begun.pk])).status_code == 403
    client.post(reverse("continue_bulk", args=[begun.pk]))
    assert asked[1:] == [(bulk.JOB, str(begun.pk))]
    bulk.carry(str(begun.pk))
    assert outcomes(answer) == {"decided": 3}
    assert Decision.objects.count() == 3


def test_who_lost_the_right_meanwhile_decides_no_more(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    review, actor = opened("refunding"), people["reviewer"]
    seen = selection.opened(selection.preview([review], actor).sealed(), actor)
    begun = bulk.begin(seen, actor=actor, kind="approve", reason="")
    actor.groups.clear()
    bulk.carry(str(begun.pk))
    assert [item.said for item in begun.items.all()] == ["You may not decide reviews any more."]
    assert states(review) == ["open"]


def test_one_that_cannot_be_decided_holds_up_no_other(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened("refunding", number=3), opened("refunding", number=4)
    seen = selection.opened(selection.preview([first, second], people["reviewer"]).sealed(), people["reviewer"])
    real = decisions.decide

    def decide(review_id: int, **more: Any) -> Decision:
        if review_id == seen.shown[0][0]:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("DO $$BEGIN RAISE 'more than PostgreSQL holds' USING ERRCODE = '54000'; END$$")
        return real(review_id, **more)

    monkeypatch.setattr(decisions, "decide", decide)
    begun = bulk.begin(seen, actor=people["reviewer"], kind="approve", reason="")
    refused, decided = begun.items.order_by("pk")
    assert (refused.outcome, decided.outcome) == ("refused", "decided")
    assert refused.said.startswith("It could not be decided: OperationalError: more than PostgreSQL holds")


def test_one_whose_process_has_ended_is_gone_on_with_at_the_sweepers_word(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(dispatch, "ask", lambda *job: asked.append(job))
    review = opened("refunding")
    decide(client, preview(client, review), "approve")
    begun = BulkDecision.objects.get()
    asked.clear()
    sweep.sweep()
    assert asked == [], "it was heard of just now"
    BulkDecision.objects.update(begun_at=timezone.now() - timedelta(minutes=1))
    sweep.sweep()
    sweep.sweep()
    assert asked == [(bulk.JOB, str(begun.pk))]
    cache.clear()
    BulkDecision.objects.update(begun_at=timezone.now() - timedelta(days=2))
    sweep.sweep()
    BulkDecision.objects.update(begun_at=timezone.now() - timedelta(minutes=1))
    bulk.carry(str(begun.pk))
    sweep.sweep()
    assert len(asked) == 1
    assert states(review) == ["decided"]


@pytest.mark.parametrize(("window", "ends"), [(0.0, ["decided"]), (60.0, ["undone"])])
def test_taken_back_at_the_moment_it_is_decided_says_what_is_true(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, window: float, ends: list[str]
) -> None:
    settings.UNDO_SECONDS = window
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    monkeypatch.setattr(dispatch, "ask", lambda *job: None)
    review = opened("refunding")
    decide(client, preview(client, review), "approve")
    begun = BulkDecision.objects.get()
    item = begun.items.get()
    begun.items.update(outcome="undone")  # after the carrier has read it
    bulk._carry(begun, item, undo_seconds=window)
    item.refresh_from_db()
    assert [item.outcome] == ends
    assert states(review) == ["decided" if ends == ["decided"] else "open"]
    assert bool(item.said) == (ends == ["decided"])


def test_kill_9_in_the_middle_and_it_is_gone_on_with_by_itself(
    transactional_db: None, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed when it has decided the fourth and has not said so yet."""
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    reviews, actor = [opened("guessing", number=1) for _ in range(8)], people["reviewer"]
    seen = selection.opened(selection.preview(reviews, actor).sealed(), actor)
    begun = bulk.begin(seen, actor=actor, kind="approve", reason="")
    fourth = begun.items.order_by("pk")[3]
    with process("rqworker", "default", **FAST) as victim, transaction.atomic():
        BulkItem.objects.select_for_update().get(pk=fourth.pk)
        eventually(somebody_waits)
        kill(victim)
        ends_who_waits()
    told = Counter(begun.items.values_list("outcome", flat=True))
    assert (told, Decision.objects.count()) == ({"decided": 3, "": 5}, 4)
    begun.items.update(at=F("at") - timedelta(minutes=1))  # it has been silent for long
    BulkDecision.objects.update(begun_at=F("begun_at") - timedelta(minutes=1))
    runs = Run.objects.filter(pk__in=[review.run_id for review in reviews])
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: begun.left == 0 and runs.ended().count() == len(reviews))
    assert Counter(begun.items.values_list("outcome", flat=True)) == {"decided": 8}
    assert (states(*reviews), set(Decision.objects.values_list("bulk", flat=True))) == (["decided"] * 8, {begun.pk})
    decided = [[fact.kind for fact in event_log.facts(run.pk)].count(Kind.STEP_DECIDED) for run in runs]
    assert (decided, set(runs.values_list("status", flat=True))) == ([1] * 8, {"succeeded"})


def test_of_two_prunings_the_last_removes_the_bulk_decision_of_which_nothing_is_left(
    transactional_db: None, people: dict[str, User]
) -> None:
    told = {"kind": "approve", "previewed_at": timezone.now(), "begun_at": timezone.now()}
    begun = BulkDecision.objects.create(actor=people["reviewer"], **told)
    first, second = (begun.items.create(review=opened("refunding")) for _ in range(2))

    @transaction.atomic
    def remove(item: BulkItem) -> None:
        retention.forget(run_ids=[item.review.run_id])
        item.delete()

    with behind(lambda: remove(second)) as other:
        remove(first)
        other.waits()
    assert not BulkDecision.objects.exists()
    assert begun.word == "Approved", "also one that an older version left without items has a page"
