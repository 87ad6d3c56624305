"""What the pages of a run are told, made once for all who look at it with the same rights."""

import asyncio
import json
import time
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from channels.db import database_sync_to_async
from django.urls import reverse

from runs import parts
from runs.models.content import hidden
from runs.parts import Part, Update

BETWEEN_SECONDS = 0.2  # two messages of one run
DRAWN_SECONDS = 2.0  # two of them with its bars
KEPT_SECONDS, KEPT_CHARACTERS = 15.0, 4_000_000  # what pages were told, for those that were away
FRAME_BYTES = 64 * 1024
Rights = tuple[bool, bool, bool]  # whether somebody may review, may control, and sees the payloads of the run


class Told(NamedTuple):
    """`seq` is the cursor after the frames, of which there are none where nothing is new; `at` is when it was looked up.

    `more`: ask again at once, as there is or may be something after `seq`.
    """

    seq: int
    frames: list[str]
    more: bool
    at: float


class Feed:
    """Of one run and its viewers of the same rights, in one event loop.

    They all take the same steps, at most one in BETWEEN_SECONDS, and the bars come with one in DRAWN_SECONDS. Whoever is behind
    takes those that are still kept, or one of its own up to where the others are.
    """

    def __init__(self, run_id: int, may: Rights) -> None:
        self._run_id, self._may = run_id, may
        self._seq = 0  # where those who are not behind are
        self._kept: dict[int, Told] = {}  # by the cursor that each begins at, the oldest first
        self._making: dict[int, asyncio.Task[Told]] = {}
        self._looked_at = self._drawn_at = 0.0
        self._forgetting: asyncio.TimerHandle | None = None

    async def after(self, cursor: int) -> Told:
        """The next step from there. Where nothing is new it has no frames."""
        if (kept := self._kept.get(cursor)) and kept.at > time.monotonic() - KEPT_SECONDS:
            return kept
        if cursor not in self._making:
            self._making[cursor] = asyncio.create_task(self._make(cursor))
        return await asyncio.shield(self._making[cursor])

    async def _make(self, cursor: int) -> Told:
        try:
            while 0 < self._seq < cursor:  # its page is newer than what the others were told last
                if not (await self.after(self._seq)).frames:
                    return Told(cursor, [], more=False, at=self._looked_at)
            told = await (self._behind(cursor) if cursor < self._seq else self._newest(cursor))
            if told.frames:
                self._keep(cursor, told)
            return told
        finally:
            del self._making[cursor]

    async def _behind(self, cursor: int) -> Told:
        told = await self._look(cursor, until=self._seq, draw=False)
        return told._replace(more=bool(told.frames))  # none where the run was removed

    async def _newest(self, cursor: int) -> Told:
        await asyncio.sleep(self._looked_at + BETWEEN_SECONDS - time.monotonic())
        self._looked_at = time.monotonic()
        draw = self._looked_at > self._drawn_at + DRAWN_SECONDS
        told = await self._look(cursor, until=parts.LAST, draw=draw)
        if told.frames:
            self._seq = max(self._seq, told.seq)
            self._drawn_at = told.at if draw else self._drawn_at
        return told

    async def _look(self, cursor: int, *, until: int, draw: bool) -> Told:
        at = time.monotonic()
        may_review, may_control, sees = self._may
        viewer = {"may_review": may_review, "may_control": may_control}
        with hidden(not sees):
            look = database_sync_to_async(parts.update)
            update: Update = await look(self._run_id, after=cursor, until=until, viewer=viewer, draw=draw)
        return Told(update.seq, frames(self._run_id, update) if update.parts else [], update.more, at)

    def _keep(self, cursor: int, told: Told) -> None:
        self._kept.pop(cursor, None)
        self._kept[cursor] = told
        size = sum(len(frame) for one in self._kept.values() for frame in one.frames)
        while size > KEPT_CHARACTERS:
            oldest = self._kept.pop(next(iter(self._kept)))
            size -= sum(map(len, oldest.frames))
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget)

    def _forget(self) -> None:
        until, self._forgetting = time.monotonic() - KEPT_SECONDS, None
        self._kept = {cursor: told for cursor, told in self._kept.items() if told.at > until}
        if self._kept:
            self._forgetting = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget)


def of(run_id: int, may: Rights) -> Feed:
    """The one of the running loop. It is there as long as somebody holds it, or it keeps what somebody was told."""
    feeds = _of_loops.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    if (feed := feeds.get((run_id, may))) is None:
        feed = feeds[run_id, may] = Feed(run_id, may)
    return feed


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[tuple[int, Rights], Feed]] = WeakKeyDictionary()


def frames(run_id: int, update: Update) -> list[str]:
    """The update in messages of at most FRAME_BYTES; only the last one moves the cursor. A part that fits none is a pointer."""
    packed: list[list[dict[str, str]]] = [[]]
    size = 0
    for part in update.parts:
        one = shown(run_id, part)
        length = len(json.dumps(one)) + 2
        if size + length > FRAME_BYTES - 100 and packed[-1]:
            packed.append([])
            size = 0
        packed[-1].append(one)
        size += length
    cursors = [None] * (len(packed) - 1) + [update.seq]
    return [json.dumps({"seq": seq, "parts": parts}) for seq, parts in zip(cursors, packed, strict=True)]


def shown(run_id: int, part: Part) -> dict[str, str]:
    if len(json.dumps(part.html)) <= FRAME_BYTES // 2:
        return {"id": part.id, "html": part.html, "into": part.into, "url": part.url}
    url = reverse("run_part", args=[run_id, part.id.removeprefix("run-")])
    return {"id": part.id, "html": "", "into": part.into, "url": url}
