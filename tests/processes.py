"""Real processes for tests: job processes and sweepers on the test's own database and Redis, ended by their id."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.conf import settings
from django.db import connection

from runs import pen
from tests.forks import Child, Server

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 60.0
_forks = Server()


def environment(**more: str) -> dict[str, str]:
    """The environment in which a child sees this test's database."""
    url = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}"))
    return os.environ | {"DATABASE_URL": url, "REDIS_URL": settings.REDIS_URL, "PYTHONUNBUFFERED": "1"} | more


@contextmanager
def process(*arguments: str, **more: str) -> Iterator[Child]:
    """`manage.py ARGUMENTS` in a process group of its own, ended with the block."""
    child = _forks.start(arguments, environment(**more))
    try:
        yield child
    finally:
        kill(child)


def kill(child: "Child | subprocess.Popen[bytes]") -> None:
    """kill -9 for the process and the horse it forked, as a lost machine would end both at once."""
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    horses = [int(pid) for pid in children.read_text().split()] if child.poll() is None else []
    for pid in (child.pid, *horses):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait(timeout=10)


def eventually(true: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as it is true; fail when it has not become so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds:g} seconds")


def away() -> Callable[[], None]:
    """From now on nobody is connected, and nobody can connect, until what is returned is called."""
    name, ways = connection.settings_dict["NAME"], connection.get_connection_params()
    ways = {key: ways[key] for key in ("host", "port", "user", "password") if key in ways}
    elsewhere = psycopg.connect(**ways, dbname="postgres", autocommit=True)
    elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    elsewhere.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def back() -> None:
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        elsewhere.close()
        pen.close()  # its connections are dead

    return back
