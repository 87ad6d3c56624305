"""The sweeper process."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from runs import nightly
from runs.alerts import watch
from runs.sweeper import sweep_for_ever


class Command(BaseCommand):
    help = "Wake due runs, take over lost ones, dispatch what never arrived. Several may run at once."

    def handle(self, **options: Any) -> None:
        ended: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, frame: ended.append(received))
        watch.start()
        nightly.start()
        sweep_for_ever(lambda: bool(ended))
