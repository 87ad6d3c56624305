"""Stands between job processes and PostgreSQL and, when asked by SIGUSR1, swallows the reply to the next commit.

`python -m agentops.chaos.proxy LISTEN SERVER COUNT`: two sockets, and a file that gets a byte for each reply swallowed.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 65_536
READY, IDLE = b"Z", b"I"  # "ready for the next query", outside a transaction: what was asked for is committed
CHANGES = (b"COMMIT", b"WITH HEAD", b"INSERT", b"UPDATE")


class Messages:
    """Cuts one direction of a connection into messages of PostgreSQL's protocol."""

    def __init__(self, *, begins_untyped: bool) -> None:
        self._untyped, self._rest = begins_untyped, b""

    def cut(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Letter and body of each message that is complete now."""
        self._rest += data
        whole = []
        while message := self._next():
            whole.append(message)
        return whole

    def _next(self) -> tuple[bytes, bytes] | None:
        start = 0 if self._untyped else 1
        if len(self._rest) < start + 4:
            return None
        end = start + int.from_bytes(self._rest[start : start + 4])
        if len(self._rest) < end:
            return None
        message, self._rest, self._untyped = self._rest[:end], self._rest[end:], False
        return message[:start], message[start + 4 :]


class Link:
    """One connection of a client: what it asked for last, and whether the answer is held back until it is known."""

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.asked, self.answered = Messages(begins_untyped=True), Messages(begins_untyped=False)
        self.prepared: dict[bytes, bool] = {}  # name of a statement -> whether it changes something
        self.changes = False
        self.held_back = b""

    def ask(self, data: bytes) -> bytes:
        for letter, body in self.asked.cut(data):
            if letter == b"P":
                name, query = body.split(b"\0")[:2]
                self.prepared[name] = _changes(query)
            elif letter == b"B":
                self.changes = self.prepared.get(body.split(b"\0")[1], False)
            elif letter == b"Q":
                self.changes = _changes(body)
        return data

    def answer(self, data: bytes) -> bytes:
        """What to pass on. Raises Swallowed at the end of the answer to something that is committed now."""
        messages = self.answered.cut(data)
        if not (self.changes and self.proxy.armed):
            passed, self.held_back = self.held_back + data, b""
            return passed
        self.held_back += data
        states = [body for letter, body in messages if letter == READY]
        if states and states[-1] == IDLE:
            self.proxy.swallow()
            raise Swallowed
        if not states:
            return b""
        passed, self.held_back = self.held_back, b""
        return passed


class Swallowed(Exception):
    """The connection ends here: the work is done, and its client will not hear of it."""


class Ended(Exception):
    """One side has closed: the other is to be closed too."""


class Proxy:
    """`armed` until the next reply has been swallowed."""

    def __init__(self, server: str, count: Path) -> None:
        self.server, self.count, self.armed = server, count, False

    def arm(self) -> None:
        self.armed = True

    def swallow(self) -> None:
        self.armed = False
        with self.count.open("ab") as file:
            file.write(b".")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self)
        writers = [writer]
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self.server)
            writers.append(server_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, server_writer, link.ask))
                both.create_task(_pump(server_reader, writer, link.answer))
        except* (Swallowed, Ended, OSError):
            pass  # however it ended, both sides are closed
        finally:
            for one in writers:
                one.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], bytes]) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(look(data))
        await writer.drain()
    raise Ended


def _changes(query: bytes) -> bool:
    return query.strip().upper().startswith(CHANGES)


async def _main(listen: str, server: str, count: str) -> None:
    proxy = Proxy(server, Path(count))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, proxy.arm)
    async with await asyncio.start_unix_server(proxy.serve, listen) as serving:
        await serving.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
