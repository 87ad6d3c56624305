"""The sample world: accounts, the demo's bank, and some runs to look at."""

import csv
import secrets
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentops import people
from runs import commands
from runs.integrations import bank
from runs.models import Run

SAMPLE = settings.BASE_DIR / "runs" / "data" / "banking77" / "sample.csv"
RUNS = 20


class Command(BaseCommand):
    help = "Make the sample world: five accounts, a bank of its own, and some runs. For development only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--if-empty", action="store_true", help="start runs only when there is no run yet")
        parser.add_argument("--runs", type=int, default=RUNS, help=f"how many runs to start (default {RUNS})")

    def handle(self, *, if_empty: bool, runs: int, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("seed makes sample accounts and a sample bank: it is not for production.")
        people.ensure_groups()
        _ensure_accounts(settings.AGENTOPS_LOCAL / "accounts.txt")
        bank.build()
        if if_empty and Run.objects.exists():
            return
        for message in _messages(runs):
            commands.start("card-desk", {"message": message}, by="operator")
        self.stdout.write(f"Started {runs} runs of the card desk on customers' messages.")


def _ensure_accounts(file: Path) -> None:
    """One password for all five, made at the first start and kept where only this user can read it."""
    if file.exists():
        return
    password = secrets.token_urlsafe(9)
    for username in people.CAST:
        user = people.ensure_account(username, password)
        user.set_password(password)
        user.save(update_fields=["password"])
    file.touch(mode=0o600)
    file.write_text(f"Sign in as {', '.join(people.CAST)}; the password of each is: {password}\n")


def _messages(count: int) -> list[str]:
    with SAMPLE.open(newline="") as file:
        return [row["message"] for row in islice(csv.DictReader(file), count)]
