"""Independent steps of one run side by side: threads call the workers, the run's own thread writes what comes of them."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections

from runs import event_log, sdk
from runs.attempts import OneStep
from runs.engine.state import Status
from runs.nexts import Attempt, Next, Open
from runs.steps import Steps, interruptible


def gather(steps: Steps, calls: Sequence[sdk.Call[Any]]) -> list[Any]:
    """What run.gather does: the results in order, when every step has come to a result or to a wait."""
    with interruptible():
        steps.stop_if_asked()
        reached = [steps.reach(call.name, call.worker, call.inputs) for call in calls]
        for step in reached:
            if changed := step.changed():
                steps.settle(changed)
        nexts = [step.first(in_line=False) for step in reached]
        for next_ in nexts:
            steps.note(next_)
        if any(isinstance(next_, Attempt) for next_ in nexts):
            _Gathering(steps, reached, nexts).carry()
            steps.stop_if_asked()
        return steps.settle(*nexts)


class _Gathering:
    """Those of the steps that have something to do; `nexts` says of each what comes next."""

    def __init__(self, steps: Steps, reached: list[OneStep], nexts: list[Next]) -> None:
        self.steps, self.reached, self.nexts = steps, reached, nexts
        self.ready = deque(place for place, next_ in enumerate(nexts) if isinstance(next_, Attempt))
        crashed = any(
            step.crashes or step.losses or step.alone for step in steps.log.state.steps.values()
        )  # one at a time, to see which it is
        self.most = 1 if crashed else min(settings.GATHER_THREADS, len(self.ready))
        self.working: dict[Future[Any], int] = {}

    def carry(self) -> None:
        with ThreadPoolExecutor(self.most, thread_name_prefix=f"run-{self.steps.log.run_id}") as pool:
            try:
                self._start(pool)
                while self.working:
                    for future in wait(self.working, self._seconds_until_next(), FIRST_COMPLETED).done:
                        self._finish(self.working.pop(future), future)
                    self._take_up()
                    self._start(pool)
            except (OperationalError, InterfaceError):  # others go on with the run, however long the slowest takes here
                self.steps.held.let_go()
                raise

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Write what has happened together with the starts of as many steps as there are free threads."""
        if self.steps.must_leave:
            self.ready.clear()
        free = self.most - len(self.working)
        places = [self.ready.popleft() for _ in range(min(free, len(self.ready)))]
        ripe = [place for place in places if not self._next(place).delay_seconds]
        if not self.steps.record(*(self._next(place).start for place in ripe)):
            self.steps.record()
            places = []
        for place in places:
            self.working[pool.submit(copy_context().run, _work, self.reached[place], self._next(place).delay_seconds)] = place

    def _next(self, place: int) -> Attempt:
        next_ = self.nexts[place]
        assert isinstance(next_, Attempt)  # noqa: S101 - only such are ready
        return next_

    def _finish(self, place: int, future: Future[Any]) -> None:
        """A wait is over, or an attempt."""
        attempt = self._next(place)
        if attempt.delay_seconds:
            attempt.delay_seconds = 0.0
            self.ready.appendleft(place)
            return
        self.nexts[place] = next_ = self.reached[place].follow(future.result())
        self.steps.note(next_)
        if isinstance(next_, Attempt):
            self.ready.append(place)

    # --- held back while others are at work: the process is held by these, and parks when they have ended

    def _held_back(self) -> Iterator[tuple[int, datetime]]:
        for place, next_ in enumerate(() if self.steps.must_leave else self.nexts):
            if isinstance(next_, Open) and "dependency" in next_.held and next_.wake_at:
                yield place, next_.wake_at

    def _seconds_until_next(self) -> float | None:
        moments = [moment for _, moment in self._held_back()]
        return max(0.0, (min(moments) - event_log.now()).total_seconds()) if moments else None

    def _take_up(self) -> None:
        """What they are held back for may have room by now; of which that is not written yet, comes after it is."""
        for place, moment in list(self._held_back()) if self.working else ():
            if moment <= event_log.now() and self.reached[place].recorded.status == Status.RETRYING:
                self.nexts[place] = next_ = self.reached[place].first(in_line=False)
                self.steps.note(next_)
                if isinstance(next_, Attempt):
                    self.ready.append(place)


def _work(step: OneStep, delay_seconds: float) -> Any:
    if delay_seconds:
        return time.sleep(delay_seconds)
    try:
        return step.execute(step.recorded)
    finally:
        connections.close_all()
