"""Rebuilds the rows of runs and steps from their events."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from agentops.arguments import chosen_runs, whole_number
from agentops.progress import Progress
from runs import audit, describe, event_log
from runs.models import Run


class _NotWhole(Exception):
    """Its events cannot put this run right: what is left is evidence, and is not written over."""


class Command(BaseCommand):
    help = (
        "Rebuild the Run and Step rows that are not what their events say. Runs may go on meanwhile; "
        "what was rebuilt stays so when this is interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--run", type=int, action="append", default=[], help="this run; may be repeated")
        parser.add_argument("--all", action="store_true", help="every run")
        parser.add_argument("--after", type=whole_number(least=0), default=0, help="with --all: go on after this run")

    def handle(self, *, run: list[int], after: int, **options: Any) -> None:
        if bool(run) == options["all"]:
            raise CommandError("Say which runs: --run ID (it may be repeated), or --all.")
        chosen = chosen_runs(run).filter(pk__gt=after)
        done, rebuilt, left, run_id = 0, 0, list[str](), after
        progress, total = Progress(sys.stderr, "looked at", "runs"), chosen.count()
        try:
            for done, run_id in enumerate(chosen.values_list("pk", flat=True).iterator(), start=1):
                try:
                    rebuilt += _rebuilt(run_id)
                except _NotWhole as error:
                    left.append(f"Run {run_id}: {error}.")
                progress.show(done, total)
        except KeyboardInterrupt:
            progress.end()
            raise CommandError(f"Stopped in run {run_id}: `reproject --all --after {run_id - 1}` goes on from there.") from None
        progress.end()
        self.stdout.write(f"Looked at {describe.runs(done)} and rebuilt {rebuilt:,} from events; no other row was touched.")
        if left:
            raise CommandError(f"Left as they are, because their events are not whole: {len(left)} of them. {left[0]}")


def _rebuilt(run_id: int) -> bool:
    if not (wrong := audit.first_wrong(run_id)):
        return False
    with transaction.atomic():
        row_says = Run.objects.get(pk=run_id).last_seq
        try:
            event_log.reproject(run_id)
        except (LookupError, TypeError, ValueError) as error:
            raise _NotWhole(wrong) from error
        if Run.objects.get(pk=run_id).last_seq < row_says:
            raise _NotWhole(wrong)
        if still := audit.first_wrong(run_id):
            raise _NotWhole(still)
    return True
