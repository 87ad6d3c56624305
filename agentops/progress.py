"""How far a long command has come: a bar that is redrawn on a terminal, a line now and then elsewhere."""

import time
from typing import TextIO

WIDTH = 24
REDRAW_SECONDS = 0.1
LINE_SECONDS = 5.0


class Progress:
    """`verb` and `noun` make its sentence: "verified 1,200 of 5,000 events"."""

    def __init__(self, out: TextIO, verb: str, noun: str) -> None:
        self._out, self._verb, self._noun = out, verb, noun
        self._bar = out.isatty()
        self._begun = self._told = time.monotonic()

    def show(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self._told < (REDRAW_SECONDS if self._bar else LINE_SECONDS):
            return
        self._told, share = now, done / of if of else 1.0
        left = (now - self._begun) * (1 - share) / share if share else 0.0
        said = f"{self._verb} {done:,} of {of:,} {self._noun}, about {left:.0f} s left"
        full = int(WIDTH * share)
        self._out.write(f"\r\x1b[K{'█' * full}{'░' * (WIDTH - full)} {said}" if self._bar else f"{said}\n")
        self._out.flush()

    def end(self) -> None:
        """Take the bar away: what follows is the result."""
        if self._bar:
            self._out.write("\r\x1b[K")
            self._out.flush()
