"""Keeps what this process's calls hold (slots, and the canary) for as long as the calls last."""

import os
import threading
import time
from collections.abc import Callable

import structlog

from runs.reliability import slots, store

logger = structlog.get_logger()
LEASE_SECONDS = 15.0  # so soon the slot of a process that died comes back
RENEW_SECONDS = 4.0


class _Renewer:
    """One thread, which asks for all of them in one round trip."""

    def __init__(self) -> None:
        self.held: dict[slots.Lease, Callable[[], bool]] = {}  # whether its call is over
        self._some = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: slots.Lease, is_over: Callable[[], bool]) -> None:
        self.held[lease] = is_over
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
        for lease in [lease for lease, is_over in list(self.held.items()) if is_over()]:
            self.held.pop(lease, None)
        try:
            lost = [lease.ticket for lease in slots.renew(list(self.held), LEASE_SECONDS) if lease in self.held]
            if lost:
                logger.warning("slots_lost", calls=lost)
        except store.Unavailable as error:
            logger.warning("slots_not_renewed", error=str(error))


def keep(lease: slots.Lease | None, is_over: Callable[[], bool]) -> None:
    """Renew it from now on, until let_go() or its call is over."""
    if lease:
        _renewer.add(lease, is_over)


def let_go(lease: slots.Lease | None) -> None:
    """No longer."""
    if lease:
        _renewer.held.pop(lease, None)


_renewer = _Renewer()


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _renewer
    _renewer = _Renewer()


os.register_at_fork(after_in_child=_after_fork)
