"""The sockets of pages: who may listen, and that a cursor misses nothing and doubles nothing."""

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import DatabaseError
from django.test import Client

from agentops.asgi import application
from runs import commands, consumers, executor, live
from runs.models import Run
from runs.timeline import Part, Update
from tests import agents

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
        assert len(frame["text"]) <= consumers.FRAME_BYTES
        said = json.loads(frame["text"])
        parts += said["parts"]
        if said["seq"] is not None and said["seq"] >= until:
            return parts


def event_ids(parts):
    return [part["id"] for part in parts if part["into"] == "events"]


# --- who is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/runs/", "/ws/runs/{run}/", "/ws/inbox/"])
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


async def test_two_pages_that_watch_see_each_event_once_and_the_end(people):
    run = await sync_to_async(started)(number=5)
    pages = [await opened(f"/ws/runs/{run.pk}/", people[name]) for name in ("operator", "reviewer")]
    ended = await sync_to_async(carried)(run)
    for there in pages:
        parts = await received(there, ended.last_seq)
        assert event_ids(parts) == [f"event-{seq}" for seq in range(1, ended.last_seq + 1)]
        states = [part["html"] for part in parts if part["id"] == "run-state"]
        assert "Succeeded" in states[-1]
        await there.disconnect()


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
    monkeypatch.setattr(consumers.timeline, "update", fail)
    there = await opened(f"/ws/runs/{run.pk}/", people["operator"])
    assert (await there.receive_output(timeout=10))["code"] == consumers.TRY_AGAIN


async def test_a_list_is_told_that_a_run_changed(people):
    there = await opened("/ws/runs/", people["operator"])
    run = await sync_to_async(started)()
    assert json.loads((await there.receive_output(timeout=10))["text"]) == {"changed": run.pk}
    await there.disconnect()


async def test_an_idle_socket_stays_open_longer_than_ten_seconds(people):
    run = await sync_to_async(started)()
    one, every = await opened(f"/ws/runs/{run.pk}/", people["operator"]), await opened("/ws/runs/", people["operator"])
    await received(one, 1)
    assert await one.receive_nothing(timeout=11, interval=0.5)
    ended, _ = await asyncio.gather(sync_to_async(carried)(run), asyncio.sleep(0))
    assert len(event_ids(await received(one, ended.last_seq))) == ended.last_seq - 1
    assert json.loads((await every.receive_output(timeout=10))["text"]) == {"changed": run.pk}
    for there in (one, every):
        await there.disconnect()


# --- messages are small ----------------------------------------------------------------------------------------------


def test_a_part_too_large_for_a_message_is_a_pointer_to_it():
    update = Update(3, [Part("step-1", "x" * 70_000, "steps"), Part("event-3", "<li>", "events")])
    (frame,) = [json.loads(frame) for frame in consumers.frames(7, update)]
    assert frame["seq"] == 3
    assert frame["parts"][0] == {"id": "step-1", "html": "", "into": "steps", "url": "/runs/7/parts/step-1/"}
    assert frame["parts"][1]["html"] == "<li>"


def test_many_parts_come_in_several_messages_and_only_the_last_moves_the_cursor():
    update = Update(9, [Part(f"event-{seq}", "é" * 5_000, "events") for seq in range(1, 10)])
    packed = consumers.frames(7, update)
    assert all(len(frame) <= consumers.FRAME_BYTES for frame in packed)
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
