"""How long runs that a fault has hit take to go on."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from runs import dispatch
from runs.models import Run


@dataclass
class Hit:
    """A run, the event it had come to, and since when it could have gone on."""

    run_id: int
    last_seq: int
    since: float
    counts_as_recovered_on_the_queue: bool


@dataclass
class Recovery:
    """`seconds` of every run that has recovered, in no order."""

    seconds: list[float] = field(default_factory=list)
    _waiting: dict[int, Hit] = field(default_factory=dict)

    def expect(self, rows: Iterable[tuple[int, int]], *, on_the_queue: bool = False) -> None:
        """Count until each run has a further event, its end, or a job on the queue; one hit twice counts from the first."""
        for run_id, last_seq in rows:
            self._waiting.setdefault(run_id, Hit(run_id, last_seq, time.monotonic(), on_the_queue))

    @property
    def complete(self) -> bool:
        return not self._waiting

    def look(self) -> None:
        """To be called often: what is seen only later seems to have recovered later."""
        if not self._waiting:
            return
        came_to = dict(Run.objects.filter(pk__in=self._waiting).values_list("pk", "last_seq"))
        ended = set(Run.objects.ended().filter(pk__in=self._waiting).values_list("pk", flat=True))
        queued = self._queued()
        for hit in list(self._waiting.values()):
            if came_to.get(hit.run_id, 0) > hit.last_seq or hit.run_id in queued | ended:
                self.seconds.append(time.monotonic() - hit.since)
                del self._waiting[hit.run_id]

    def _queued(self) -> set[int]:
        hits = [hit for hit in self._waiting.values() if hit.counts_as_recovered_on_the_queue]
        calls = [dispatch.Call(hit.run_id, hit.last_seq) for hit in hits]
        return {call.run_id for call in calls} - {call.run_id for call in dispatch.missing(calls)}
