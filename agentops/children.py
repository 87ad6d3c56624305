"""One long-running process under `make run`: starts it, notices its death, stops it with all it has forked."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from agentops.services import process
from agentops.services.places import PROJECT

TOO_MANY_DEATHS = 5
WITHIN_SECONDS = 60
LARGEST_LOG_BYTES = 5_000_000


class Child:
    """Its output goes to `<log directory>/<name>.log`, so that the terminal stays readable."""

    def __init__(self, name: str, arguments: Sequence[str], log_directory: Path) -> None:
        self.name = name
        self.log = log_directory / f"{name}.log"
        self._arguments = [sys.executable, *arguments]
        self._deaths: deque[float] = deque(maxlen=TOO_MANY_DEATHS)
        self._process: subprocess.Popen[bytes] | None = None
        self._rests_until = 0.0

    def start(self) -> None:
        _keep_log_small(self.log)
        self._process = process.launch(self._arguments, log=self.log, directory=PROJECT, on_parents_death=signal.SIGTERM)

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process else None

    def start_again(self) -> bool:
        """False, and nothing is started, if it died too often of late."""
        self._deaths.append(time.monotonic())
        if len(self._deaths) == TOO_MANY_DEATHS and self._deaths[-1] - self._deaths[0] < WITHIN_SECONDS:
            return False
        self._end_session()
        self.start()
        return True

    def rest(self, seconds: float) -> None:
        """It died too often: after that long it may be started again."""
        self._rests_until = time.monotonic() + seconds
        self._deaths.clear()

    def rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def ask_to_stop(self) -> None:
        if self._process and self.exit_code() is None:
            self._process.terminate()

    def stop(self, seconds: float) -> None:
        """Ask, wait, and then leave no process behind."""
        self.ask_to_stop()
        process.wait_until(lambda: self._process is None or self.exit_code() is not None, seconds)
        self._end_session()

    def _end_session(self) -> None:
        """A killed job process leaves the child it forked for the job; both are in the session we gave it."""
        if self._process is None:
            return
        for pid in _members_of_session(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


def _members_of_session(session: int) -> list[int]:
    if process.PROC.is_dir():
        pids = [int(entry.name) for entry in process.PROC.iterdir() if entry.name.isdigit()]
    else:
        pids = [int(pid) for pid in subprocess.run(["ps", "-axo", "pid="], check=False, capture_output=True).stdout.split()]
    return [pid for pid in pids if _session_of(pid) == session]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _keep_log_small(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
