"""The sample world: accounts, the demo's bank, some runs to look at, and as much history as is wanted."""

import csv
import secrets
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops import people
from agentops.arguments import whole_number
from agentops.progress import Progress
from agentops.seeding import filling
from runs import commands, describe
from runs.integrations import bank
from runs.models import Run

SAMPLE = settings.BASE_DIR / "runs" / "data" / "banking77" / "sample.csv"
RUNS = 20


class Command(BaseCommand):
    help = (
        "Make the sample world: five accounts, a bank of its own, and some runs; with --runs, a history of so many more, "
        "each with its whole log. For development only."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--if-empty", action="store_true", help="start runs only when there is no run yet")
        number = whole_number(least=0)
        parser.add_argument("--start", type=number, help=f"how many runs to start now (default {RUNS}; none with --runs)")
        parser.add_argument("--runs", type=number, default=0, help="how many runs of the past to add; again adds more")
        parser.add_argument("--days", type=whole_number(least=1), default=30, help="over how many days they are spread (30)")
        parser.add_argument("--seed", type=int, default=1, help="the same tells the same stories (default 1)")

    def handle(self, *, if_empty: bool, start: int | None, runs: int, days: int, seed: int, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("seed makes sample accounts and a sample bank: it is not for production.")
        people.ensure_groups()
        self._ensure_accounts(settings.AGENTOPS_LOCAL / "accounts.txt")
        bank.build()
        if if_empty and Run.objects.exists():
            return
        if runs:
            self._fill(runs, days=days, seed=seed)
        self._start(_messages(start if start is not None else 0 if runs else RUNS))

    def _ensure_accounts(self, file: Path) -> None:
        """Make the accounts that are missing, with one password for all; those that exist keep theirs."""
        missing, kept = people.missing_accounts(), _kept_password(file)
        password = kept or secrets.token_urlsafe(9)
        for username in missing:
            people.ensure_account(username, password)
        if missing and not kept:
            _keep_password(file, missing, password)
        if not kept and (there := [username for username in people.CAST if username not in missing]):
            self.stdout.write(
                f"The accounts {', '.join(there)} exist already and keep their password; {file} does not tell it.\n"
                f"Look into accounts.txt of the checkout that made them, or set a new one: manage.py changepassword {there[0]}"
            )

    def _fill(self, runs: int, *, days: int, seed: int) -> None:
        progress = Progress(sys.stderr, "made", "runs")
        filling.fill(runs, days=days, seed=seed, tell=progress.show)
        progress.end()
        self.stdout.write(f"Added {describe.runs(runs)} of the last {days} days.")

    def _start(self, messages: list[str]) -> None:
        if not messages:
            return
        try:
            for message in messages:
                commands.start("card-desk", {"message": message}, by="operator")
        except commands.Refused as refused:
            raise CommandError(f"No sample runs were started. {refused}") from refused
        self.stdout.write(f"Started {describe.runs(len(messages))} of the card desk on messages of customers.")


def _kept_password(file: Path) -> str:
    return file.read_text().rpartition(": ")[2].strip() if file.exists() else ""


def _keep_password(file: Path, usernames: list[str], password: str) -> None:
    """Where only this user can read it."""
    file.touch(mode=0o600)
    file.write_text(f"Sign in as {', '.join(usernames)}; the password of each is: {password}\n")


def _messages(count: int) -> list[str]:
    with SAMPLE.open(newline="") as file:
        return [row["message"] for row in islice(csv.DictReader(file), count)]
