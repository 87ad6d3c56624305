"""Benchmarks, in a database and a Redis of their own beside those of this checkout."""

import json
import os
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from agentops.arguments import whole_number

DATABASE = "agentops_bench"
REDIS_DATABASE = "9"
INSIDE = "AGENTOPS_BENCH"  # set in the process that measures


class Command(BaseCommand):
    help = "Measure: `bench engine`. Rates are per second, times in milliseconds, ratios to inserts of 1 KB on the same server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=["engine"])
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        count = whole_number(least=1)
        parser.add_argument("--rounds", type=count, default=3, help="how often each figure is taken; medians (default 3)")
        parser.add_argument("--runs", type=count, default=40, help="runs of ten steps per throughput figure (default 40)")
        parser.add_argument("--quick", action="store_true", help="one small round: shows that it works, measures nothing well")

    def handle(self, *, rounds: int, runs: int, quick: bool, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("bench makes a database and starts processes of its own: it is not for production.")
        if not os.environ.get(INSIDE):
            return self._in_a_database_of_its_own()
        call_command("migrate", verbosity=0, interactive=False)
        from agentops.benchmarks import engine

        rounds, runs = (1, 4) if quick else (rounds, runs)
        figures = engine.measure(rounds=rounds, runs=runs, say=lambda line: self.stderr.write(line))
        self.stdout.write(json.dumps(figures) if options["json"] else _table(figures))
        return None

    def _in_a_database_of_its_own(self) -> None:
        _create_database()
        environment = os.environ | {
            "DATABASE_URL": _with_path(os.environ["DATABASE_URL"], DATABASE),
            "REDIS_URL": _with_redis_database(os.environ["REDIS_URL"]),
            "AGENT_APPS": "agentops.benchmarks",
            "LOG_LEVEL": "ERROR",
            INSIDE: "1",
        }
        code = subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
        if code:
            sys.exit(code)


def _create_database() -> None:
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if not cursor.fetchone():
            cursor.execute(f"CREATE DATABASE {DATABASE}")


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


def _with_redis_database(url: str) -> str:
    if url.startswith("unix:"):
        return f"{url}{'&' if '?' in url else '?'}db={REDIS_DATABASE}"
    return _with_path(url, REDIS_DATABASE)


def _table(figures: dict[str, Any]) -> str:
    return "\n".join(f"{name:<40} {value:>12}" for name, value in figures.items())
