"""The sockets of pages: who may listen, and that a cursor misses nothing and doubles nothing."""

import asyncio
import json
from types import SimpleNamespace

import django_rq
import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.db import DatabaseError
from django.test import Client
from structlog.testing import capture_logs

from agentops.asgi import application
from runs import commands, consumers, executor, feed, hearing, live, parts
from runs.alerts import handling
from runs.models import Alert, Reveal, Run, content
from runs.parts import Part, Update
from tests import agents, watching

pytestmark = pytest.mark.django_db(transaction=True)
HERE = b"http://localhost"
SOCKETS: list[WebsocketCommunicator] = []


@pytest.fixture(autouse=True)
async def hang_up():
    """A socket that was refused or shut still has its consumer: cancelled by the end of the loop, it may never end."""
    yield
    while SOCKETS:
        await SOCKETS.pop().disconnect()


def started(**given):
    return commands.start("counting", {"text": "a message"} | given, by="operator")


def carried(run):
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def reviews_changed(number):
    live.send(live.INBOX, {"type": "changed", "reviews": {str(number): ""}}, about="reviews")


def cookie(person):
    client = Client()
    client.force_login(person)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


async def socket(path, person=None, *, origin=HERE):
    headers = [(b"origin", origin), (b"host", b"localhost")]
    if person:
        session = await sync_to_async(cookie)(person)
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
    there = WebsocketCommunicator(application, path, headers=headers)
    SOCKETS.append(there)
    return there


async def opened(path, person):
    there = await socket(path, person)
    accepted, _ = await there.connect(timeout=10)
    assert accepted
    return there


async def received(there, until):
    """Every part up to the cursor `until`."""
    parts = []
    while True:
        frame = await there.receive_output(timeout=10)
        if frame["type"] == "websocket.close":
            raise AssertionError(f"closed with {frame.get('code')}")
        assert len(frame["text"]) <= feed.FRAME_BYTES
        if not (said := json.loads(frame["text"])):
            continue  # a beat
        parts += said["parts"]
        if said["seq"] is not None and said["seq"] >= until:
            return parts


def event_ids(parts):
    return [part["id"] for part in parts if part["into"] == "events"]


# --- who is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/runs/", "/ws/runs/{run}/", "/ws/inbox/", "/ws/alerts/"])
@pytest.mark.parametrize(("name", "origin"), [(None, HERE), ("outsider", HERE), ("operator", b"https://elsewhere.example")])
async def test_a_stranger_an_outsider_and_a_foreign_origin_are_refused(people, path, name, origin):
    run = await sync_to_async(started)()
    there = await socket(path.format(run=run.pk), people.get(name), origin=origin)
    accepted, _ = await there.connect(timeout=10)
    assert not accepted


@pytest.mark.parametrize("run_id", [999_999, 2**63, 10**40])
async def test_a_run_that_does_not_exist_is_refused(people, run_id):
    there = await socket(f"/ws/runs/{run_id}/", people["operator"])
    accepted, _ = await there.connect(timeout=10)
    assert not accepted


async def test_a_viewer_whose_permission_is_taken_away_is_shut_out_before_the_next_event(people):
    run = await sync_to_async(started)()
    there = await opened(f"/ws/runs/{run.pk}/", people["operator"])
    await received(there, 1)
    await people["operator"].groups.aclear()
    await sync_to_async(carried)(run)
    closed = await there.receive_output(timeout=10)
    assert closed == {"type": "websocket.close", "code": consumers.SIGN_IN_AGAIN}


async def test_signing_out_shuts_the_socket(people):
    from django.contrib.sessions.models import Session

    run = await sync_to_async(started)()
    there = await opened(f"/ws/runs/{run.pk}/", people["operator"])
    await received(there, 1)
    await Session.objects.all().adelete()
    await sync_to_async(carried)(run)
    assert (await there.receive_output(timeout=10))["code"] == consumers.SIGN_IN_AGAIN


async def test_a_socket_takes_no_commands(people):
    there = await opened("/ws/runs/", people["operator"])
    await there.send_to(text_data='{"cancel": 1}')
    assert (await there.receive_output(timeout=10))["code"] == 1003


# --- nothing missed, nothing doubled ---------------------------------------------------------------------------------


async def test_a_page_opened_late_gets_everything_beyond_its_cursor(people):
    run = await sync_to_async(lambda: carried(started(number=2)))()
    there = await opened(f"/ws/runs/{run.pk}/?after=3", people["reviewer"])
    ids = event_ids(await received(there, run.last_seq))
    assert ids == [f"event-{seq}" for seq in range(4, run.last_seq + 1)]
    await there.disconnect()


@pytest.mark.parametrize("cursor", ["", "?after=", "?after=-1", "?after=many", "?after=99999999999999999999"])
async def test_a_cursor_that_is_none_means_from_the_start(people, cursor):
    run = await sync_to_async(lambda: carried(started()))()
    there = await opened(f"/ws/runs/{run.pk}/{cursor}", people["operator"])
    assert len(event_ids(await received(there, run.last_seq))) == run.last_seq
    await there.disconnect()


async def test_pages_that_watch_see_each_event_once_and_the_end_and_those_of_one_right_are_told_together(people, monkeypatch):
    def update(run_id, **asked):
        answer = parts.update(run_id, **asked)
        made.extend([(asked["after"], *asked["viewer"].values())] * bool(answer.parts))
        return answer

    made = []
    monkeypatch.setattr(feed, "parts", SimpleNamespace(update=update, LAST=parts.LAST))
    run = await sync_to_async(started)(number=5)
    pages = [await opened(f"/ws/runs/{run.pk}/", people[name]) for name in ("operator", "reviewer", "operator", "operator")]
    ended = await sync_to_async(carried)(run)
    for there in pages:
        told = await received(there, ended.last_seq)
        assert event_ids(told) == [f"event-{seq}" for seq in range(1, ended.last_seq + 1)]
        states = [part["html"] for part in told if part["id"] == "run-state"]
        assert "Succeeded" in states[-1]
        await there.disconnect()
    assert len(made) == len(set(made))
    assert len({one[1:] for one in made}) == 2, "an operator may control, a reviewer may not"


async def test_the_bars_come_only_so_often_however_far_apart_the_events_are(people, monkeypatch):
    monkeypatch.setattr(feed, "DRAWN_SECONDS", 60.0)
    run = await sync_to_async(started)()
    pages = feed.of(run.pk, (False, True, True))
    told = [await pages.after(0)]
    await sync_to_async(carried)(run)
    told.append(await pages.after(told[0].seq))
    assert ['"bars"' in "".join(one.frames) for one in told] == [True, False]


async def test_whoever_is_behind_or_ahead_comes_to_where_the_others_are_and_takes_their_steps(people):
    run = await sync_to_async(started)()
    pages = feed.of(run.pk, (False, True, True))
    first = await pages.after(0)
    ended = await sync_to_async(carried)(run)
    ahead = await pages.after(3)  # its page was read a moment ago
    behind, others = await pages.after(2), await pages.after(first.seq)
    assert [one.seq for one in (first, behind, ahead, others)] == [1, ended.last_seq, ended.last_seq, ended.last_seq]
    shown = [[part["id"] for part in json.loads(one.frames[0])["parts"] if part["into"] == "events"] for one in (behind, ahead)]
    assert shown == [[f"event-{seq}" for seq in range(cursor + 1, ended.last_seq + 1)] for cursor in (2, 3)]
    assert await pages.after(0) is first, "kept for whoever was away"
    nothing = await pages.after(9_999)
    assert (nothing.seq, nothing.frames) == (9_999, [])


async def test_what_was_kept_too_long_is_looked_up_anew_and_whoever_is_behind_at_a_removed_run_rests(people, monkeypatch):
    run = await sync_to_async(started)()
    pages = feed.of(run.pk, (False, True, True))
    first = await pages.after(0)
    monkeypatch.setattr(feed, "KEPT_SECONDS", 0.0)
    again = await pages.after(0)
    assert again is not first
    assert (again.seq, len(again.frames)) == (first.seq, 1)
    pages._forget()
    assert pages._kept == {}
    removed = feed.of(999_999, (False, True, True))
    removed._seq = 5
    assert (await removed.after(2))[:3] == (2, [], False)


async def test_a_page_opened_while_queued_learns_when_the_run_was_first_taken(people):
    run = await sync_to_async(started)()
    there = await opened(f"/ws/runs/{run.pk}/?after=1", people["operator"])
    ended = await sync_to_async(carried)(run)
    facts = [part["html"] for part in await received(there, ended.last_seq) if part["id"] == "run-facts"]
    assert "First taken" in facts[-1]
    assert "not yet" not in facts[-1]


async def test_the_page_of_a_run_is_told_to_count_the_reviews_again_if_its_reader_may_see_them(people):
    run, viewer = await sync_to_async(started)(), people["reviewer2"]
    await viewer.groups.aset([await Group.objects.aget(name="Viewer")])
    reviewing, looking = [await opened(f"/ws/runs/{run.pk}/?after=1", person) for person in (people["reviewer"], viewer)]
    for number in range(1, 20):
        await sync_to_async(reviews_changed)(number)
    said = json.loads((await reviewing.receive_output(timeout=10))["text"])
    assert said == {"seq": None, "parts": [{"id": "nav-count", "html": "", "into": "", "url": "/reviews/count/"}]}
    assert await reviewing.receive_nothing(timeout=1)
    assert await looking.receive_nothing(timeout=0.1)


async def test_a_lost_nudge_is_made_good_by_looking(people, monkeypatch):
    monkeypatch.setattr(consumers, "FALLBACK_SECONDS", 0.2)
    run = await sync_to_async(started)()
    there = await opened(f"/ws/runs/{run.pk}/", people["operator"])
    await received(there, 1)
    monkeypatch.setattr(live, "nudge", lambda run_id, seq: None)
    ended = await sync_to_async(carried)(run)
    assert len(event_ids(await received(there, ended.last_seq))) == ended.last_seq - 1
    await there.disconnect()


async def test_a_failure_to_read_closes_the_socket_so_that_the_page_comes_back(people, monkeypatch):
    def fail(*args, **kwargs):
        raise DatabaseError("the database is away")

    run = await sync_to_async(started)()
    monkeypatch.setattr(parts, "update", fail)
    there = await opened(f"/ws/runs/{run.pk}/", people["operator"])
    assert (await there.receive_output(timeout=10))["code"] == consumers.TRY_AGAIN


async def test_a_list_is_told_that_a_run_changed(people):
    there = await opened("/ws/runs/", people["operator"])
    run = await sync_to_async(started)()
    assert json.loads((await there.receive_output(timeout=10))["text"]) == {"changed": run.pk}
    await there.disconnect()


async def test_every_page_is_told_that_an_alert_began_was_taken_and_ended(people):
    def told():
        rule = watching.rule()
        yield watching.judged(rule, 20, 20, 20)
        yield handling.acknowledge(Alert.objects.get().pk, by=people["admin"])
        yield watching.judged(rule, 0, 0, 0)

    run = await sync_to_async(started)()
    paths = ("/ws/runs/", f"/ws/runs/{run.pk}/?after=1", "/ws/inbox/", "/ws/alerts/")
    pages = [await opened(path, people["reviewer"]) for path in paths]
    steps = told()
    for _ in range(3):
        await sync_to_async(lambda: next(steps))()
        for there in pages:
            while "alerts" not in (said := json.loads((await there.receive_output(timeout=10))["text"])):
                assert said == {} or "changed" in said or said["seq"] is None, said
            assert said == {"alerts": True}
    assert await sync_to_async(Alert.objects.get)(state="resolved")
    for there in pages:
        await there.disconnect()


async def test_an_idle_socket_beats_and_stays_open_longer_than_ten_seconds(people):
    run = await sync_to_async(started)()
    one, every = await opened(f"/ws/runs/{run.pk}/", people["operator"]), await opened("/ws/runs/", people["operator"])
    await received(one, 1)
    for there in (one, every):
        assert await there.receive_output(timeout=30) == {"type": "websocket.send", "text": "{}"}
    ended, _ = await asyncio.gather(sync_to_async(carried)(run), asyncio.sleep(0))
    assert len(event_ids(await received(one, ended.last_seq))) == ended.last_seq - 1
    assert json.loads((await every.receive_output(timeout=10))["text"]) == {"changed": run.pk}
    for there in (one, every):
        await there.disconnect()


async def test_a_page_that_leaves_at_any_moment_leaves_nobody_listening(people, monkeypatch):
    async def gone(*args, **kwargs):
        raise OSError("the page has gone")

    run, groups = await sync_to_async(started)(), (live.ALERTS, live.INBOX)
    there = await opened(f"/ws/runs/{run.pk}/?after=1", people["reviewer"])
    assert [hearing.count(group) for group in groups] == [1, 1]
    with monkeypatch.context() as patched:
        for name in ("send", "close"):
            patched.setattr(AsyncWebsocketConsumer, name, gone)
        await sync_to_async(carried)(run)
        await there.disconnect(timeout=10)
    assert [hearing.count(group) for group in (*groups, live.run_group(run.pk))] == [0, 0, 0]
    monkeypatch.setattr(AsyncWebsocketConsumer, "accept", gone)
    there = await socket("/ws/inbox/", people["reviewer"])
    await there.send_input({"type": "websocket.connect"})
    with pytest.raises(OSError, match="has gone"):
        await SOCKETS.pop().wait(timeout=10)
    assert [hearing.count(group) for group in groups] == [0, 0]


async def test_what_was_counted_for_a_page_that_has_gone_is_nobodys_failure(people, monkeypatch):
    monkeypatch.setattr("reviews.consumers.COUNTED_SOONEST_SECONDS", 0.01)
    tried = asyncio.Event()

    async def gone(*args, **kwargs):
        tried.set()
        raise OSError("the page has gone")

    with capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(AsyncWebsocketConsumer, "send", gone)
        there = await opened("/ws/inbox/", people["reviewer"])
        await asyncio.wait_for(tried.wait(), 20)
        await there.disconnect(timeout=10)
    assert "not_counted" not in [one["event"] for one in logs]


async def test_redis_that_does_not_answer_keeps_nobody_waiting_and_is_told_later_who_listens(monkeypatch):
    for name in ("ANSWER_SECONDS", "AGAIN_SECONDS"):
        monkeypatch.setattr(hearing, name, 0.2)
    redis, heard = django_rq.get_connection("default"), asyncio.Queue()
    joined = [(f"group-{number}", heard.put_nowait) for number in range(3)]
    await sync_to_async(redis.client_pause)(60_000, all=False)
    try:
        async with asyncio.timeout(20):
            for group, hear in joined:
                await hearing.join(group, hear)
    finally:
        await sync_to_async(redis.client_unpause)()
    async with asyncio.timeout(20):
        while heard.empty():
            await sync_to_async(live.send)("group-2", {"type": "changed"}, about="this")
            await asyncio.sleep(0.1)
    await hearing.leave(*joined)
    await hearing.leave(*joined)
    assert [hearing.count(group) for group, _ in joined] == [0, 0, 0]


async def test_what_is_revealed_is_told_by_the_socket_until_the_right_to_it_is_withdrawn(people):
    def begin():
        return commands.start("guessing", {"text": "a secret", "number": 3}, by="operator")

    person, other, run = people["reviewer"], people["reviewer2"], await sync_to_async(begin)()
    codes = ("view_run", "reveal_payload", "view_payload")
    rights = [await Permission.objects.aget(codename=code) for code in codes]
    for one, theirs in ((person, rights[:2]), (other, rights[::2])):
        await one.groups.aclear()
        await one.user_permissions.aset(theirs)
    await Reveal.objects.acreate(run_id=run.pk, by=person.username, person=person.pk, reason="a complaint")
    pages = [await opened(f"/ws/runs/{run.pk}/", one) for one in (person, other)]
    for there in pages:
        assert "a secret" in json.dumps(await received(there, 1))
    await person.user_permissions.aset(rights[:1])
    ended = await sync_to_async(carried)(run)
    told = [json.dumps(await received(there, ended.last_seq)) for there in pages]
    assert ["a secret" in one for one in told] == [False, True], "each by their own rights, also at one moment"
    assert [content.HIDDEN in one for one in told] == [True, False]


# --- messages are small ----------------------------------------------------------------------------------------------


def test_a_part_too_large_for_a_message_is_a_pointer_to_it():
    update = Update(3, [Part("step-1", "x" * 70_000, "steps"), Part("event-3", "<li>", "events")])
    (frame,) = [json.loads(frame) for frame in feed.frames(7, update)]
    assert frame["seq"] == 3
    assert frame["parts"][0] == {"id": "step-1", "html": "", "into": "steps", "url": "/runs/7/parts/step-1/"}
    assert frame["parts"][1]["html"] == "<li>"


def test_many_parts_come_in_several_messages_and_only_the_last_moves_the_cursor():
    update = Update(9, [Part(f"event-{seq}", "é" * 5_000, "events") for seq in range(1, 10)])
    packed = feed.frames(7, update)
    assert all(len(frame) <= feed.FRAME_BYTES for frame in packed)
    said = [json.loads(frame) for frame in packed]
    assert [one["seq"] for one in said] == [None] * (len(said) - 1) + [9]
    assert [part["id"] for one in said for part in one["parts"]] == [f"event-{seq}" for seq in range(1, 10)]


def test_the_pointer_leads_to_the_same_part(people, client):
    run = carried(started(number=1))
    client.force_login(people["operator"])
    for name in ("step-1", "event-1", "state", "waiting", "result", "actions", "facts"):
        answer = client.get(f"/runs/{run.pk}/parts/{name}/")
        assert answer.status_code == 200
        assert f'id="{name if "-" in name else "run-" + name}"' in answer.text
    for name in ("step-9", "event-999"):
        assert client.get(f"/runs/{run.pk}/parts/{name}/").status_code == 404


__all__ = ["agents"]
