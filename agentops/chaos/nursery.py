"""Has Django loaded once and forks Django's commands from that: each is a process of its own, there in milliseconds.

`python -m agentops.chaos.nursery` reads one JSON line for each process wanted and answers with its process id.
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
from pathlib import Path
from typing import NoReturn

from agentops.services import process
from agentops.services.places import PROJECT

# What a job process loads before its first job, which takes it longer than all else. With one thread OpenBLAS begins none when
# it is imported: who has threads should not be forked from.
LARGE = ("joblib", "scipy.sparse", "sklearn.feature_extraction.text", "sklearn.linear_model")
ALONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Nursery:
    """Its processes have the environment that it was started with, and what each is given besides."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agentops.chaos.nursery", str(log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=PROJECT,
                env=dict(environment) | ALONE,
                start_new_session=True,
                preexec_fn=lambda: process.die_with_parent(signal.SIGKILL),
            )

    def bear(self, arguments: Sequence[str], environment: Mapping[str, str], *, skew_seconds: float = 0) -> int:
        """Start a process with these arguments of manage.py; return its id."""
        wanted = {"arguments": list(arguments), "environment": dict(environment), "skew_seconds": skew_seconds}
        answer = b""
        if self._process.stdin and self._process.stdout:
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise ChildProcessError(f"The nursery has ended. The end of {self._log} says:\n{process.tail(self._log)}")
        return int(answer)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _main(log: str) -> None:
    import django

    django.setup()
    from django.core.management import BaseCommand
    from django_rq.management.commands import rqworker  # noqa: F401 - loaded once for all of them

    from agentops.management.commands import sweeper  # noqa: F401

    for name in LARGE:
        importlib.import_module(name)
    BaseCommand().check()  # once for all of them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        if threading.active_count() != 1:
            raise RuntimeError("A process that has threads cannot be forked from.")
        if pid := os.fork():
            os.write(1, f"{pid}\n".encode())
        else:
            _adopt(wanted["environment"])
            become(wanted["arguments"], skew_seconds=wanted["skew_seconds"], log=log)


def _adopt(environment: Mapping[str, str]) -> None:
    """The settings have been read already: where the database is they have to be told."""
    from django.db import connection
    from environ import Env

    os.environ.update(environment)
    if url := environment.get("DATABASE_URL"):
        connection.settings_dict["OPTIONS"]["host"] = Env.db_url_config(url)["OPTIONS"]["host"]


def become(arguments: Sequence[str], *, skew_seconds: float = 0, log: str = "") -> NoReturn:
    """Make this fork that process of manage.py; what it says goes where its parent's errors go, unless there is a log."""
    from django.core import management

    code: object = 1
    try:
        os.setsid()
        process.die_with_parent(signal.SIGKILL)
        for number in (signal.SIGCHLD, signal.SIGQUIT):  # a shell has the latter ignored by what it starts in the background
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        says = os.open(log, os.O_WRONLY | os.O_APPEND) if log else 2
        for output in (1, 2):
            os.dup2(says, output)
        if skew_seconds:
            _set_the_clock(skew_seconds)
        management.execute_from_command_line(["manage.py", *arguments, "--skip-checks"])
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _set_the_clock(skew_seconds: float) -> None:
    """Of this process alone, for whatever asks Python for the time of day; the database's stays true."""
    import time_machine

    time_machine.travel(time.time() + skew_seconds, tick=True).start()


if __name__ == "__main__":
    _main(sys.argv[1])
