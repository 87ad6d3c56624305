"""Trains the message classifier where it is missing or out of date."""

import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TextIO

from django.core.management.base import BaseCommand

BAR_WIDTH = 24


class Command(BaseCommand):
    help = "Train the card desk's message classifier on the shipped messages (about 20 s); nothing is done when it is up to date."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true", help="train although an up-to-date classifier is there")

    def handle(self, *args: Any, **options: Any) -> None:
        # Imported here, so that `manage.py help` does not wait for it.
        from runs.integrations import message_classifier_training as training

        if not options["force"] and training.is_trained():
            return self._say("The message classifier is up to date", training.ensure())
        progress = Progress(sys.stderr, training.STAGES)
        work = in_thread(lambda: training.ensure(progress.reached, force=options["force"]))
        progress.watch(work)
        self._say("The message classifier is trained", work.result())

    def _say(self, sentence: str, card: dict[str, Any]) -> None:
        metrics = card["metrics"]
        self.stdout.write(
            f"{sentence}: version {card['version']}, accuracy {metrics['accuracy']:.1%} on {metrics['messages']:,} "
            f"messages it has not seen; {metrics['share_sure']:.0%} of them at a confidence of .9 or more, "
            f"{metrics['accuracy_sure']:.1%} of those right."
        )


def in_thread(function: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
    """A daemon, so that Ctrl-C ends the command at once: what is half trained was never written."""
    work: Future[dict[str, Any]] = Future()

    def run() -> None:
        try:
            work.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            work.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return work


class Progress:
    """Stages done and seconds gone by: how long a fit will take is not known, so no percentage is made up."""

    def __init__(self, out: TextIO, stages: tuple[str, ...]) -> None:
        self.out, self.stages = out, stages
        self.stage = "starting"
        self.started = time.monotonic()

    def reached(self, stage: str) -> None:
        self.stage = stage
        if not self.out.isatty():
            self.out.write(f"{self._line()}\n")
            self.out.flush()

    def watch(self, work: Future[Any]) -> None:
        """Redraw the line until the work has ended."""
        if not self.out.isatty():
            wait([work])
            return
        while not work.done():
            self.out.write(f"\r\x1b[K{self._line()}")
            self.out.flush()
            wait([work], timeout=0.2)
        self.out.write("\r\x1b[K")

    def _line(self) -> str:
        number = self.stages.index(self.stage) + 1 if self.stage in self.stages else 0
        full = BAR_WIDTH * max(number - 1, 0) // len(self.stages)
        bar = "█" * full + "░" * (BAR_WIDTH - full)
        seconds = time.monotonic() - self.started
        return f"Training the message classifier {bar} {number}/{len(self.stages)} {self.stage}, {seconds:.0f} s"
