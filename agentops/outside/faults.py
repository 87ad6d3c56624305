"""Faults on demand: what goes wrong, for which path, and how often."""

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

# or an HTTP status from 400 to 599
KINDS = ("latency", "hang", "reset", "malformed", "html", "slow", "rejected_key", "context_too_long")
ANSWERED = ("latency", "slow")  # the request takes effect, and its answer arrives, if somebody waits for it
SECONDS = {"hang": 120.0, "slow": 1.0}  # where none are asked for; of a slow body: for each byte

MOST_SECONDS = 3600


class BadFault(ValueError):
    """The fault asked for does not exist; the message says what does."""


@dataclass
class Fault:
    """`after` lets the request take effect before its answer is spoiled: only that shows whether retries are safe."""

    kind: str
    path: str = "/"
    count: int = 1
    seconds: float = 0.0
    retry_after: str = ""
    after: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, str) and isinstance(self.path, str) and isinstance(self.retry_after, str)):
            raise BadFault("kind, path and retry_after must be text.")
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds <= MOST_SECONDS:
            raise BadFault(f"seconds must be a number from 0 to {MOST_SECONDS}.")
        is_status = self.kind.isdigit() and 400 <= int(self.kind) <= 599
        if self.kind not in KINDS and not is_status:
            raise BadFault(f"There is no fault {self.kind!r}; choose {', '.join(KINDS)} or a status from 400 to 599.")
        if not isinstance(self.count, int) or self.count < 1:
            raise BadFault("count must be a whole number of at least 1.")
        self.seconds = self.seconds or SECONDS.get(self.kind, 0.0)


@dataclass
class Faults:
    """The faults still to come, in the order they were asked for."""

    _pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, asked: dict[str, Any], *, instead: bool = False) -> Fault:
        """One more, or this one alone instead of all others."""
        try:
            fault = Fault(**asked)
        except TypeError as error:
            raise BadFault(f"A fault has kind, path, count, seconds, retry_after and after: {error}") from error
        with self._lock:
            self._pending = [fault] if instead else [*self._pending, fault]
        return fault

    def take(self, path: str) -> Fault | None:
        """The fault for this request, counted down."""
        with self._lock:
            for fault in self._pending:
                if path.startswith(fault.path):
                    fault.count -= 1
                    if not fault.count:
                        self._pending.remove(fault)
                    return fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._pending]
