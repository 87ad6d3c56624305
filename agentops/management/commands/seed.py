"""The sample world: accounts, the demo's bank, and some runs to look at."""

import csv
import secrets
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops import people
from agentops.arguments import whole_number
from runs import commands, describe
from runs.integrations import bank
from runs.models import Run

SAMPLE = settings.BASE_DIR / "runs" / "data" / "banking77" / "sample.csv"
RUNS = 20


class Command(BaseCommand):
    help = "Make the sample world: five accounts, a bank of its own, and some runs. For development only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--if-empty", action="store_true", help="start runs only when there is no run yet")
        parser.add_argument("--runs", type=whole_number(least=0), default=RUNS, help=f"how many runs to start (default {RUNS})")

    def handle(self, *, if_empty: bool, runs: int, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("seed makes sample accounts and a sample bank: it is not for production.")
        people.ensure_groups()
        self._ensure_accounts(settings.AGENTOPS_LOCAL / "accounts.txt")
        bank.build()
        if not (if_empty and Run.objects.exists()):
            self._start(_messages(runs))

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

    def _start(self, messages: list[str]) -> None:
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
