"""Carries one run for the job process that starts this command (runs/alone.py)."""

import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import Error as DatabaseError

from agentops.services.process import die_with_parent
from runs import alone, executor, keeper, live


class Command(BaseCommand):
    requires_system_checks: list[str] = []  # the job process has carried them out
    help = "Carry a run whose lease the calling job process has. Job processes start this themselves."

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in ("run_id", "fence", "parent"):
            parser.add_argument(name, type=int)

    def handle(self, *, run_id: int, fence: int, parent: int, **options: Any) -> None:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("The job process that started this is gone.")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, frame: keeper.hand_over.set())
        keeper.end_process_when_it_stalls()
        try:
            executor.carry_alone(run_id, fence=fence)
        except DatabaseError as error:
            sys.stderr.write(f"run {run_id}: {error}\n")
            os._exit(alone.NO_DATABASE)
        live.flush()
        os._exit(0)  # whoever waits for this process learns of its end at once
