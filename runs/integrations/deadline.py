"""The end of a call's connections when its time is over: a read timeout alone is for each part of an answer."""

import os
import socket  # noqa: TID251 - ends what drips
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from runs.reliability import guard


@contextmanager
def kept(*lost: type[Exception]) -> Iterator[None]:
    """For a block within a guarded call: what it has open (see `watch`) ends with the time of an attempt.

    Else who sends a byte every few seconds would keep thread, socket and slot for ever. `lost` are the errors by which a
    client says that its connection ended.
    """
    seconds = guard.terms().attempt_timeout_seconds
    ending = _Ending()
    timer = threading.Timer(seconds, ending.end)
    timer.daemon = True
    timer.start()
    token = _ending.set(ending)
    try:
        yield
    except lost as error:
        if ending.has_come:
            raise TimeoutError(f"the answer was not complete within {seconds:g} s") from error
        raise
    finally:
        _ending.reset(token)
        timer.cancel()
        ending.close()


def watch(descriptor: int) -> None:
    """This is a connection of the block."""
    if ending := _ending.get(None):
        ending.watch(descriptor)


class _Ending:
    """Has descriptors of its own for the same connections: the number of one that was closed may be another's by then."""

    def __init__(self) -> None:
        self.has_come = False
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()

    def watch(self, descriptor: int) -> None:
        with self._lock:
            self._connections.append(socket.socket(fileno=os.dup(descriptor)))
            if self.has_come:
                self._end()

    def end(self) -> None:
        with self._lock:
            self.has_come = True
            self._end()

    def _end(self) -> None:
        for one in self._connections:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for one in self._connections:
                one.close()
            self._connections = []


_ending: ContextVar[_Ending] = ContextVar("ending")
