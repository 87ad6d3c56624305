"""The sockets of many pages of one run, in a process of their own, so that what they cost is not the server's or the writer's.

It is told in a line of JSON whom to be, says "open", is told by the times of the events that they are all written, and says what
each page came to.
"""

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

EVENT = re.compile(rb'"id": "event-(\d+)"')
CURSOR = re.compile(rb'{"seq": (\d+),')
PATIENCE_SECONDS = 90.0


@dataclass(slots=True)
class Page:
    """It loses its network once, and asks on from where it was."""

    address: str
    headers: dict[str, str]
    cursor: int
    leaves_after: float  # seconds
    stays_away: float
    reads_every: float  # seconds: it is slow
    seqs: list[int] = field(default_factory=list)
    arrived: dict[int, float] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    left_at: float = 0.0
    back_at: float = 0.0

    async def watch(self, last: int, began: asyncio.Event) -> None:
        """Until the last event is there."""
        async with connect(self.address.format(self.cursor), **self._manner()) as socket:
            self.open.set()
            await began.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.leaves_after):
                    await self._read(socket, last)
            self.left_at = time.time()
            socket.transport.abort()
        await asyncio.sleep(self.stays_away)
        self.seqs = [seq for seq in self.seqs if seq <= self.cursor]  # what came of a message in parts comes again
        while not self._has(last):
            async with connect(self.address.format(self.cursor), **self._manner()) as socket:
                self.back_at = self.back_at or time.time()
                with suppress(ConnectionClosed):
                    await self._read(socket, last)

    def _manner(self) -> dict[str, Any]:
        return {"additional_headers": self.headers, "max_size": None, "open_timeout": PATIENCE_SECONDS}

    def _has(self, last: int) -> bool:
        return bool(self.seqs) and self.seqs[-1] >= last

    async def _read(self, socket: ClientConnection, last: int) -> None:
        while not self._has(last):
            text: bytes = await asyncio.wait_for(socket.recv(decode=False), PATIENCE_SECONDS)
            at = time.time()
            found = [int(seq) for seq in EVENT.findall(text)]
            self.seqs += found
            self.arrived |= dict.fromkeys(found, at)
            if moved := CURSOR.match(text):
                self.cursor = int(moved[1])
            if self.reads_every:
                await asyncio.sleep(self.reads_every)

    def late(self, written: dict[int, float]) -> list[float]:
        """Milliseconds of each event that was not on its way while there was no network; a page that reads slowly has none."""
        if self.reads_every:
            return []
        apart = [(at, self.arrived[seq]) for seq, at in written.items() if seq in self.arrived]
        return [round((came - at) * 1000, 1) for at, came in apart if came < self.left_at or at > self.back_at]


async def main() -> None:
    told = json.loads(sys.stdin.readline())
    first, last, began = told["first"], told["last"], asyncio.Event()
    pages = [Page(**one) for one in told["pages"]]
    async with asyncio.TaskGroup() as group:
        for page in pages:
            group.create_task(page.watch(last, began))
            await asyncio.wait_for(page.open.wait(), PATIENCE_SECONDS)
        _say("open")
        began.set()
    _say("seen")
    written = {int(seq): at for seq, at in json.loads(sys.stdin.readline()).items()}
    wrong = sum(page.seqs != list(range(first, last + 1)) for page in pages)
    late = [one for page in pages for one in page.late(written)]
    _say(json.dumps({"wrong": wrong, "late": late, "cpu_seconds": time.process_time()}))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
