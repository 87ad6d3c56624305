"""The sockets of pages: a cursor, not a stream. They read what is new under the viewer's permissions, and take no commands."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.db import Error as DatabaseError
from django.http import HttpRequest
from django.urls import reverse

from runs import access, live, timeline
from runs.models import Run

logger = structlog.get_logger()
FALLBACK_SECONDS = 4.0  # a nudge can get lost, and whoever was removed is shut out within 5 s: look at least this often
COALESCE_SECONDS = 0.15  # a burst of events becomes one message
COUNT_SECONDS = 2.0
FRAME_BYTES = 64 * 1024
SIGN_IN_AGAIN = 4403  # close code: the page stops trying
TRY_AGAIN = 4500  # close code: something failed here, the page connects again


class Watcher(AsyncWebsocketConsumer):
    """What the sockets of pages share: who may listen, the bell that a nudge rings, and the loop that reads."""

    question: Callable[[access.AnyUser], bool] = staticmethod(access.may_look)
    pause_seconds = COALESCE_SECONDS

    async def connect(self) -> None:
        self.reader: asyncio.Task[None] | None = None
        self.groups_joined: list[str] = []
        if not await self.allowed() or not await self.ready():
            await self.close()
            return
        self.bell = asyncio.Event()
        self.bell.set()
        await self.join(self.group())  # first: from the moment the page sees an open socket it misses nothing
        await self.accept()
        self.reader = asyncio.create_task(self._read_for_ever())

    async def disconnect(self, code: int) -> None:
        if self.reader:
            self.reader.cancel()
            with suppress(asyncio.CancelledError):
                await self.reader
        for group in self.groups_joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages ask over HTTP; whoever talks here is not one of ours."""
        await self.close(code=1003)

    async def changed(self, message: dict[str, Any]) -> None:
        """A nudge of the channel layer."""
        self.bell.set()

    async def join(self, group: str) -> None:
        await self.channel_layer.group_add(group, self.channel_name)
        self.groups_joined.append(group)

    async def allowed(self) -> bool:
        """Whether whoever opened the socket is signed in and may look, now and not only when it was opened."""
        key = self.scope["session"].session_key
        if not key:
            return False
        permitted: bool
        self.viewer, permitted = await database_sync_to_async(self._viewer)(key)
        return permitted

    def _viewer(self, session_key: str) -> tuple[access.AnyUser, bool]:
        """Whose session it is, and whether they may."""
        request = HttpRequest()
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
        viewer = get_user(request)
        return viewer, self.question(viewer)

    async def ready(self) -> bool:
        """Whether there is what the socket asks for."""
        return True

    def group(self) -> str:
        raise NotImplementedError

    async def read(self, rung: bool) -> None:
        """Send what is new; `rung` is False when only time has passed."""
        raise NotImplementedError

    async def _read_for_ever(self) -> None:
        try:
            while await self._look():
                await asyncio.sleep(self.pause_seconds)
            await self.close(code=SIGN_IN_AGAIN)
        except DatabaseError as error:
            logger.warning("socket_failed", error=str(error))
            await self.close(code=TRY_AGAIN)
        except Exception:
            await self.close(code=TRY_AGAIN)  # an open socket for which nobody reads would look live
            raise

    async def _look(self) -> bool:
        rung = True
        try:
            await asyncio.wait_for(self.bell.wait(), FALLBACK_SECONDS)
        except TimeoutError:
            rung = False
        self.bell.clear()
        if not await self.allowed():
            return False
        await self.read(rung)
        return True


class RunConsumer(Watcher):
    """One run: the parts of its page that changed beyond the cursor the page gives in `?after=`.

    The number in the menu is of all runs: a pointer to it is sent when any review changes, at most once in COUNT_SECONDS.
    """

    recount = False
    counted_at = 0.0

    async def connect(self) -> None:
        await super().connect()
        if self.reader and await database_sync_to_async(access.may_review)(self.viewer):
            await self.join(live.INBOX)

    async def changed(self, message: dict[str, Any]) -> None:
        self.recount = self.recount or "reviews" in message
        await super().changed(message)

    async def ready(self) -> bool:
        self.run_id: int = self.scope["url_route"]["kwargs"]["run_id"]
        after = parse_qs(self.scope["query_string"].decode()).get("after", ["0"])[0]
        self.cursor = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else 0
        return await Run.objects.filter(pk=self.run_id).aexists() if self.run_id < 2**63 else False

    def group(self) -> str:
        return live.run_group(self.run_id)

    async def read(self, rung: bool) -> None:
        while (update := await database_sync_to_async(self._update)()).parts:
            for frame in frames(self.run_id, update):
                await self.send(text_data=frame)
            self.cursor = update.seq
        if self.recount and time.monotonic() - self.counted_at > COUNT_SECONDS:
            self.recount, self.counted_at = False, time.monotonic()
            count = timeline.Part("nav-count", url=reverse("review_count"))
            await self.send(text_data=json.dumps({"seq": None, "parts": [_shown(self.run_id, count)]}))

    def _update(self) -> timeline.Update:
        may = {"may_review": access.may_review(self.viewer), "may_control": access.may_control(self.viewer)}
        return timeline.update(self.run_id, after=self.cursor, viewer=may)


class RunsConsumer(Watcher):
    """Every run: says that something changed, at most once a second; the page then asks for what it shows."""

    pause_seconds = 1.0
    last_run: int | None = None

    def group(self) -> str:
        return live.EVERY_RUN

    async def changed(self, message: dict[str, Any]) -> None:
        self.last_run = message["run"]
        await super().changed(message)

    async def read(self, rung: bool) -> None:
        if rung and self.last_run:
            await self.send(text_data=json.dumps({"changed": self.last_run}))


def frames(run_id: int, update: timeline.Update) -> list[str]:
    """The update in messages of at most FRAME_BYTES; only the last one moves the cursor. A part that fits none is a pointer."""
    packed: list[list[dict[str, str]]] = [[]]
    size = 0
    for part in update.parts:
        shown = _shown(run_id, part)
        length = len(json.dumps(shown)) + 2
        if size + length > FRAME_BYTES - 100 and packed[-1]:
            packed.append([])
            size = 0
        packed[-1].append(shown)
        size += length
    cursors = [None] * (len(packed) - 1) + [update.seq]
    return [json.dumps({"seq": seq, "parts": parts}) for seq, parts in zip(cursors, packed, strict=True)]


def _shown(run_id: int, part: timeline.Part) -> dict[str, str]:
    if len(json.dumps(part.html)) <= FRAME_BYTES // 2:
        return {"id": part.id, "html": part.html, "into": part.into, "url": part.url}
    url = reverse("run_part", args=[run_id, part.id.removeprefix("run-")])
    return {"id": part.id, "html": "", "into": part.into, "url": url}
