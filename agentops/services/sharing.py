"""Lets all processes of a checkout share its servers: the first starts them, the last stops them."""

import atexit
import fcntl
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from agentops.services.failure import ServicesFailure
from agentops.services.places import local_directory
from agentops.services.postgres import Postgres, postgres
from agentops.services.valkey import Valkey, valkey

MAKERS: dict[str, Callable[..., Postgres | Valkey]] = {"DATABASE_URL": postgres, "REDIS_URL": valkey}


def ensure_env() -> None:
    """Start what the environment does not name, and name it there for this process and its children.

    Only manage.py calls this. Settings stay pure, and a server process of production never comes here.
    """
    missing = [name for name in MAKERS if not os.environ.get(name)]
    if os.environ.get("AGENTOPS_ENV") == "production":
        if missing:
            raise ServicesFailure(f"AGENTOPS_ENV is production, and {' and '.join(missing)} not set: name your servers there.")
        return
    local = local_directory()
    local.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SECRET_KEY", _secret_key(local))
    for name in missing:
        Share(MAKERS[name](local), local).join()


@dataclass
class Share:
    """One server and those who use it.

    Two locks: `.start` is held while starting or stopping; `.users` is held shared by each user for its lifetime.
    The kernel drops both at a kill -9, so whoever gets `.users` alone is the last user.
    """

    server: Postgres | Valkey
    local: Path
    users: IO[str] = field(init=False)

    def __post_init__(self) -> None:
        self.users = self._lock_file("users").open("w")

    def join(self) -> None:
        atexit.register(self._leave_at_exit, os.getpid())
        _let_termination_run_exit_handlers()
        with self._only_one_starts():
            fcntl.flock(self.users, fcntl.LOCK_SH)
            if not self.server.answers():
                self.server.start()
                print(
                    f"agentops: started this checkout's own {self.server.title}, data in {self.server.home}",
                    file=sys.stderr,
                )
        os.environ[self.server.variable] = self.server.url

    def leave(self) -> bool:
        """Stop the server unless somebody else uses it; says whether nobody did."""
        with self._only_one_starts():
            try:
                fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.server.stop()
            fcntl.flock(self.users, fcntl.LOCK_UN)
        return True

    def _leave_at_exit(self, joined_by: int) -> None:
        if os.getpid() == joined_by:  # a forked child inherits the handler, but not the use
            self.leave()

    @contextmanager
    def _only_one_starts(self) -> Iterator[None]:
        with self._lock_file("start").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _lock_file(self, kind: str) -> Path:
        return self.local / f"{self.server.title.lower()}.{kind}"


def _let_termination_run_exit_handlers() -> None:
    """By default SIGTERM and SIGHUP end Python without them, and the servers would stay."""
    for wanted in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(wanted) is signal.SIG_DFL:
            signal.signal(wanted, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _secret_key(local: Path) -> str:
    """Made once per checkout, so that sessions outlive a restart; production has to name its own."""
    with os.fdopen(os.open(local / "secret_key", os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = file.read()
        if not kept:
            kept = secrets.token_urlsafe(50)
            file.write(kept)
    return kept
