"""When each request came and went: whoever promises to keep a limit is measured by this, and not by what it says itself."""

import threading
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_KEPT = 100_000


@dataclass(slots=True)
class Visit:
    """One request; times are seconds since 1970. `until` is None while it is being answered."""

    path: str
    key: str  # its idempotency key
    at: float
    until: float | None = None
    fault: str = ""
    port: int = 0  # of the client: the same for all requests of one connection


@dataclass
class Visits:
    """The latest of them, in the order in which they came."""

    _all: deque[Visit] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def came(self, path: str, key: str, port: int) -> Visit:
        with self._lock:
            visit = Visit(path, key, time.time(), port=port)
            self._all.append(visit)
        return visit

    def went(self, visit: Visit) -> None:
        visit.until = time.time()

    def clear(self) -> None:
        with self._lock:
            self._all.clear()

    def told(self, *, path: str, window: float) -> dict[str, Any]:
        """Counts of the requests whose path begins so, and the requests themselves."""
        with self._lock:
            found = [visit for visit in self._all if visit.path.startswith(path)]
        times = [visit.at for visit in found]
        return {
            "requests": len(found),
            "most_within": most_within(window, times),
            "most_at_once": most_at_once(found),
            "per_second": {str(second): count for second, count in sorted(Counter(map(int, times)).items())},
            "visits": [asdict(visit) for visit in found],
        }


def most_within(seconds: float, times: Sequence[float]) -> int:
    """The most of these moments, in order, in any window of that length; its end is no part of it."""
    reach = [bisect_right(times, at - seconds) for at in times]
    return max((place + 1 - first for place, first in enumerate(reach)), default=0)


def most_at_once(visits: Iterable[Visit]) -> int:
    """The most that were there at the same moment; who goes when another comes was not there with it."""
    steps = sorted(step for visit in visits for step in ((visit.at, 1), (visit.until or float("inf"), -1)))
    there = most = 0
    for _, step in steps:
        there += step
        most = max(most, there)
    return most
