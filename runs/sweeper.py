"""Makes good what the doorbell lost: finds runs that are due and owned by nobody, and puts them on the queue again."""

import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import close_old_connections
from redis.exceptions import RedisError

from runs import budgets, children, dependencies, dispatch, floods, signals
from runs.models import Run
from runs.reliability import budget as reserved
from runs.reliability.store import Unavailable

logger = structlog.get_logger()
BATCH = 1000
BEAT = "agentops:sweeper"  # cache key of the last sweep, for the dashboard and /readyz
BEAT_SECONDS = 15


def sweep() -> int:
    """Dispatch every due run (a wait that is over, a lost lease, a lost call) that has no job; return how many.

    Children are cancelled with their parent here, and what a dependency or a budget held back is woken when that is over.
    What dead processes had reserved is given back.

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
    due = Run.objects.due().order_by("created_at", "pk").values_list("pk", "last_seq")[:BATCH]
    calls = dispatch.missing([dispatch.Call(*row) for row in due])
    dispatch.enqueue_now(calls)
    children.cancel_orphans(BATCH // 4)
    dependencies.wake()
    reserved.give_back()
    budgets.wake()
    floods.wake()
    return len(calls)


def sweep_for_ever(stopped: Callable[[], bool]) -> None:
    """Sweep every SWEEP_SECONDS until `stopped()`; a service that is away is logged and tried again."""
    while not stopped():
        try:
            close_old_connections()
            if dispatched := sweep():
                logger.info("swept", dispatched=dispatched)
        except (RedisError, Unavailable, DatabaseError, OSError) as error:
            logger.warning("sweep_failed", error=str(error))
        time.sleep(settings.SWEEP_SECONDS)
