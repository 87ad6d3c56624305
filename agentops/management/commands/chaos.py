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
from agentops.services import process

INSIDE = "AGENTOPS_CHAOS"  # the directory of the trial, set in the process that conducts it
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2"}
COLUMNS = ("fault", "count", "runs", "lost", "re_executed", "duplicates", "stale_writes", "other", "recovery_p95", "recovery_max")


class Command(BaseCommand):
    help = (
        "Kill, pause and starve everything while runs go on; then show that none was lost and nothing happened twice. "
        "It starts services and processes of its own and exits with 1 when something did not hold."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quick", action="store_true", help="some faults of each kind in at most 90 s, not 15 minutes")
        parser.add_argument("--seed", type=whole_number(least=0), help="chooses moments and victims; the report names it")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")

    def handle(self, *, quick: bool, seed: int | None, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("chaos starts services of its own and kills them: it is not for production.")
        if not os.environ.get(INSIDE):
            return _in_a_place_of_its_own()
        result = self._conduct(quick, secrets.randbelow(10**6) if seed is None else seed)
        self.stdout.write(json.dumps(result) if options["json"] else _table(result))
        if not result["held"]:
            sys.exit(1)
        return None

    def _conduct(self, quick: bool, seed: int) -> dict[str, Any]:
        from agentops.chaos import trial

        process.die_with_parent(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        form = trial.QUICK if quick else trial.FULL
        return trial.conduct(Path(os.environ[INSIDE]), form=form, seed=seed, say=lambda line: self.stderr.write(line))


def _in_a_place_of_its_own() -> None:
    """The same command again, in the environment of a new directory that is removed afterwards."""
    from agentops.chaos.ledger import LEDGER, STEP_SECONDS
    from agentops.chaos.servers import servers

    with _directory() as directory:
        postgres, redis = servers(directory)
        own = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "AGENTOPS_LOCAL": str(directory),
            "AGENTOPS_MODEL_CACHE": str(directory),  # empty: the shipped agent has nothing to load here
            "AGENT_APPS": "agentops.chaos",
            "LOG_LEVEL": "ERROR",
            LEDGER: str(directory / "ledger"),
            STEP_SECONDS: "0.03",
            INSIDE: str(directory),
        }
        code = subprocess.run([sys.executable, *sys.argv], env=os.environ | FAST | own, check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="agentops-chaos-"))
    directory.chmod(0o755)  # root's PostgreSQL runs under another account, which has to pass
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _table(result: dict[str, Any]) -> str:
    rows = [COLUMNS, *([_cell(fault[column]) for column in COLUMNS] for fault in result["faults"])]
    widths = [max(len(str(row[index])) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    verdict = "Everything held." if result["held"] else "Not everything held."
    return "\n".join(
        [*lines, "", *result["broken"], f"{verdict} Seed {result['seed']}, {result['seconds']:g} s, {result['form']}."]
    )


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
