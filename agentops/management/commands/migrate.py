"""Django's migrate, while runs go on: who waits for a lock makes everybody else wait behind it, so it waits for a moment only."""

import time
from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration

LOCK_SECONDS = 0.3
NOT_AVAILABLE = "55P03"  # PostgreSQL's code where a lock was not to be had in time
BETWEEN_SECONDS = 1.0
PATIENCE_SECONDS = 600.0  # for one migration


class Command(migrate.Command):
    help = f"{migrate.Command.help} A migration that would hold up what goes on steps back, and is tried again."

    def handle(self, *args: Any, **options: Any) -> None:
        self.alias: str = options["database"]
        self.until = time.monotonic() + PATIENCE_SECONDS
        try:
            while not self._handled(*args, **options):
                time.sleep(BETWEEN_SECONDS)
        finally:
            self._execute("RESET lock_timeout")

    def _handled(self, *args: Any, **options: Any) -> bool:
        """Whether all is done; what was done stays, also where not."""
        try:
            super().handle(*args, **options)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != NOT_AVAILABLE:
                raise
            if time.monotonic() > self.until:
                told = f"The table of this migration was not free for {LOCK_SECONDS:g} s within {PATIENCE_SECONDS / 60:g} minutes"
                raise CommandError(f"{told}. End long transactions (pg_stat_activity names them) and run it again.") from error
            self.stdout.write(" stepped back: somebody uses its table. It is tried again.")
            return False
        return True

    def migration_progress_callback(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:
        """What is not atomic builds beside the others' work, and waits for them as long as it takes."""
        if migration and action in ("apply_start", "unapply_start"):
            self._execute(f"SET lock_timeout = {int(LOCK_SECONDS * 1000) if migration.atomic else 0}")
        if action in ("apply_success", "unapply_success"):
            self.until = time.monotonic() + PATIENCE_SECONDS
        super().migration_progress_callback(action, migration, fake)

    def _execute(self, statement: str) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement)
