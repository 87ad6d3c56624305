"""Checks that history is what was written: the hash chains, and the rows against the events."""

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops.arguments import chosen_runs, whole_number
from agentops.progress import Progress
from runs import audit, describe


class Command(BaseCommand):
    help = (
        "Check the hash chain of each run, and that its rows are what its events say; name the first that is not, with status 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        count = whole_number(least=1)
        parser.add_argument("--run", type=int, action="append", default=[], help="this run only; may be repeated")
        parser.add_argument("--processes", type=count, default=os.cpu_count() or 1, help="at once (default: one a processor)")

    def handle(self, *, run: list[int], processes: int, **options: Any) -> None:
        only = list(chosen_runs(run).values_list("pk", flat=True)) if run else []
        progress, found = Progress(sys.stderr, "verified", "events"), audit.Found()
        for found, total in audit.verify(processes=processes, only=only):
            progress.show(found.events, total)
        progress.end()
        if found.wrong:
            raise CommandError(f"Run {found.run_id}: {found.wrong}. (In order before it: {describe.runs(found.runs)}.)")
        self.stdout.write(f"{describe.runs(found.runs)} verified: every chain holds and every row is what its events say.")
