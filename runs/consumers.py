"""The sockets of pages: a cursor, not a stream. They read what is new under the viewer's permissions, and take no commands."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseError
from django.urls import reverse
from django.utils import timezone

from runs import access, feed, hearing, listeners, live
from runs.models import Run
from runs.parts import Part

logger = structlog.get_logger()
FALLBACK_SECONDS = 4.0  # a nudge can get lost, and whoever was removed is shut out within 5 s: look at least this often
COALESCE_SECONDS = 0.15  # a burst of events becomes one message
COUNT_SECONDS = 2.0
BEAT_SECONDS = 10.0  # after so long without a word the page is told that it is still connected (static/js/socket.js)
SIGN_IN_AGAIN = 4403  # close code: the page stops trying
TRY_AGAIN = 4500  # close code: something failed here, the page connects again

NEVER = datetime.min.replace(tzinfo=UTC)


class Watcher(AsyncWebsocketConsumer):
    """What the sockets of pages share: who may listen, the bell that a nudge rings, and the loop that reads."""

    channel_layer_alias = "none"  # hearing.py has one channel for all: each of its own would cost a thread for every message
    question: Callable[[access.AnyUser], bool] = staticmethod(access.may_look)
    pause_seconds = COALESCE_SECONDS
    said_at: float
    looked_at: float
    alerts_changed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reader: asyncio.Task[None] | None = None
        self.groups_joined: list[tuple[str, hearing.Hear]] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().__call__(*args, **kwargs)
        finally:
            await self.hang_up()

    async def connect(self) -> None:
        self.session_key = self.scope["session"].session_key  # looked up once: it is behind a lazy object, which is slow
        if not await self.allowed() or not await self.ready():
            await self.close()
            return
        self.bell = asyncio.Event()
        self.bell.set()
        group = self.group()
        await self.join(group, self.changed)  # first: from the moment the page sees an open socket it misses nothing
        if group != live.ALERTS and access.may_look(self.viewer):
            await self.join(live.ALERTS, self.alerted)
        await self.accept()
        self.said_at = time.monotonic()
        self.reader = asyncio.create_task(self._read_for_ever())

    async def hang_up(self) -> None:
        """However the socket ended: also where its page left while it was let in, or while something was sent to it."""
        if self.reader:
            self.reader.cancel()
        await hearing.leave(*self.groups_joined)
        if self.reader:
            await asyncio.wait([self.reader])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages ask over HTTP; whoever talks here is not one of ours."""
        await self.close(code=1003)

    def changed(self, message: dict[str, Any]) -> None:
        """A nudge."""
        self.bell.set()

    def alerted(self, message: dict[str, Any]) -> None:
        """A nudge that is for every page, whatever it shows."""
        self.alerts_changed = True
        self.bell.set()

    async def join(self, group: str, hear: hearing.Hear) -> None:
        self.groups_joined.append((group, hear))
        await hearing.join(group, hear)

    async def allowed(self) -> bool:
        """Whether whoever opened the socket is signed in and may look, now and not only when it was opened."""
        viewer = await listeners.viewer(self.session_key) if self.session_key else None
        if viewer is None or not self.question(viewer):
            return False
        self.viewer = viewer
        return True

    async def ready(self) -> bool:
        """Whether there is what the socket asks for."""
        return True

    def group(self) -> str:
        raise NotImplementedError

    async def read(self, rung: bool) -> bool:
        """Send what is new, and say whether there may be more; `rung` is False when only time has passed."""
        raise NotImplementedError

    async def _read_for_ever(self) -> None:
        code = TRY_AGAIN  # an open socket for which nobody reads would look live
        try:
            while await self._look():
                await asyncio.sleep(self.pause_seconds)
            code = SIGN_IN_AGAIN
        except (DatabaseError, OSError) as error:  # the latter: its page has gone
            logger.warning("socket_failed", path=self.scope["path"], error=str(error) or repr(error))
        except Exception:
            logger.exception("socket_failed", path=self.scope["path"])
        with suppress(OSError, RuntimeError):  # it is closed already
            await self.close(code=code)

    async def _look(self) -> bool:
        rung = True
        try:
            await asyncio.wait_for(self.bell.wait(), FALLBACK_SECONDS)
        except TimeoutError:
            rung = False
        self.bell.clear()
        self.looked_at = time.monotonic()
        while await self.allowed():
            if self.alerts_changed:
                self.alerts_changed = False
                await self.send(text_data=json.dumps({"alerts": True}))
            if not await self.read(rung):
                await self._beat()
                return True
        return False

    async def send(self, *args: Any, **kwargs: Any) -> None:
        self.said_at = time.monotonic()
        await super().send(*args, **kwargs)

    async def _beat(self) -> None:
        if time.monotonic() - self.said_at > BEAT_SECONDS:
            await self.send(text_data="{}")


class RunConsumer(Watcher):
    """One run: the parts of its page that changed beyond the cursor the page gives in `?after=`.

    The number in the menu is of all runs: a pointer to it is sent when any review changes, at most once in COUNT_SECONDS.
    """

    recount = False
    counted_at = 0.0
    revealed_until = NEVER

    async def connect(self) -> None:
        await super().connect()
        if self.reader and access.may_review(self.viewer):
            await self.join(live.INBOX, self.changed)

    def changed(self, message: dict[str, Any]) -> None:
        self.recount = self.recount or "reviews" in message
        super().changed(message)

    async def ready(self) -> bool:
        self.run_id: int = self.scope["url_route"]["kwargs"]["run_id"]
        after = parse_qs(self.scope["query_string"].decode()).get("after", ["0"])[0]
        self.cursor = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else 0
        if not (self.run_id < 2**63 and await Run.objects.filter(pk=self.run_id).aexists()):
            return False
        if access.may_reveal(self.viewer):  # a page is loaded anew when that is done, and opens another socket
            revealed = await database_sync_to_async(access.revealed)(self.viewer)
            self.revealed_until = revealed.get(self.run_id, self.revealed_until)
        return True

    def group(self) -> str:
        return live.run_group(self.run_id)

    async def read(self, rung: bool) -> bool:
        is_revealed = access.may_reveal(self.viewer) and timezone.now() < self.revealed_until
        sees = access.may_see_payloads(self.viewer) or is_revealed
        may = (access.may_review(self.viewer), access.may_control(self.viewer), sees)
        self.feed = feed.of(self.run_id, may)
        told = await self.feed.after(self.cursor)
        for frame in told.frames:
            await self.send(text_data=frame)
        self.cursor = told.seq
        if told.more or told.at < self.looked_at:  # what rang the bell may have come after it
            return True
        if self.recount and time.monotonic() - self.counted_at > COUNT_SECONDS:
            self.recount, self.counted_at = False, time.monotonic()
            count = Part("nav-count", url=reverse("review_count"))
            await self.send(text_data=json.dumps({"seq": None, "parts": [feed.shown(self.run_id, count)]}))
        return False


class AlertsConsumer(Watcher):
    """The pages of alerts, which hear of nothing else."""

    def group(self) -> str:
        return live.ALERTS

    def changed(self, message: dict[str, Any]) -> None:
        self.alerted(message)

    async def read(self, rung: bool) -> bool:
        return False


class RunsConsumer(Watcher):
    """Every run: says that something changed, at most once a second; the page then asks for what it shows."""

    pause_seconds = 1.0
    last_run: int | None = None

    def group(self) -> str:
        return live.EVERY_RUN

    def changed(self, message: dict[str, Any]) -> None:
        self.last_run = message["run"]
        super().changed(message)

    async def read(self, rung: bool) -> bool:
        if rung and self.last_run:
            await self.send(text_data=json.dumps({"changed": self.last_run}))
        return False
