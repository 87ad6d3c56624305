"""Rings the doorbell: puts "advance run N" on the RQ queue once the transaction has committed."""

import asyncio
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

import django_rq
import structlog
from django.conf import settings
from django.utils.timezone import now
from redis.exceptions import RedisError
from rq import Worker
from rq.queue import EnqueueData, Queue

from runs import pen

logger = structlog.get_logger()
ADVANCE = "runs.jobs.advance"
FIRST = "first"  # of a job: it was put before the others
OFFERED: dict[str, Callable[..., object]] = {}  # jobs of the apps above, by their names; each takes text
FAILURE_TTL_SECONDS = 3600
MOST_AT_ONCE = 500  # in one round trip
MOST_AHEAD = 16  # calls that a process puts before all others, until as many that came in their turn were taken
AFTER_SECONDS = 0.005  # by then the time has come by the database's clock too
MOST_LOOKED_AT = 1_000  # calls on the queue, to see which place a run has
SAID_SECONDS = 60  # so often it is said that the queue cannot be read
SILENT_AFTER = timedelta(seconds=30)  # a job process says more often that it lives (runs/jobs.py)


@dataclass(frozen=True, slots=True)
class Call:
    """A run as it was when somebody found it due."""

    run_id: int
    last_seq: int

    @property
    def name(self) -> str:
        """The same for every call about the same moment of the run."""
        return f"advance-{self.run_id}-{self.last_seq}"


def enqueue(run_id: int, last_seq: int) -> None:
    """Ask a job process to advance the run, after the current transaction. A lost call is made good by the sweeper."""
    pen.after_commit(lambda: enqueue_now([Call(run_id, last_seq)]))


def enqueue_now(calls: list[Call], *, first: bool = False) -> bool:
    """Put the calls on the queue at once; False, and a line in the log, when Redis cannot be reached.

    Each gets a job id of its own: two job processes that hold one job would delete it under each other.
    """
    try:
        for start in range(0, len(calls), MOST_AT_ONCE):
            _queue().enqueue_many([_job(call, first=first) for call in calls[start : start + MOST_AT_ONCE]])
    except (RedisError, OSError) as error:
        logger.warning("dispatch_lost", runs=[call.run_id for call in calls], error=str(error))
        return False
    return True


def call_at(call: Call, seconds: float) -> None:
    """Have this process take the run up again after so many seconds, where the sweeper might come to it later than that.

    One thread waits for all of them. Where this is no job process, or it ends before, the sweeper makes it good.
    """
    if _timers and seconds <= soon_seconds():
        here = _timers[0]
        here.loop.call_soon_threadsafe(here.loop.call_later, max(seconds, 0.0) + AFTER_SECONDS, here.call, call)


def keep_time(take_up: Callable[[int], bool]) -> None:
    """From now on this process calls for the runs that it parks for a moment; False: it has no thread for this one now."""
    if not _timers:
        _timers.append(here := _Timers(take_up))
        threading.Thread(target=here.loop.run_forever, name="timers", daemon=True).start()
        threading.Thread(target=here.enqueue_for_ever, name="timers-queue", daemon=True).start()


def taken(*, was_first: bool) -> None:
    """This job process has a call from the queue: after one that came in its turn, another may be put before the others."""
    if _timers and not was_first:
        _timers[0].ahead.taken()


def soon_seconds() -> float:
    """Waits up to this may begin and end between two looks of the sweeper."""
    sweep: float = settings.SWEEP_SECONDS
    return max(2.0, 2 * sweep)


@dataclass(slots=True)
class _Ahead:
    """How many calls were put before those that wait in their turn: without an end, no run would ever begin."""

    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, wanted: int) -> int:
        """So many of them may be."""
        with self._lock:
            allowed = min(wanted, MOST_AHEAD - self._count)
            self._count += allowed
        return allowed

    def taken(self) -> None:
        with self._lock:
            self._count = max(self._count - 1, 0)


@dataclass(frozen=True, slots=True)
class _Timers:
    """The thread of the loop takes up; another one talks to Redis, which may hang."""

    take_up: Callable[[int], bool]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    refused: queue.SimpleQueue[Call] = field(default_factory=queue.SimpleQueue)
    ahead: _Ahead = field(default_factory=_Ahead)

    def call(self, call: Call) -> None:
        if not self.take_up(call.run_id):
            self.refused.put(call)

    def enqueue_for_ever(self) -> None:
        while True:
            calls = [self.refused.get()]
            while len(calls) < MOST_AT_ONCE and not self.refused.empty():
                calls.append(self.refused.get())
            try:
                self._enqueue(calls)
            except Exception:  # the sweeper finds them, and who is refused next has nobody else
                logger.exception("dispatch_lost", calls=len(calls))

    def _enqueue(self, calls: list[Call]) -> None:
        before = self.ahead.put(len(calls))
        if before:
            enqueue_now(calls[:before][::-1], first=True)  # each is put before the others: so the first of them stands first
        if calls[before:]:
            enqueue_now(calls[before:])


_timers: list[_Timers] = []  # at most one
os.register_at_fork(after_in_child=_timers.clear)


def ask(name: str, *arguments: str) -> None:
    """Have a job process carry out an offered job, after the current transaction, unless the same waits on the queue already.

    Nobody makes a lost one good by itself.
    """
    pen.after_commit(lambda: _ask_now(name, arguments))


def _ask_now(name: str, arguments: tuple[str, ...]) -> None:
    same = "-".join((name.replace(".", "-"), *arguments))
    try:
        if not any(job_id.rpartition("-")[0] == same for job_id in _queue().get_job_ids()):
            job_id = f"{same}-{secrets.token_hex(3)}"
            _queue().enqueue_call(name, args=arguments, job_id=job_id, result_ttl=0, failure_ttl=FAILURE_TTL_SECONDS)
    except (RedisError, OSError) as error:
        logger.warning("dispatch_lost", job=name, error=str(error))


def _job(call: Call, *, first: bool) -> EnqueueData:
    job_id = f"{call.name}-{secrets.token_hex(3)}"
    return Queue.prepare_data(
        ADVANCE,
        args=(call.run_id,),
        job_id=job_id,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_SECONDS,
        at_front=first,
        meta={FIRST: True} if first else None,
    )


def missing(calls: list[Call], *, most: int = -1) -> list[Call]:
    """Those of the calls that do not wait on the queue, among its first `most`. Raises RedisError when Redis cannot be reached.

    One that a job process has just taken from the queue is called once more: the second finds nothing to do.
    """
    waiting = {job_id.rpartition("-")[0] for job_id in _queue().get_job_ids(0, most)} if calls else set()
    return [call for call in calls if call.name not in waiting]


@dataclass(frozen=True, slots=True)
class Look:
    """The queue at this moment: how many calls stand before the first of each run, and how many job processes there are."""

    before: dict[int, int]
    processes: int


def look() -> Look | None:
    """None when Redis cannot be reached. Only the first calls are looked at."""
    try:
        waiting = _queue().get_job_ids(0, MOST_LOOKED_AT)
        beats = [process.last_heartbeat for process in Worker.all(connection=_queue().connection)]
    except (RedisError, OSError) as error:
        say_not_read(int(time.monotonic() // SAID_SECONDS), str(error))
        return None
    before: dict[int, int] = {}
    for place, job_id in enumerate(waiting):
        if found := re.match(r"advance-(\d+)-", job_id):
            before.setdefault(int(found[1]), place)
    return Look(before, sum(beat is not None and now() - beat < SILENT_AFTER for beat in beats))


@lru_cache(maxsize=8)
def say_not_read(part: int, error: str) -> None:
    """The same error once in each part of the time: while Redis is away, every page looks."""
    logger.warning("queue_not_read", error=error)


def _queue() -> Queue:
    return _queue_at(settings.RQ_QUEUES["default"]["URL"])


@lru_cache(maxsize=1)
def _queue_at(url: str) -> Queue:
    """One for each process: a new one would connect to Redis anew for each call."""
    return django_rq.get_queue("default")
