"""Runs the outside world that the card desk talks to: a card processor and a model provider, with faults on demand."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentops.outside import Outside


class Command(BaseCommand):
    help = (
        "Serve a card processor (/v1/cards, /v1/refunds, /v1/reversals) and an OpenAI-compatible model "
        "(/v1/chat/completions). POST /faults plans a fault, GET /seen lists what came in, GET /visits when."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8010, help="0 takes a free port; default 8010")
        parser.add_argument("--host", default="127.0.0.1", help="anybody who can reach it can use it; default 127.0.0.1")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            outside = Outside(host=options["host"], port=options["port"])
        except (OSError, OverflowError) as error:
            raise CommandError(
                f"The outside world cannot listen on {options['host']}:{options['port']}: {error}. "
                "Choose another port with --port."
            ) from error
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.stdout.write(f"The outside world listens on {outside.url}.")
        self.stdout.flush()
        try:
            outside.serve_forever()
        except KeyboardInterrupt:
            self.stdout.write("The outside world has ended.")
