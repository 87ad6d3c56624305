"""Faults on purpose, with services and processes of its own."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops.arguments import whole_number
from agentops.chaos import result as results
from agentops.services import process

INSIDE = "AGENTOPS_CHAOS"  # the directory of the trial, set in the process that conducts it
RESULT = "result.json"  # in that directory
FAST = {
    "LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "JOB_THREADS": "8", "UNDO_SECONDS": "0.3",
    "ALLOWED_PRIVATE_NETWORKS": "127.0.0.2/32",
}  # fmt: skip


class Command(BaseCommand):
    help = (
        "Kill, pause and starve everything while runs go on; then show that none was lost and nothing happened twice. "
        "It starts services and processes of its own and exits with 1 when something did not hold."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quick", action="store_true", help="some faults of each kind in at most 90 s, not 15 minutes")
        parser.add_argument("--only", default="", help="only the faults with this in their name; the result is not kept")
        parser.add_argument("--seed", type=whole_number(least=0), help="chooses moments and victims; the report names it")
        many = "for many runs together: how many (1,000, which is too few for L7)"
        parser.add_argument("--together", type=whole_number(least=10), help=many)
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")

    def handle(self, *, quick: bool, only: str, seed: int | None, together: int | None, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("chaos starts services of its own and kills them: it is not for production.")
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        if os.environ.get(INSIDE):
            return self._conduct(quick, only, secrets.randbelow(10**6) if seed is None else seed, together)
        result = _in_a_place_of_its_own()
        if not only:
            results.keep(result)
        self.stdout.write(json.dumps(result) if options["json"] else results.table(result))
        if not result["held"]:
            sys.exit(1)
        return None

    def _conduct(self, quick: bool, only: str, seed: int, together: int | None) -> None:
        from agentops.chaos import trial

        process.die_with_parent(signal.SIGTERM)
        form, directory = trial.QUICK if quick else trial.FULL, Path(os.environ[INSIDE])
        result = trial.conduct(directory, form=form, seed=seed, only=only, say=_progress, together=together)
        (directory / RESULT).write_text(json.dumps(results.stamped(result)))


def _in_a_place_of_its_own() -> dict[str, Any]:
    """The same command again, in the environment of a new directory that is removed afterwards."""
    from agentops.chaos.ledger import STEP_SECONDS
    from agentops.chaos.servers import servers

    with _directory() as directory:
        postgres, redis, _ = servers(directory)
        own = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "AGENTOPS_LOCAL": str(directory),
            "AGENTOPS_MODEL_CACHE": str(directory),  # empty: the shipped agent has nothing to load here
            "AGENT_APPS": "agentops.chaos",
            "LOG_LEVEL": "ERROR",
            STEP_SECONDS: "0.03",
            INSIDE: str(directory),
        }
        code = subprocess.run([sys.executable, *sys.argv, "--skip-checks"], env=os.environ | FAST | own, check=False).returncode
        if code or not (directory / RESULT).exists():
            sys.exit(code or 1)
        result: dict[str, Any] = json.loads((directory / RESULT).read_text())
        return result


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="agentops-chaos-"))
    directory.chmod(0o755)  # root's PostgreSQL runs under another account, which has to pass
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _progress(line: str) -> None:
    """One line that is written over on a terminal; elsewhere only what a phase begins with."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
    elif ": " not in line or ": 1 of" in line:
        sys.stderr.write(f"{line.split(': 1 of')[0]}\n")
    sys.stderr.flush()
