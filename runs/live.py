"""Tells open pages that there is something new: a number, never content."""

import asyncio
import os
import threading
from contextlib import suppress
from typing import Any

import structlog
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

logger = structlog.get_logger()
EVERY_RUN = "runs"  # the group of pages that show more than one run
INBOX = "inbox"  # the group of pages that show reviews, or how many are open
ALERTS = "alerts"  # the group of all pages: each counts the open ones
WHO = "who"  # said of a review: only who is at it has changed
FLUSH_SECONDS = 2.0
BETWEEN_SECONDS = 0.05  # a run that writes a thousand events a second is still announced twenty times


def run_group(run_id: int) -> str:
    """Name of the channel group of those who look at one run."""
    return f"run-{run_id}"


def nudge(run_id: int, seq: int) -> None:
    """Say "run `run_id` now has `seq` events"; when Redis is down the pages find out by asking (consumers.py)."""
    group, message = run_group(run_id), {"type": "changed", "run": run_id, "seq": seq}
    _bell().ring({group: (group, message), EVERY_RUN: (EVERY_RUN, message)})


def send(group: str, message: dict[str, Any], *, about: object) -> None:
    """Send a message to a group soon, from a thread of this process; only the newest about one thing is sent.

    What is said of "reviews" about the same thing is sent together.
    """
    _bell().ring({(group, about): (group, message)})


def nudge_alerts() -> None:
    """After the current transaction, say that an alert began, changed or ended."""
    transaction.on_commit(lambda: send(ALERTS, {"type": "changed"}, about=ALERTS))


def joined(before: dict[str, str], later: dict[str, str]) -> dict[str, str]:
    """What is said of each review: the latest, where that is more than who is at it."""
    return before | {review: what for review, what in later.items() if what != WHO or review not in before}


def flush() -> None:
    """Wait until what was sent is out: before a process ends."""
    bell = _bell()
    if not bell.rest.is_set():
        bell.hurry()
        bell.rest.wait(FLUSH_SECONDS)


Sending = tuple[str, dict[str, Any]]  # a group, and what to tell it


class Bell(threading.Thread):
    """Keeps one event loop with its connections, so that the engine does not wait for Redis between two steps."""

    def __init__(self) -> None:
        super().__init__(name="live", daemon=True)
        self.rest = threading.Event()
        self.rest.set()
        self._loop = asyncio.new_event_loop()
        self._rung, self._hurried = asyncio.Event(), asyncio.Event()
        self._waiting: dict[object, Sending] = {}
        self._lock = threading.Lock()

    def ring(self, sendings: "dict[object, Sending]") -> None:
        """Each replaces what waits about the same thing."""
        with self._lock:
            silent = not self._waiting
            for about, (group, message) in sendings.items():
                self._waiting[about] = (group, _joined(self._waiting.get(about), message))
            self.rest.clear()
        if silent:
            self._loop.call_soon_threadsafe(self._rung.set)

    def hurry(self) -> None:
        """Send what waits without a pause."""
        self._loop.call_soon_threadsafe(self._hurried.set)

    def run(self) -> None:
        self._loop.run_until_complete(self._ring_for_ever())

    async def _ring_for_ever(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            with self._lock:
                waiting, self._waiting = list(self._waiting.values()), {}
            await _send_all(waiting)
            with self._lock:
                if not self._waiting:
                    self.rest.set()
            await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), BETWEEN_SECONDS)
        self._hurried.clear()


def _joined(before: Sending | None, message: dict[str, Any]) -> dict[str, Any]:
    """The message, with the reviews that the one before it named."""
    earlier = before[1].get("reviews") if before else None
    return message | {"reviews": joined(earlier, message["reviews"])} if earlier else message


async def _send_all(sendings: list[Sending]) -> None:
    """Where somebody listens. A lost message is logged and made good by the next look."""
    layer = get_channel_layer()
    try:
        listening = await _listening(layer, [group for group, _ in sendings])
        for group, message in sendings:
            if group in listening:
                await layer.group_send(group, message | {"group": group})
    except (RedisError, OSError) as error:
        logger.warning("nudge_lost", messages=len(sendings), error=str(error))
    except Exception:
        logger.exception("nudge_lost", messages=len(sendings))  # whatever it is, the bell must go on ringing


async def _listening(layer: Any, groups: list[str]) -> set[str]:
    """Most runs are looked at by nobody: one round trip says which groups have members."""
    pipeline = layer.connection(0).pipeline(transaction=False)
    for group in groups:
        pipeline.exists(f"{layer.prefix}:group:{group}")
    return {group for group, exists in zip(groups, await pipeline.execute(), strict=True) if exists}


_ringing: Bell | None = None
_one_at_a_time = threading.Lock()


def _bell() -> Bell:
    global _ringing
    with _one_at_a_time:
        if _ringing is None:
            _ringing = Bell()
            _ringing.start()
        return _ringing


def _after_fork() -> None:
    """Threads do not survive a fork: the child gets a bell of its own when it first rings."""
    global _ringing, _one_at_a_time
    _ringing, _one_at_a_time = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
