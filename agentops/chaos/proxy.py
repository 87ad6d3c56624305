"""Stands between processes and PostgreSQL and, when asked to, swallows the reply to the next commit of a kind of write.

`python -m agentops.chaos.proxy LISTEN SERVER SWALLOWED`: two sockets, and a file that gets the kind of each reply swallowed.
A line on its standard input arms it: how often, then which kind. Each line replaces what was asked for of that kind.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 65_536
READY, IDLE = b"Z", b"I"  # "ready for the next query", outside a transaction: what was asked for is committed
CHANGES = (b"COMMIT", b"WITH", b"INSERT", b"UPDATE", b"DELETE")
WRITES = (b"INSERT ", b"UPDATE ", b"COMMIT", b"DELETE ")  # a WITH that has none of these changes nothing
# What stands in a transaction of each kind, the first that fits; the names of events stand in their rows.
KINDS = {
    "start": (b"RunRequested",),
    "decision": (b"StepDecided",),
    "cancel": (b"RunCancelRequested", b"RunCancelled"),
    "retry": (b"RunRetried",),
    "end": (b"RunSucceeded", b"RunFailed"),
    "park": (b"RunParked",),
    "step": (b"StepSucceeded", b"StepStarted", b"AttemptStarted"),
    "lease": (b"lease_until",),
}


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
    """One connection of a client: what it asked for since it was idle, and whether the answer is held back until it is known."""

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.asked, self.answered = Messages(begins_untyped=True), Messages(begins_untyped=False)
        self.prepared: dict[bytes, bytes] = {}  # name of a statement -> its text
        self.text = b""
        self.changes = False
        self.held_back = b""

    def ask(self, data: bytes) -> bytes:
        for letter, body in self.asked.cut(data):
            if letter == b"P":
                name, query = body.split(b"\0")[:2]
                self.prepared[name] = query
            elif letter == b"B":
                self._note(self.prepared.get(body.split(b"\0")[1], b""), body)
            elif letter == b"Q":
                self._note(body, b"")
        return data

    def answer(self, data: bytes) -> bytes:
        """What to pass on. Raises Swallowed at the end of the answer to something that is committed now."""
        messages = self.answered.cut(data)
        states = [body for letter, body in messages if letter == READY]
        idle = bool(states) and states[-1] == IDLE
        if self.changes and self.proxy.armed:
            self.held_back += data
            if not states:
                return b""
            if idle and self.proxy.swallow(self.kind()):
                raise Swallowed
            data = b""
        passed, self.held_back = self.held_back + data, b""
        if idle:
            self.text, self.changes = b"", False
        return passed

    def kind(self) -> str:
        return next((kind for kind, words in KINDS.items() if any(word in self.text for word in words)), "other")

    def _note(self, query: bytes, values: bytes) -> None:
        self.text += query + values
        self.changes = self.changes or _changes(query)


class Swallowed(Exception):
    """The connection ends here: the work is done, and its client will not hear of it."""


class Ended(Exception):
    """One side has closed: the other is to be closed too."""


class Proxy:
    """`armed` says how many replies of each kind are still to be swallowed."""

    def __init__(self, server: str, swallowed: Path) -> None:
        self.server, self.swallowed, self.armed = server, swallowed, Counter[str]()

    def arm(self, line: bytes) -> None:
        count, kind = line.decode().split()
        self.armed[kind] = int(count)
        self.armed = +self.armed  # without those that are nought

    def swallow(self, kind: str) -> bool:
        """Whether this one is to be swallowed; then it is counted."""
        if not self.armed[kind]:
            return False
        self.armed.subtract([kind])
        self.armed = +self.armed
        with self.swallowed.open("a") as file:
            file.write(f"{kind}\n")
        return True

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
    """A statement that takes a lease or writes events may begin with its parts (WITH)."""
    asked = query.strip().upper()
    return asked.startswith(CHANGES) and any(word in asked for word in WRITES)


async def _obey(proxy: Proxy) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        proxy.arm(line)


async def _main(listen: str, server: str, swallowed: str) -> None:
    proxy = Proxy(server, Path(swallowed))
    async with await asyncio.start_unix_server(proxy.serve, listen):
        await _obey(proxy)  # until who started it has gone


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
