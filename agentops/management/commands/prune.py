"""Removes runs that ended long ago, or writes them into an archive first."""

import getpass
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from agentops.progress import Progress
from runs import archives, clock, describe, retention
from runs.models import Pruning

MOST_DAYS = 36_500


def days(text: str) -> timedelta:
    """A type for argparse: 90d or 90."""
    number = re.fullmatch(r"(\d{1,5})d?", text)
    if not number or not 1 <= int(number[1]) <= MOST_DAYS:
        raise ArgumentTypeError(f"{text!r} is not a number of days from 1 on, such as 90d.")
    return timedelta(days=int(number[1]))


class Command(BaseCommand):
    help = (
        "Remove runs that ended long ago, with their events, reviews and costs, and alerts and bulk actions of then; a tombstone "
        "of each run stays. What is open, held, or related to what stays, stays too. It may be stopped and started at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=days, default=timedelta(days=90), metavar="DAYS", help="ended before (90d)")
        parser.add_argument("--archive", type=Path, metavar="DIR", help="write them into files there first")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed, and what would stay")

    def handle(self, *, older_than: timedelta, archive: Path | None, dry_run: bool, **options: Any) -> None:
        before = clock.now() - older_than
        report, progress = retention.Report(), Progress(sys.stderr, "looked at", "old runs")
        total = retention.how_many(before)
        retention.stand_back()
        try:
            for report in _reports(before, archive, dry_run=dry_run):
                progress.show(report.looked_at, max(total, report.looked_at))
        except KeyboardInterrupt:
            progress.end()
            raise CommandError(f"Stopped. Removed {describe.runs(report.runs)}; the next prune goes on.") from None
        except OSError as error:
            progress.end()
            raise CommandError(f"The archive cannot be written: {error}. {_so_far(report)}") from error
        except DatabaseError as error:
            progress.end()
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise CommandError(f"The database refused: {first}. {_so_far(report)}") from error
        progress.end()
        for line in sentences(report, dry_run=dry_run):
            self.stdout.write(line)


def _reports(before: Any, archive: Path | None, *, dry_run: bool) -> Iterator[retention.Report]:
    if dry_run:
        yield from retention.would_prune(before)
        return
    if archive:
        archives.make(archive)
    who = f"{getpass.getuser()} (prune)"
    kept_in = str(archive.resolve()) if archive else ""
    yield from retention.prune(Pruning.objects.create(by=who, ended_before=before, archive=kept_in))


def _so_far(report: retention.Report) -> str:
    return f"{describe.runs(report.runs)} were removed before. Start prune again when that is put right."


def sentences(report: retention.Report, *, dry_run: bool) -> Iterator[str]:
    """What was done, and what stays for which reason."""
    done = "Would remove" if dry_run else "Removed"
    yield f"{done} {describe.runs(report.runs)} with {report.events:,} events, and {report.alerts:,} alerts."
    if report.bulks:
        yield f"{done} {report.bulks:,} bulk action{'s' * (report.bulks != 1)} with what came of each run."
    for why, count in report.kept.most_common():
        yield f"Kept {describe.runs(count)}: {why}, or related to one that is (run {report.such_as[why]})."
