"""Makes good what the doorbell lost: finds runs that are due and owned by nobody, and puts them on the queue again."""

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import groupby

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import close_old_connections
from redis.exceptions import RedisError

from runs import budgets, children, clock, dependencies, dispatch, floods, signals
from runs.models import Run, search
from runs.models.run import HELD_BACK
from runs.reliability import budget as reserved
from runs.reliability.store import Unavailable

logger = structlog.get_logger()
BATCH = 1000
BEAT = "agentops:sweeper"  # cache key of the last sweep, for the dashboard and /readyz
BEAT_SECONDS = 15
BEATS_SECONDS = 0.02  # those whose time comes within so much are dispatched together
LATER_BEATS = 3  # who is held back for a moment is taken up at its time by the job process that parked it, if that lives


def sweep() -> int:
    """Dispatch every due run (a wait that is over, a lost lease, a lost call) that has no job; return how many.

    Children are cancelled with their parent here, and what a dependency or a budget held back is woken when that is over.
    What dead processes had reserved counts as used.

    Raises RedisError, Unavailable or a database error when a service cannot be reached; the next sweep finds the same runs.
    What else is due by the clock is looked for in any case.
    """
    try:
        dispatched = _sweep_runs()
    finally:
        signals.swept.send_robust(sender=None)  # what fails there is logged, and holds up no run
    cache.set(BEAT, time.time(), timeout=BEAT_SECONDS)
    return dispatched


def _sweep_runs() -> int:
    dependencies.keep_open()  # before anything is sent
    due = Run.objects.due().order_by("created_at", "pk").values_list("pk", "last_seq")[:BATCH]
    calls = dispatch.missing([dispatch.Call(*row) for row in due])
    dispatch.enqueue_now(calls)
    children.cancel_orphans(BATCH // 4)
    dependencies.wake()
    reserved.count_lost()
    budgets.wake()
    floods.wake()
    dependencies.tidy()
    search.fill()
    return len(calls)


def sweep_for_ever(stopped: Callable[[], bool]) -> None:
    """Sweep every SWEEP_SECONDS until `stopped()`; a service that is away is logged and tried again."""
    while not stopped():
        try:
            close_old_connections()
            begun = clock.now()
            if dispatched := sweep():
                logger.info("swept", dispatched=dispatched)
            wake_on_time(settings.SWEEP_SECONDS, since=begun)
        except (RedisError, Unavailable, DatabaseError, OSError) as error:
            logger.warning("sweep_failed", error=str(error))
            time.sleep(settings.SWEEP_SECONDS)


def wake_on_time(seconds: float, *, since: datetime) -> None:
    """Return after so many seconds; runs whose time comes until then, which is known now, are dispatched when it comes.

    So a timer ends, and a decision that can no longer be taken back is carried out, without waiting for the next sweep.
    `since` is when the last one looked.
    """
    now, begun = clock.now(), time.monotonic()

    def beat(run: Run) -> int:
        later = LATER_BEATS if run.waiting_cause in HELD_BACK else 0
        return math.ceil(((run.wake_at or now) - now).total_seconds() / BEATS_SECONDS) + later

    soon = Run.objects.waking(since, now + timedelta(seconds=seconds)).only("wake_at", "last_seq", "waiting_cause")[:BATCH]
    for at, runs in groupby(sorted(soon, key=beat), beat):
        _sleep_until(begun + at * BEATS_SECONDS)
        dispatch.enqueue_now(_not_called([dispatch.Call(run.pk, run.last_seq) for run in runs]))
    _sleep_until(begun + seconds)


def _not_called(calls: list[dispatch.Call]) -> list[dispatch.Call]:
    """Without those that a job process has taken up by itself, or has put at the front of the queue."""
    due = set(Run.objects.due().filter(pk__in=[call.run_id for call in calls]).values_list("pk", flat=True))
    return dispatch.missing([call for call in calls if call.run_id in due], most=dispatch.MOST_LOOKED_AT)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
