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
APPS, MORE_APPS = ["agentops.benchmarks"], {"migrate": ["agentops.benchmarks.tomorrow"]}
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1"}  # so that --quick need not wait for a lease to run out


Take = Callable[..., tuple[dict[str, Any], str]]


class Command(BaseCommand):
    help = (
        "Measure the engine (steps per second beside the server's limit, latencies, counts, memory), the inbox when it is full, "
        "pages on a long history, pages while old runs are removed, runs and pages while migrations are applied, or how long "
        "verify takes. Rates are per second, times as their names say, with targets; docs/benchmark.md says how."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        count = whole_number(least=1)
        parser.add_argument("what", choices=["engine", "inbox", "pages", "prune", "migrate", "verify"])
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        parser.add_argument("--rounds", type=count, default=5, help="how often each figure is taken; medians (default 5)")
        parser.add_argument("--runs", type=count, default=150, help="runs of ten steps for one process (default 150; two: x4)")
        parser.add_argument("--quick", action="store_true", help="one small round: shows that it works, measures nothing well")
        parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this measure only; may be repeated")
        parser.add_argument(
            "--history",
            type=count,
            help="for pages, prune and migrate: how many runs (1,000,000, 50,000, 20,000; with --quick 100,000, 1,000, 200)",
        )
        parser.add_argument("--viewers", type=count, help="for watch, of pages: how many look at one run (default 200)")
        parser.add_argument(
            "--events", type=count, help="for verify: how many (default 1,000,000); for watch: how many a second (default 20)"
        )

    def handle(self, *, what: str, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("bench makes a database and starts processes of its own: it is not for production.")
        _check(options["only"], what)
        if not os.environ.get(INSIDE):
            return self._in_a_database_of_its_own(what, quick=options["quick"])
        django_rq.get_connection("default").flushdb()  # what a benchmark that was killed has left
        call_command("migrate", verbosity=0, interactive=False)
        takes: dict[str, Take] = {"engine": self._engine, "inbox": self._inbox, "pages": self._pages}
        takes |= {"prune": self._prune, "migrate": self._migrate, "verify": self._verify}
        result, table = takes[what](**options)
        self.stdout.write(json.dumps(result) if options["json"] else table)
        return None

    def _engine(self, *, rounds: int, runs: int, quick: bool, only: list[str], **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import engine, figures

        form = engine.QUICK if quick else replace(engine.Form(), rounds=rounds, runs=runs)
        result = engine.measure(form, only=only, say=self.stderr.write)
        return result, figures.table(result)

    def _inbox(self, *, rounds: int, quick: bool, only: list[str], **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import figures, inbox

        result = inbox.measure(inbox.QUICK if quick else inbox.Form(rounds), only=only, say=self.stderr.write)
        return result, figures.table(result)

    def _pages(
        self, *, rounds: int, quick: bool, only: list[str], history: int | None, viewers: int | None, events: int | None,
        **options: Any,
    ) -> tuple[dict[str, Any], str]:  # fmt: skip
        from agentops.benchmarks import figures, pages

        form = pages.QUICK if quick else replace(pages.Form(), rounds=rounds)
        form = replace(form, runs=history or form.runs, viewers=viewers or form.viewers, events=events or form.events)
        result = pages.measure(form, only=only, say=self.stderr.write)
        return result, figures.table(result)

    def _verify(self, *, events: int | None, **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import history

        result = history.measure(events or 1_000_000, say=self.stderr.write)
        return result, _lines(result)

    def _prune(self, *, quick: bool, history: int | None, **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import pruning

        form = pruning.QUICK if quick else pruning.Form()
        result = pruning.measure(replace(form, runs=history or form.runs), say=self.stderr.write)
        return result, _lines(result)

    def _migrate(self, *, quick: bool, history: int | None, **options: Any) -> tuple[dict[str, Any], str]:
        from agentops.benchmarks import migrating

        form = migrating.QUICK if quick else migrating.Form()
        result = migrating.measure(replace(form, history=history or form.history), say=self.stderr.write)
        return result, _lines(result)

    def _in_a_database_of_its_own(self, what: str, *, quick: bool) -> None:
        if not _alone():
            raise CommandError("Another bench runs here, in the same database: wait for its end, or stop it.")
        name = connection.settings_dict["NAME"] + SUFFIX
        environment = os.environ | {
            "DATABASE_URL": _with_path(os.environ["DATABASE_URL"], name),
            "REDIS_URL": _with_redis_database(os.environ["REDIS_URL"]),
            "AGENT_APPS": ",".join(APPS + MORE_APPS.get(what, [])),
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


def _lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{name:<32} {value:>14,}" for name, value in result.items() if isinstance(value, int | float))


def _check(only: list[str], what: str) -> None:
    """Before a database is made."""
    if not only:
        return
    from agentops.benchmarks import engine, inbox, pages

    of_each: dict[str, Iterable[str]] = {"engine": engine.MEASURES, "inbox": inbox.MEASURES, "pages": pages.MEASURES}
    measures = of_each.get(what, ())
    if not measures:
        raise CommandError(f"bench {what} takes one measure: leave --only out.")
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
