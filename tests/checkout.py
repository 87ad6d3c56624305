"""A checkout's local directory for tests, and commands run as a person would run them in it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentops.services.postgres import postgres
from agentops.services.valkey import valkey

PROJECT = Path(__file__).resolve().parents[1]


def plain_environment(local: Path, **more: str) -> dict[str, str]:
    ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "AGENTOPS_ENV": "development", "AGENTOPS_LOCAL": str(local), **more}


def manage(local: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=PROJECT, env=plain_environment(local, **environment), capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def local() -> Iterator[Path]:
    """Not tmp_path: that one is closed to the account under which root's PostgreSQL runs."""
    yield from own_directory()


def own_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="agentops-services-"))
    directory.chmod(0o755)
    yield directory
    for server in (postgres(directory), valkey(directory)):
        server.stop()
    shutil.rmtree(directory)


def pids(local: Path) -> list[int | None]:
    return [postgres(local).pid(), valkey(local).pid()]
