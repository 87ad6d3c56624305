"""Rebuilds the rows of runs and steps from their events."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agentops.arguments import chosen_runs
from runs import event_log


class Command(BaseCommand):
    help = "Rebuild Run and Step rows from events (all runs, or those named)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("runs", nargs="*", type=int, help="ids of runs (default: all)")

    def handle(self, *, runs: list[int], **options: Any) -> None:
        count = 0
        for run_id in chosen_runs(runs).values_list("pk", flat=True).iterator():
            event_log.reproject(run_id)
            count += 1
        self.stdout.write(f"Rebuilt {count} runs from their events.")
