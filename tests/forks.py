"""Processes of manage.py, forked from one that has imported what does not depend on settings: there in a quarter of the time.

`python -m tests.forks` reads lines of JSON: first the names of modules, then each process that is wanted, answered with its
id, and each id of which somebody asks whether it has ended, answered with its exit code or null. It ends with its standard input.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentops.chaos import nursery
from agentops.services.places import PROJECT

OURS = ("agentops", "runs", "reviews", "tests", "__main__")
# What tests alone need.
NOT_THESE = ("pytest", "_pytest", "xdist", "execnet", "hypothesis", "playwright")


class Child:
    """As much of subprocess.Popen as tests use."""

    def __init__(self, server: "Server", pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Server:
    """One for all processes of this one, begun when the first is wanted."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
        return Child(self, self.ask({"arguments": list(arguments), "environment": dict(environment)}))

    def ask(self, question: Any) -> Any:
        with self._one_at_a_time:
            process = self._process = self._process or self._started()
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

    def _started(self) -> "subprocess.Popen[bytes]":
        command, pipe = [sys.executable, "-m", "tests.forks"], subprocess.PIPE
        environment = os.environ | nursery.ALONE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=PROJECT, env=environment, start_new_session=True)
        names = [*nursery.LARGE, *(name for name in sys.modules if name.split(".")[0] not in (*OURS, *NOT_THESE))]
        assert process.stdin
        process.stdin.write(json.dumps(names).encode() + b"\n")
        return process


def main() -> None:
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)  # what asks for settings when it is imported is left to who has them
    for name in json.loads(sys.stdin.readline()):
        with suppress(Exception):
            importlib.import_module(name)
    for line in sys.stdin:
        question = json.loads(line)
        answer = _ended(question["ended"]) if "ended" in question else _forked(**question)
        os.write(1, f"{json.dumps(answer)}\n".encode())


def _ended(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _forked(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise RuntimeError("A process that has threads cannot be forked from.")
    if pid := os.fork():
        return pid
    os.environ.clear()
    os.environ.update(environment)
    nursery.become(arguments)


if __name__ == "__main__":
    main()
