"""The servers of a trial: thrown away at its end, and until then as durable as those of a checkout."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from agentops.services import process
from agentops.services.failure import ServicesFailure
from agentops.services.places import PROJECT
from agentops.services.postgres import DURABLE, NAME, Postgres, postgres
from agentops.services.valkey import Valkey, valkey

PATIENCE_SECONDS = 20.0
SOCKET = ".s.PGSQL.5432"


class DurablePostgres(Postgres):
    """Ends with its parent as a throw-away server does, but waits for the disk: a commit that was confirmed must stay."""

    def _settings(self) -> tuple[str, ...]:
        return DURABLE

    def fall(self) -> None:
        """PostgreSQL's immediate shutdown: no checkpoint, nobody is asked; the next start recovers from the log."""
        _end(self.pid(), signal.SIGQUIT)
        if not process.wait_until(lambda: self.pid() is None, PATIENCE_SECONDS):
            raise ServicesFailure(f"PostgreSQL did not stop within {PATIENCE_SECONDS:g} s; the end of {self.log} may say why.")


class Proxy:
    """The process of proxy.py: another way to the same PostgreSQL."""

    def __init__(self, directory: Path, postgres: Postgres) -> None:
        self._sockets, self._count, self._log = directory / "proxy", directory / "swallowed", directory / "proxy.log"
        self._server = postgres.sockets / SOCKET
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(self._sockets))}"

    def start(self) -> None:
        self._sockets.mkdir()
        arguments: list[str | Path] = [
            sys.executable,
            "-m",
            "agentops.chaos.proxy",
            self._sockets / SOCKET,
            self._server,
            self._count,
        ]
        self._process = process.launch(arguments, log=self._log, directory=PROJECT, on_parents_death=signal.SIGKILL)
        if not process.wait_until((self._sockets / SOCKET).exists, PATIENCE_SECONDS):
            raise ServicesFailure(f"The proxy does not start. The end of {self._log} says:\n{process.tail(self._log)}")

    def swallow_one(self) -> None:
        """The reply to the next commit; `swallowed` says when that has happened."""
        if self._process:
            self._process.send_signal(signal.SIGUSR1)

    def swallowed(self) -> int:
        return self._count.stat().st_size if self._count.exists() else 0

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


def servers(directory: Path) -> tuple[DurablePostgres, Valkey]:
    """Both servers of a trial in this directory; neither is started."""
    return DurablePostgres(**vars(postgres(directory, throw_away=True))), valkey(directory, throw_away=True)


def _end(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        os.kill(pid, number)
