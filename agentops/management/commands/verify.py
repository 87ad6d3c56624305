"""Checks that history is what was written: the hash chains, and the rows against the events."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops.arguments import chosen_runs
from runs import event_log


class Command(BaseCommand):
    help = "Check the hash chain of each run, and that its rows are what its events say; name the first that is not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("runs", nargs="*", type=int, help="ids of runs (default: all)")

    def handle(self, *, runs: list[int], **options: Any) -> None:
        chosen = chosen_runs(runs)
        total, checked = chosen.count(), 0
        for run_id in chosen.values_list("pk", flat=True).iterator():
            if wrong := event_log.first_wrong(run_id):
                raise CommandError(f"Run {run_id}: {wrong}. ({checked} runs before it are in order.)")
            checked += 1
            self._progress(checked, total)
        self.stdout.write(f"{checked} runs verified: every chain holds and every row is what its events say.")

    def _progress(self, done: int, of: int) -> None:
        if sys.stderr.isatty() and (done % 100 == 0 or done == of):
            self.stderr.write(f"\rverified {done} of {of} runs", ending="\n" if done == of else "")
