"""Carries a run in a process of its own and witnesses how that ends: for a step that has ended processes before."""

import os
import signal
import sys
import threading
import time

import structlog
from django.conf import settings

from runs import keeper
from runs.engine.outcome import Ending

logger = structlog.get_logger()
MOST_AT_ONCE = 2  # in one job process
LOOK_SECONDS = 0.05
NO_DATABASE = 69  # exit code of a process that could record nothing more
_room = threading.Semaphore(MOST_AT_ONCE)


def carry(run_id: int, fence: int) -> Ending | None:
    """Start `manage.py carry`, wait for its end and say how it was; None where there is no room for another."""
    if not _room.acquire(blocking=False):
        return None
    try:
        return _witnessed(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "carry", str(run_id), str(fence), str(os.getpid())]
        )
    finally:
        _room.release()


def _witnessed(command: list[str]) -> Ending | None:
    began, asked_to_stop = time.monotonic(), False
    try:
        pid = os.posix_spawn(command[0], command, os.environ)
    except OSError as error:
        logger.warning("no_process", error=str(error))
        return None
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return _ending(os.waitstatus_to_exitcode(status), time.monotonic() - began, usage.ru_maxrss // 1024)
        if keeper.hand_over.is_set() and not asked_to_stop:
            asked_to_stop = True
            os.kill(pid, signal.SIGTERM)
        time.sleep(LOOK_SECONDS)


def _ending(code: int, seconds: float, memory_mb: int) -> Ending:
    if code == NO_DATABASE:
        return Ending("because it could not reach the database", seconds, exit_code=code, memory_mb=memory_mb, counts=False)
    if code < 0:
        return Ending(f"by signal {-code} ({signal.Signals(-code).name})", seconds, signal=-code, memory_mb=memory_mb)
    return Ending(f"with exit code {code}", seconds, exit_code=code, memory_mb=memory_mb)
