"""The socket of the inbox brings the rows that changed, as whoever looks may see them, and how many there are."""

import asyncio
import json
import threading

import django_rq
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.http import QueryDict

from reviews import claims, counts, decisions, frames, live, presence
from reviews.filters import Filters
from reviews.models import Review
from reviews.shared import Together
from runs import commands, consumers, executor
from runs import live as bell
from runs.models.content import are_hidden
from tests import agents
from tests.test_live import hang_up, opened

pytestmark = pytest.mark.django_db(transaction=True)


def new_review():
    run = commands.start("guessing", {"text": "a secret", "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.get(run=run)


async def said(there, what="changed"):
    while not (heard := json.loads((await there.receive_output(timeout=10))["text"])).get(what):
        pass  # a beat, or what nobody asks about here
    return heard


async def shut(there):
    while "code" not in (heard := await there.receive_output(timeout=10)):
        pass  # what was said before
    return heard["code"]


async def test_opening_claiming_and_deciding_each_bring_the_row_as_whoever_looks_sees_it(people):
    there, filtered = await opened("/ws/inbox/", people["reviewer"]), await opened("/ws/inbox/?cause=gated", people["admin"])
    review = await sync_to_async(new_review)()
    heard = await said(there)
    assert heard["changed"] == {str(review.pk): ""}
    assert heard["rows"].count("data-row=") == 1
    assert "a secret" in heard["rows"]
    assert "data-gone" not in heard["rows"]
    assert "data-gone" in (await said(filtered))["rows"], "it does not fit"
    await sync_to_async(presence.beat)(review.pk, people["reviewer2"])
    assert "reviewer2" in (await said(there))["rows"]
    await sync_to_async(presence.beat)(review.pk, people["reviewer"])
    heard = await said(there)
    assert (heard["changed"], ">reviewer<" in heard["rows"]) == ({str(review.pk): "who"}, False), "nobody is told of themselves"
    await sync_to_async(claims.claim)(review.pk, people["reviewer2"])
    assert (await said(there))["changed"] == {str(review.pk): "who"}
    heard = await said(there, "counts")
    assert (heard["counts"]["all"], heard["counts"]["mine"], heard["changed"]) == (1, 0, {})
    assert "1<span" in heard["around"]["nav-count"]
    await sync_to_async(decisions.decide)(review.pk, actor=people["reviewer2"], kind="approve", seen=review.fingerprint)
    assert await said(there) == {"changed": {str(review.pk): "decided"}}
    assert (await said(there, "counts"))["counts"]["all"] == 0
    past = await opened("/ws/inbox/?state=decided", people["reviewer"])
    await sync_to_async(live.nudge)(review.pk, "decided")
    assert f'data-row="{review.pk}"' in (await said(past))["rows"], "there it has come"


@pytest.mark.parametrize(
    ("before", "later", "said"),
    [("", "who", ""), ("decided", "who", "decided"), ("who", "", ""), ("who", "decided", "decided"), ("decided", "", "")],
)
def test_of_what_is_said_of_a_review_the_latest_counts_where_it_is_more_than_who_is_at_it(before, later, said):
    assert bell.joined({"7": before, "8": "who"}, {"7": later}) == {"7": said, "8": "who"}


async def test_a_cancelled_run_rings_too_and_a_silent_socket_beats(people, monkeypatch):
    review = await sync_to_async(new_review)()
    await sync_to_async(bell.flush)()  # that it is new is said before anybody listens
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(commands.cancel)(review.run_id, by="operator")
    assert await said(there) == {"changed": {str(review.pk): "cancelled"}}
    monkeypatch.setattr(consumers, "FALLBACK_SECONDS", 0.1)
    monkeypatch.setattr(consumers, "BEAT_SECONDS", 0.0)
    while (await there.receive_output(timeout=10))["text"] != "{}":
        pass


async def test_a_burst_of_changes_is_few_messages_that_name_every_review(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(lambda: [live.nudge(number) for number in range(1, 501)])()
    heard = [await said(there)]
    while "500" not in heard[-1]["changed"]:
        heard.append(await said(there))
    assert sorted(int(number) for one in heard for number in one["changed"]) == list(range(1, 501))
    assert len(heard) < 10
    assert [one for one in heard if len(one["changed"]) > frames.MOST_ROWS]
    assert [one for one in heard if "rows" in one and len(one["changed"]) > frames.MOST_ROWS] == [], "the page asks for those"


async def test_a_page_that_is_opened_after_redis_forgot_who_listens_hears_what_changes(people):
    before, every = await opened("/ws/inbox/", people["reviewer"]), await opened("/ws/runs/", people["reviewer"])
    await sync_to_async(django_rq.get_connection("default").flushall)()
    there = await opened("/ws/inbox/", people["admin"])
    await sync_to_async(live.nudge)(1)
    await sync_to_async(bell.nudge)(7, 1)
    for one in (there, before, every):
        assert await said(one)


async def test_rows_wait_for_no_count_and_a_socket_survives_what_cannot_be_written(people, monkeypatch):
    def count(asked):
        begun.set()
        assert go_on.wait(30)
        return [{"counts": {"all": 7}}] * len(asked)

    def fail(*args):
        raise ValueError("a worker's own words")

    def withdraw(asked):
        if asked[0][1] == (4,):
            people["reviewer"].groups.clear()
            people["reviewer"].user_permissions.set(Permission.objects.filter(codename__in=("view_run", "view_review")))
        return ["<li>"] * len(asked)

    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(frames, "_counted", Together(count))
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(new_review)()
    assert await asyncio.to_thread(begun.wait, 30)
    assert "data-row=" in (await said(there))["rows"]
    with monkeypatch.context() as patched:
        patched.setattr(frames, "changed_rows", fail)
        await sync_to_async(live.nudge)(1)
        assert await said(there) == {"changed": {"1": ""}}
        patched.setattr(frames, "rows", Together(lambda asked: ["é" * 20_000] * len(asked)))
        await sync_to_async(live.nudge)(2)
        assert await said(there) == {"changed": {"2": ""}}, "too large for a message"
        patched.setattr("reviews.consumers.FALLBACK_SECONDS", -1.0)
        patched.setattr(frames, "rows", Together(withdraw))
        await sync_to_async(live.nudge)(3)
        assert (await said(there)).get("rows") == "<li>"
        await sync_to_async(live.nudge)(4)
        assert await said(there) == {"changed": {"4": ""}}, "too late: whoever looks has other rights by now"
    go_on.set()
    assert (await said(there, "counts"))["counts"] == {"all": 7}


def test_of_two_who_ask_together_each_sees_what_their_own_rights_show_and_rows_are_written_as_hidden_as_read(people, monkeypatch):
    people["reviewer"].groups.clear()
    pages, review = [frames.Page.read(QueryDict(), people[name]) for name in ("admin", "reviewer")], new_review()
    for asked in (pages, pages[::-1]):
        rows = frames._rows([(page, (review.pk,)) for page in asked])
        assert [f'data-row="{review.pk}"' in one for one in rows] == [True, True]
        assert ["a secret" in one for one in rows] == [page is pages[0] for page in asked]
    monkeypatch.setattr(frames, "_html", lambda page, rows: str(are_hidden()))
    assert frames._rows([(page, (1,)) for page in pages]) == ["False", "True"]


def test_of_tabs_that_take_too_long_there_are_no_counts():
    locked, go_on = threading.Event(), threading.Event()

    def lock():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE reviews_review")
            locked.set()
            go_on.wait(30)
        connection.close()

    thread = threading.Thread(target=lock)
    thread.start()
    assert locked.wait(30)
    assert counts.of_many([Filters()], most_ms=50) == [{}]
    go_on.set()
    thread.join(30)
    assert counts.of_many([Filters()], most_ms=5000)[0]["all"] == 0


async def test_whoever_loses_the_permission_is_shut_out_at_the_next_change(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await people["reviewer"].groups.aclear()
    await sync_to_async(new_review)()
    assert await shut(there) == consumers.SIGN_IN_AGAIN


async def test_whoever_was_removed_disabled_or_signed_out_is_shut_out_within_five_seconds(people):
    """H8: nothing rings, and the change may have been made by hand in the database."""
    assert consumers.FALLBACK_SECONDS <= 4
    names = ("reviewer", "reviewer2", "admin", "operator")
    removed, disabled, signed_out, stays = [await opened("/ws/inbox/", people[name]) for name in names]
    await people["reviewer"].groups.aclear()
    await User.objects.filter(username="reviewer2").aupdate(is_active=False)
    async for session in Session.objects.all():
        if session.get_decoded()["_auth_user_id"] == str(people["admin"].pk):
            await session.adelete()
    for there in (removed, disabled, signed_out):
        assert await shut(there) == consumers.SIGN_IN_AGAIN
    await sync_to_async(live.nudge)(1)
    assert await said(stays)


__all__ = ["agents", "hang_up"]
