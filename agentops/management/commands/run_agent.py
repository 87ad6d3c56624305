"""Starts runs from the command line: one, or one for each row of a CSV file."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from pydantic import ValidationError

from agentops import batch, report
from agentops.arguments import whole_number
from runs import commands, waiting
from runs.engine.canonical import Unstorable
from runs.engine.tags import checked
from runs.models import Run, RunStatus
from runs.models.run import ENDED

STOPS = (RunStatus.WAITING, *ENDED)
LOOK_SECONDS = 0.2


class Command(BaseCommand):
    help = "Start runs of an agent. With --wait, return when each has ended or waits for a person."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("agent", help="slug of the agent, such as card-desk")
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--input", help="the input as a JSON object")
        source.add_argument("--file", type=Path, help="a CSV file with a header; one run for each row")
        parser.add_argument("--tags", default="", help="tags of each run, with commas between, such as vip,region:eu")
        parser.add_argument("--limit", type=whole_number(least=1), help="at most so many rows of the file")
        parser.add_argument("--wait", action="store_true", help="return when each run has ended or waits for a person")
        parser.add_argument("--json", action="store_true", help="one JSON object a line and run")

    def handle(self, *, agent: str, wait: bool, json: bool, **options: Any) -> None:
        try:
            commands.find_agent(agent)
            tags = _tags(options["tags"])
            inputs = list(_inputs(options["input"], options["file"], options["limit"]))
        except (commands.Refused, batch.BadFile) as refused:
            raise CommandError(str(refused)) from refused
        started = self._start(agent, inputs, tags)
        shown = report.with_details(Run.objects.order_by("pk")) if json else Run.objects.order_by("pk")
        for run in self._wait_for(started, shown) if wait else shown.filter(pk__in=started):
            waits = waiting.answer(run).sentence if run.status == RunStatus.WAITING else ""
            self.stdout.write(report.as_json(run, waits) if json else report.as_text(run, waits))
        if len(started) < len(inputs):
            raise CommandError(_not_all(len(started), len(inputs)))

    def _start(self, agent: str, inputs: list[batch.Row], tags: list[str]) -> list[int]:
        started = []
        for done, row in enumerate(inputs, start=1):
            if row.error:
                self.stderr.write(f"{row.where}: {row.error}")
                continue
            try:
                started.append(commands.start(agent, row.value, by="", tags=tags).pk)
            except (ValidationError, Unstorable, commands.Refused) as error:
                self.stderr.write(f"{row.where}: {batch.sentence(error)}")
            self._progress("Started", done, len(inputs))
        return started

    def _wait_for(self, started: list[int], shown: QuerySet[Run]) -> Iterator[Run]:
        """Each run as soon as it stops; the progress bar counts them."""
        left = set(started)
        while left:
            for run in shown.filter(pk__in=left, status__in=STOPS):
                left.discard(run.pk)
                yield run
            self._progress("Stopped", len(started) - len(left), len(started))
            time.sleep(LOOK_SECONDS if left else 0)

    def _progress(self, what: str, done: int, of: int) -> None:
        if of > 1 and sys.stderr.isatty():
            bar = "#" * (30 * done // of)
            self.stderr.write(f"\r{what} {done:>5} of {of} [{bar:<30}]", ending="\n" if done == of else "")


def _tags(given: str) -> list[str]:
    try:
        return checked(given)
    except ValueError as error:
        raise CommandError(f"--tags: {error}") from error


def _not_all(started: int, asked: int) -> str:
    if asked == 1:
        return "The run was not started; the line above says why."
    return f"{started} of {asked} runs were started; the lines above say why the others were not."


def _inputs(given: str | None, file: Path | None, limit: int | None) -> Iterator[batch.Row]:
    if file is not None:
        return batch.rows(file, limit=limit)
    try:
        return iter([batch.Row("--input", json.loads(given or ""))])
    except json.JSONDecodeError as error:
        raise batch.BadFile(f"--input is not JSON: {error.msg} at character {error.pos + 1}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists in lists without end
        raise batch.BadFile(f"--input cannot be read as JSON: {error}.") from error
