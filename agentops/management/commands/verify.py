"""Checks that history is what was written: the hash chains, and the rows against the events."""

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops.arguments import chosen_runs, whole_number
from agentops.progress import Progress
from runs import archives, audit, describe
from runs.alerts import audits


class Command(BaseCommand):
    help = (
        "Check the hash chain of each run, and that its rows are what its events say; name the first that is not, with status 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        count = whole_number(least=1)
        parser.add_argument("--run", type=int, action="append", default=[], help="this run only; may be repeated")
        parser.add_argument("--processes", type=count, default=os.cpu_count() or 1, help="at once (default: one a processor)")

        parser.add_argument("--archive", type=Path, metavar="DIR", help="the files that prune wrote there, instead")

    def handle(self, *, run: list[int], processes: int, archive: Path | None, **options: Any) -> None:
        if archive:
            return self._verify_archive(archive)
        only = list(chosen_runs(run).values_list("pk", flat=True)) if run else []
        progress, found = Progress(sys.stderr, "verified", "events"), audit.Found()
        for found, total in audit.verify(processes=processes, only=only):
            progress.show(found.events, total)
        progress.end()
        if found.pruning:
            audits.note_pruning(found.pruning, found)  # an alert says so
        elif found.wrong and found.run_id:
            audits.note(found.run_id, found.wrong)
        if found.wrong:
            raise CommandError(f"{found.sentence}. (In order before it: {describe.runs(found.runs)}.)")
        if not only:
            audits.clear_prunings()
        self.stdout.write(f"{describe.runs(found.runs)} verified: every chain holds and every row is what its events say.")
        return None

    def _verify_archive(self, directory: Path) -> None:
        if not directory.is_dir():
            raise CommandError(f"There is no directory {directory}.")
        total = 0
        for count, run_id, wrong in archives.wrong(directory):
            total += count
            if wrong:
                raise CommandError(f"Run {run_id}: {wrong}. (In order before it: {describe.runs(total)}.)")
        self.stdout.write(f"{describe.runs(total)} verified in the archive: every chain holds and ends as its tombstone says.")
