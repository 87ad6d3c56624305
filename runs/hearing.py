"""Hears what live.py tells, once for all sockets of this process, and passes it on to those that joined the group."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

logger = structlog.get_logger()
ANSWER_SECONDS = 1.0  # for Redis to answer: somebody's page waits
AGAIN_SECONDS = 1.0  # after it did not
RENEW_SECONDS = 60.0  # it may have forgotten who listens
Hear = Callable[[dict[str, Any]], None]


async def join(group: str, hear: Hear) -> None:
    """From now on `hear` is called with each message to the group; without Redis as soon as it is there again."""
    await _ear().join(group, hear)


async def leave(*joined: tuple[str, Hear]) -> None:
    """It is called no more from the moment of asking, also where it was not in the group or whoever asks is cancelled."""
    await _ear().leave(*joined)


def count(group: str) -> int:
    """How many sockets of this process are in the group."""
    return sum(len(ear.groups.get(group, ())) for ear in list(_of_loops.values()))


class Ear:
    """Of one event loop: its one channel, which is in every group that one of its sockets joined."""

    def __init__(self) -> None:
        self.groups: dict[str, set[Hear]] = {}
        self._channel = ""
        self._changing = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._renewal: asyncio.Timeout | None = None
        self._told: set[str] = set()  # the groups that Redis should know
        self._failed_at = float("-inf")

    async def join(self, group: str, hear: Hear) -> None:
        self.groups.setdefault(group, set()).add(hear)
        async with self._changing:
            if self._listening is None:
                self._channel = await get_channel_layer().new_channel()
                self._listening = asyncio.create_task(self._listen())
            if self._is_away():
                return  # _listen tells it
            known = next(iter(self._told), group)  # by one that it should know Redis shows whether it has forgotten all
            if not await self._tell({group, known}) and self._renewal:
                with suppress(RuntimeError):  # _listen is about to tell it anyway
                    self._renewal.reschedule(asyncio.get_running_loop().time() + AGAIN_SECONDS)

    async def leave(self, *joined: tuple[str, Hear]) -> None:
        for group, hear in joined:
            self.groups.get(group, set()).discard(hear)
        async with self._changing:
            left = {group for group, _ in joined if self.groups.get(group) == set()}
            for group in left:
                del self.groups[group]
            await self._untell(left)
            if not self.groups and self._listening:
                self._listening.cancel()
                self._listening = self._renewal = None

    def _is_away(self) -> bool:
        return time.monotonic() < self._failed_at + AGAIN_SECONDS

    async def _tell(self, groups: Collection[str]) -> bool:
        """Whether Redis now knows that the channel is in these groups; where it had forgotten one, in all of them."""
        names, now = list(groups), time.time()
        layer = get_channel_layer()
        pipeline = layer.connection(0).pipeline(transaction=False)
        for group in names:
            pipeline.zadd(_key(group), {self._channel: now})
            pipeline.expire(_key(group), layer.group_expiry)
        if (answers := await self._answers(pipeline)) is None:
            return False
        forgotten = self._told & {group for group, is_new in zip(names, answers[::2], strict=True) if is_new}
        self._told = {*names} if forgotten else self._told | {*names}
        others = self.groups.keys() - self._told
        return await self._tell(others) if forgotten and others else True

    async def _untell(self, groups: Collection[str]) -> None:
        self._told -= {*groups}
        if groups and not self._is_away():
            pipeline = get_channel_layer().connection(0).pipeline(transaction=False)
            for group in groups:
                pipeline.zrem(_key(group), self._channel)
            await self._answers(pipeline)

    async def _answers(self, pipeline: Any) -> list[Any] | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answers: list[Any] = await pipeline.execute()
                return answers
        except (RedisError, OSError) as error:
            logger.warning("groups_not_told", error=str(error) or repr(error))
        except Exception:
            logger.exception("groups_not_told")  # whatever it is, the sockets must go on hearing
        self._failed_at = time.monotonic()
        return None

    async def _listen(self) -> None:
        is_told = True
        while True:
            try:
                async with asyncio.timeout(RENEW_SECONDS if is_told else AGAIN_SECONDS) as self._renewal:
                    await self._pass_on_for_ever()
            except TimeoutError:
                pass
            except (RedisError, OSError) as error:
                logger.warning("not_heard", error=str(error))
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                logger.exception("not_heard")  # here too
                await asyncio.sleep(AGAIN_SECONDS)
            is_told = await self._tells_again()

    async def _tells_again(self) -> bool:
        """Whatever fails: where this task ended, no socket of the process would hear a nudge any more."""
        try:
            async with self._changing:
                return await self._tell(self.groups)
        except Exception:
            logger.exception("not_heard")
            return False

    async def _pass_on_for_ever(self) -> None:
        while True:
            message = await get_channel_layer().receive(self._channel)
            for hear in tuple(self.groups.get(message.get("group"), ())):
                hear(message)


def _key(group: str) -> str:
    return f"{get_channel_layer().prefix}:group:{group}"  # of channels_redis


def _ear() -> Ear:
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        _of_loops[loop] = Ear()
    return _of_loops[loop]


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Ear] = WeakKeyDictionary()
