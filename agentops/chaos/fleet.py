"""The job processes and the sweeper of a trial: starts them, replaces what died, and kills or pauses them by their ids."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from agentops.services import process
from agentops.services.places import PROJECT

JOB_PROCESS = ("rqworker", "default", "--verbosity", "0")
SWEEPER = ("sweeper",)


class Member:
    """One process that is to be there always."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.arguments, self.log = arguments, log
        self._process: subprocess.Popen[bytes] | None = None

    def keep_alive(self, database_url: str) -> None:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, str(PROJECT / "manage.py"), *self.arguments]
            environment = os.environ | {"DATABASE_URL": database_url}
            # SIGKILL, because a job process that is asked to stop would first wait for Redis, which is gone by then.
            ends = signal.SIGKILL
            self._process = process.launch(
                command, log=self.log, directory=PROJECT, environment=environment, on_parents_death=ends
            )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def horses(self) -> list[int]:
        """What it has forked for its job; found by parentage, since RQ gives horses a group of their own."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def end(self) -> None:
        send(signal.SIGKILL, [*self.horses(), self.pid])
        if self._process:
            self._process.wait(timeout=10)


class Fleet:
    """`job_processes` job processes and one sweeper, with this process's environment but for the way to the database."""

    def __init__(self, job_processes: int, log: Path) -> None:
        self.database_url = os.environ["DATABASE_URL"]
        self.workers = [Member(JOB_PROCESS, log) for _ in range(job_processes)]
        self.members = [*self.workers, Member(SWEEPER, log)]

    def keep_alive(self) -> None:
        for member in self.members:
            member.keep_alive(self.database_url)

    def reach_the_database_by(self, url: str) -> None:
        """From now on; every process begins anew."""
        self.end()
        self.database_url = url

    def end(self) -> None:
        for member in self.members:
            member.end()


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Signal each of these processes that is still there."""
    for pid in pids:
        if pid > 0:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
