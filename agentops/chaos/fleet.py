"""The job processes and the sweeper of a trial: starts them, replaces what died, and kills or pauses them by their ids."""

import os
import select
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agentops.chaos.nursery import Nursery

JOB_PROCESS = ("rqworker", "default", "--verbosity", "0")
SWEEPER = ("sweeper",)


class Member:
    """One process that is to be there always. Its handle is the kernel's, so that no stranger is ever hit by a signal."""

    def __init__(self, arguments: Sequence[str], *, skew_seconds: float = 0) -> None:
        self.arguments, self.skew_seconds = arguments, skew_seconds
        self.pid, self._handle = 0, -1

    @property
    def alive(self) -> bool:
        return self._handle >= 0 and not select.select([self._handle], [], [], 0)[0]

    def keep_alive(self, nursery: Nursery, environment: Mapping[str, str]) -> None:
        if self.alive:
            return
        self._forget()
        self.pid = nursery.bear(self.arguments, environment, skew_seconds=self.skew_seconds)
        with suppress(ProcessLookupError):
            self._handle = os.pidfd_open(self.pid)

    def send(self, number: signal.Signals) -> None:
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def children(self) -> list[int]:
        """What it has forked for a job; found by parentage, since RQ gives them a group of their own."""
        found: list[int] = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children") if self.alive else ():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, task.read_text().split())
        return found

    def end(self) -> None:
        send(signal.SIGKILL, self.children())
        self.send(signal.SIGKILL)
        if self._handle >= 0:
            select.select([self._handle], [], [], 10)
        self._forget()

    def _forget(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self.pid, self._handle = 0, -1


class Fleet:
    """`job_processes` job processes and a sweeper, with this process's environment and what `environment` adds to it."""

    def __init__(self, job_processes: int, log: Path) -> None:
        self.job_processes = job_processes
        self.environment: dict[str, str] = {}
        self.workers: list[Member] = []
        self.sweeper = Member(SWEEPER)
        self._nursery = Nursery(os.environ, log)
        self.man(job_processes)

    @property
    def members(self) -> list[Member]:
        return [*self.workers, self.sweeper]

    def pids_of_workers(self) -> list[int]:
        """Those of the job processes and of what they have forked."""
        return [pid for worker in self.workers for pid in (worker.pid, *worker.children())]

    def man(self, job_processes: int, *, skews: Sequence[float] = (0,)) -> None:
        """Have so many job processes, each with the next of these clocks, and the sweeper with the last."""
        for member in self.members:
            member.end()
        self.workers = [Member(JOB_PROCESS, skew_seconds=skews[number % len(skews)]) for number in range(job_processes)]
        self.sweeper = Member(SWEEPER, skew_seconds=skews[-1])

    def keep_alive(self) -> None:
        for member in self.members:
            if not member.alive:
                member.keep_alive(self._nursery, self.environment)

    def move_to(self, environment: dict[str, str]) -> None:
        """From now on; where it differs, every process begins anew."""
        if environment != self.environment:
            self.rest()
            self.environment = environment

    def rest(self) -> None:
        """End every process, until they are kept alive again."""
        for member in self.members:
            member.end()

    def end(self) -> None:
        self.rest()
        self._nursery.end()


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Signal each of these processes that is still there."""
    for pid in pids:
        if pid > 0:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
