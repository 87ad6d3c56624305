"""Benchmarks, in a database and a Redis of their own beside those of this checkout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import django_rq
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from agentops.arguments import whole_number

SUFFIX = "_bench"  # of this checkout's database, for the name of the one that is measured in
REDIS_DATABASE = "9"
INSIDE = "AGENTOPS_BENCH"  # set in the process that measures
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1"}  # so that --quick need not wait for a lease to run out


Take = Callable[..., tuple[dict[str, Any], str]]


class Command(BaseCommand):
    help = (
        "Measure the engine (steps per second beside the server's limit, latencies, counts, memory), the inbox when it is full, "
        "or how long verify takes. "
        "Rates are per second, times as their names say, with targets; docs/benchmark.md says how."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        count = whole_number(least=1)
        parser.add_argument("what", choices=["engine", "inbox", "verify"])
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        parser.add_argument("--rounds", type=count, default=5, help="how often each figure is taken; medians (default 5)")
        parser.add_argument("--runs", type=count, default=150, help="runs of ten steps for one process (default 150; two: x4)")
        parser.add_argument("--quick", action="store_true", help="one small round: shows that it works, measures nothing well")
        parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this measure only; may be repeated")
        parser.add_argument("--events", type=count, default=1_000_000, help="for verify: how many (default 1,000,000)")

    def handle(self, *, what: str, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("bench makes a database and starts processes of its own: it is not for production.")
        if not os.environ.get(INSIDE):
            return self._in_a_database_of_its_own(quick=options["quick"])
        django_rq.get_connection("default").flushdb()  # what a benchmark that was killed has left
        call_command("migrate", verbosity=0, interactive=False)
        takes: dict[str, Take] = {"engine": self._engine, "inbox": self._inbox, "verify": self._verify}
        result, table = takes[what](**options)
        self.stdout.write(json.dumps(result) if options["json"] else table)
        return None

    def _engine(self, *, rounds: int, runs: int, quick: bool, only: list[str], **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import engine, figures

        _check(only, engine.MEASURES)
        form = engine.QUICK if quick else replace(engine.Form(), rounds=rounds, runs=runs)
        result = engine.measure(form, only=only, say=self.stderr.write)
        return result, figures.table(result)

    def _inbox(self, *, rounds: int, quick: bool, only: list[str], **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import figures, inbox

        _check(only, inbox.MEASURES)
        result = inbox.measure(inbox.QUICK if quick else inbox.Form(rounds), only=only, say=self.stderr.write)
        return result, figures.table(result)

    def _verify(self, *, events: int, **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import history

        result = history.measure(events, say=self.stderr.write)
        return result, "\n".join(f"{name:<32} {value:>14,}" for name, value in result.items())

    def _in_a_database_of_its_own(self, *, quick: bool) -> None:
        if not _alone():
            raise CommandError("Another bench runs here, in the same database: wait for its end, or stop it.")
        name = connection.settings_dict["NAME"] + SUFFIX
        environment = os.environ | {
            "DATABASE_URL": _with_path(os.environ["DATABASE_URL"], name),
            "REDIS_URL": _with_redis_database(os.environ["REDIS_URL"]),
            "AGENT_APPS": "agentops.benchmarks",
            "LOG_LEVEL": "ERROR",
            INSIDE: "1",
        }
        _execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
        try:
            ended = subprocess.run([sys.executable, *sys.argv], env=environment | (FAST if quick else {}), check=False)
        finally:
            _execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if ended.returncode:
            sys.exit(ended.returncode)


def _check(only: list[str], measures: Iterable[str]) -> None:
    if unknown := set(only) - set(measures):
        raise CommandError(f"There is no measure {', '.join(sorted(unknown))}; there are {', '.join(measures)}.")


def _alone() -> bool:
    """Until this process ends: no other takes the same database away meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [SUFFIX])
        return bool(cursor.fetchone()[0])


def _execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


def _with_redis_database(url: str) -> str:
    if url.startswith("unix:"):
        return f"{url}{'&' if '?' in url else '?'}db={REDIS_DATABASE}"
    return _with_path(url, REDIS_DATABASE)
