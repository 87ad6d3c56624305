"""Texts that would do something if a page took them for markup: each marks its element with x5s, and asks for x5s-canary."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

FOUND = json.loads((Path(__file__).parent / "attacks.json").read_text())
WAYS_OUT = ("", '">', "'>", "</textarea></title></script></style></q></code></pre>-->")  # of what it may stand in
ATTACKS: list[str] = [way_out + markup for way_out in WAYS_OUT for markup in FOUND["markup"]] + FOUND["else"]
EVERY = "\n".join(ATTACKS)
SHORT = '"><img x5s src=x onerror=a()>'


def one_after_the_other() -> Callable[[int], str]:
    """Gives the next that fits into so many letters; in the end each has been somewhere."""
    all_ = cycle(ATTACKS)
    return lambda letters: next(one for one in all_ if len(one) <= letters)
