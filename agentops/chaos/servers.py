"""The servers of a trial: thrown away at its end, and until then as durable as those of a checkout."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from agentops.services import process
from agentops.services.failure import ServicesFailure
from agentops.services.places import PROJECT
from agentops.services.postgres import DURABLE, NAME, Postgres, postgres
from agentops.services.valkey import Valkey, valkey

PATIENCE_SECONDS = 20.0
SOCKET = ".s.PGSQL.5432"
BEFORE = "before_the_restore"  # name of the database that a restored one takes the place of


class DurablePostgres(Postgres):
    """Ends with its parent as a throw-away server does, but waits for the disk: a commit that was confirmed must stay."""

    def _settings(self) -> tuple[str, ...]:
        return DURABLE

    def fall(self) -> None:
        """PostgreSQL's immediate shutdown: no checkpoint, nobody is asked; the next start recovers from the log."""
        _end(self.pid(), signal.SIGQUIT)
        if not process.wait_until(lambda: self.pid() is None, PATIENCE_SECONDS):
            raise ServicesFailure(f"PostgreSQL did not stop within {PATIENCE_SECONDS:g} s; the end of {self.log} may say why.")

    def dump(self, file: Path) -> None:
        """pg_dump, while everybody goes on."""
        self._run("pg_dump", "--format=custom", "--file", str(file), NAME)

    def restore(self, file: Path) -> None:
        """Into a new database in the place of the present one, to which nobody may be connected."""
        for statement in (f"ALTER DATABASE {NAME} RENAME TO {BEFORE}", f"CREATE DATABASE {NAME}"):
            self._run("psql", "--quiet", "--command", statement, "postgres")
        self._run("pg_restore", "--dbname", NAME, str(file))

    def _run(self, program: str, *arguments: str) -> None:
        where = ["--host", str(self.sockets), "--username", NAME]
        done = subprocess.run([self.programs / program, *where, *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            raise ServicesFailure(f"{program} failed: {done.stderr.strip()}")


class MortalValkey(Valkey):
    """Keeps nothing: who kills it loses everything."""

    def fall(self) -> None:
        _end(self.pid(), signal.SIGKILL)
        if not process.wait_until(lambda: self.pid() is None, PATIENCE_SECONDS):
            raise ServicesFailure("Redis did not end by SIGKILL.")
        self.socket.unlink(missing_ok=True)


class Proxy:
    """The process of proxy.py: another way to the same PostgreSQL."""

    def __init__(self, directory: Path, postgres: Postgres) -> None:
        self._sockets, self._swallowed, self._log = directory / "proxy", directory / "swallowed", directory / "proxy.log"
        self._server = postgres.sockets / SOCKET
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> str:
        """Where its socket is, as a client's `host`."""
        return str(self._sockets)

    @property
    def url(self) -> str:
        return f"postgresql://{NAME}@/{NAME}?host={quote(self.directory)}"

    def start(self) -> None:
        self._sockets.mkdir()
        self._swallowed.touch()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agentops.chaos.proxy", self._sockets / SOCKET, self._server, self._swallowed],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                start_new_session=True,
                preexec_fn=lambda: process.die_with_parent(signal.SIGKILL),
            )
        if not process.wait_until((self._sockets / SOCKET).exists, PATIENCE_SECONDS):
            raise ServicesFailure(f"The proxy does not start. The end of {self._log} says:\n{process.tail(self._log)}")

    def swallow(self, kind: str, times: int = 1) -> None:
        """The reply to the next `times` commits of that kind; `swallowed` says which have been."""
        if self._process and self._process.stdin:
            self._process.stdin.write(f"{times} {kind}\n".encode())
            self._process.stdin.flush()

    def swallowed(self) -> "Counter[str]":
        return Counter(self._swallowed.read_text().split())

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


def servers(directory: Path) -> tuple[DurablePostgres, MortalValkey, Postgres]:
    """PostgreSQL, Redis and the PostgreSQL of the outside world of a trial in this directory; none is started."""
    outside = directory / "outside"
    outside.mkdir(mode=0o755, exist_ok=True)
    mortal = DurablePostgres(**vars(postgres(directory, throw_away=True)))
    return mortal, MortalValkey(**vars(valkey(directory, throw_away=True))), postgres(outside, throw_away=True)


def _end(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        os.kill(pid, number)
