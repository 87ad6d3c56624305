"""Keeps the slots of this process's calls for as long as the calls last."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from runs.reliability import slots, store

logger = structlog.get_logger()
LEASE_SECONDS = 15.0  # so soon the slot of a process that died comes back
RENEW_SECONDS = 4.0


class _Renewer:
    """One thread, which asks for all of them in one round trip."""

    def __init__(self) -> None:
        self.held: set[tuple[str, str]] = set()
        self._some = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, holder: tuple[str, str]) -> None:
        self.held.add(holder)
        self._some.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._renew_for_ever, name="slots", daemon=True)
                    self._thread.start()

    def _renew_for_ever(self) -> None:
        while True:
            self._some.wait()
            time.sleep(RENEW_SECONDS)
            self._some.clear()
            if self.held:
                self._some.set()
                self._renew()

    def _renew(self) -> None:
        try:
            slots.renew(list(self.held), LEASE_SECONDS)
        except store.Unavailable as error:
            logger.warning("slots_not_renewed", error=str(error))


@contextmanager
def held(dependency: str, holder: str) -> Iterator[None]:
    """Its lease is renewed during the block."""
    _renewer.add((dependency, holder))
    try:
        yield
    finally:
        _renewer.held.discard((dependency, holder))


_renewer = _Renewer()


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _renewer
    _renewer = _Renewer()


os.register_at_fork(after_in_child=_after_fork)
