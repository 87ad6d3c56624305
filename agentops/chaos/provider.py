"""The outside world as a process of its own, beside a trial: how faults are planned there and what it saw is read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen  # noqa: TID251 - the outside world of a trial

from agentops.outside.visits import Visit
from agentops.services import process
from agentops.services.failure import ServicesFailure
from agentops.services.places import PROJECT

FOR_EVER = 10**9  # times that a fault comes


@dataclass(frozen=True, slots=True)
class Provider:
    """Where it is."""

    url: str

    def fault(self, kind: str, seconds: float = 0.0) -> None:
        """From now on every request meets this fault, and no other."""
        self._ask("PUT", "/faults", {"kind": kind, "path": "/v1/", "count": FOR_EVER, "seconds": seconds})

    def recover(self) -> float:
        """No request meets a fault any more; returns when that was."""
        self._ask("DELETE", "/faults")
        return time.time()

    def visits(self, *, since: float = 0.0) -> list[Visit]:
        """Every request that came after that moment, in order."""
        found = (Visit(**one) for one in self._ask("GET", "/visits")["visits"])
        return [visit for visit in found if visit.at >= since]

    def forget(self) -> None:
        """What it saw until now, and what was planned."""
        self.recover()
        self._ask("DELETE", "/visits")

    def count(self) -> int:
        return len(self.visits())

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = Request(self.url + path, json.dumps(body).encode() if body else None, method=method)  # noqa: S310 - our own
        with urlopen(request, timeout=20) as response:  # noqa: S310 - as above
            found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def provider() -> Iterator[Provider]:
    """There as long as the block; processes that begin in it call it as their card processor."""
    child = subprocess.Popen(
        [sys.executable, "manage.py", "outside", "--port", "0"],
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: process.die_with_parent(signal.SIGKILL),
    )
    try:
        said = child.stdout.readline() if child.stdout else ""
        if "http://" not in said:
            raise ServicesFailure(f"The outside world does not start: {said}")
        os.environ["CARD_PROCESSOR_URL"] = "http://" + said.partition("http://")[2].strip().removesuffix(".")
        yield Provider(os.environ["CARD_PROCESSOR_URL"])
    finally:
        child.kill()
        child.wait()


def post_freeze(key: str) -> int:
    """One request of a process that was begun beside it; the status of the answer."""
    url = f"{os.environ['CARD_PROCESSOR_URL']}/v1/cards/K-10011/freeze"
    request = Request(url, b"{}", {"Idempotency-Key": key}, method="POST")  # noqa: S310 - our own
    with urlopen(request, timeout=20) as response:  # noqa: S310 - as above
        return int(response.status)
