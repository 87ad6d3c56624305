"""What RQ executes, and the job process: it fetches jobs and carries each in a thread of its own."""

import os
import secrets
import signal
import socket  # noqa: TID251 - the name of this machine
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections
from redis.exceptions import RedisError
from rq import get_current_job, worker_registration
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from runs import alone, dispatch, event_log, executor, keeper, live, pen, sdk
from runs.alerts import watch

logger = structlog.get_logger()
# A job process says every 5 s that it lives, and waits for a job at most 15 s at a time (RQ subtracts 15 from the first):
# RQ's own 405 and 30 leave a dead one on the dashboard for minutes.
IDLE_SECONDS = 30
BEAT_SECONDS = 5


def advance(run_id: int) -> None:
    """Carry the run as far as it can go; RQ's own workers, which carry it in their main thread, may end with it."""
    keeper.end_process_when_it_stalls()
    try:
        job = get_current_job()
        executor.advance(run_id, owner=job.worker_name if job and job.worker_name else process_name())
    finally:
        if threading.current_thread() is threading.main_thread():
            live.flush()


def process_name() -> str:
    """Machine and process id, as the lease and the dashboard name it."""
    return f"{socket.gethostname()}-{os.getpid()}"


ALLOWED = {dispatch.ADVANCE: advance}


class NotAllowed(Exception):
    """The job asks for a function that this queue does not offer."""


class AllowedJob(Job):
    """A job that is known above or offered by an app; whatever else stands in Redis is neither imported nor called nor sent."""

    success_callback = failure_callback = stopped_callback = property(lambda self: None)

    @property
    def func(self) -> Any:
        known = ALLOWED | dispatch.OFFERED
        if not isinstance(self.func_name, str) or self.func_name not in known or self.instance is not None:
            raise NotAllowed(f"{self.func_name!r} is not a job of agentops: it knows {', '.join(known)}.")
        return known[self.func_name]

    def send_webhooks(self, *args: Any, **kwargs: Any) -> None:
        """Nothing leaves the process but through guard."""


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's time limit is a Unix signal, which only the main thread can have; the keeper watches the steps instead."""

    def setup_death_penalty(self) -> None: ...

    def cancel_death_penalty(self) -> None: ...


class JobProcess(BaseWorker):
    """RQ's worker with JOB_THREADS threads: the main one fetches, each of the others carries one job through RQ's perform_job."""

    death_penalty_class = NoDeathPenalty
    max_connection_wait_time = 2.0  # RQ's minute would outlast Redis's own absence

    def __init__(self, queues: Any, name: str | None = None, **kwargs: Any) -> None:
        """JSON always: RQ's default is pickle, which would execute what anybody writes into Redis."""
        name = name or f"{process_name()}-{secrets.token_hex(2)}"
        beats = {"worker_ttl": IDLE_SECONDS, "job_monitoring_interval": BEAT_SECONDS}
        super().__init__(queues, name, **kwargs | {"serializer": JSONSerializer} | beats)
        self._free = threading.Semaphore(settings.JOB_THREADS)
        self._one_ended = threading.Condition()
        self._taken_up: set[int] = set()
        self._fetching = self._cold = False
        self._asked_at = 0.0

    def work(self, *args: Any, **kwargs: Any) -> bool:
        for agent in sdk.agents():
            _warm_up(agent)
        _connect()
        executor.alone = alone.carry
        dispatch.keep_time(self.take_up)
        keeper.when_leaving(lambda: os.kill(os.getpid(), signal.SIGTERM))
        threading.Thread(target=self._beat_for_ever, name="beat", daemon=True).start()
        watch.start()
        worked = bool(super().work(*args, **kwargs))
        live.flush()
        if self.has_work:  # a thread that does not come back must not hold the process
            keeper.give_back()
            os._exit(keeper.STUCK if keeper.leaving.is_set() else 0)
        return worked

    # --- one job ------------------------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> tuple[Job, Queue] | None:
        """Wait for a free thread, then for a job."""
        self._fetching = True
        try:
            if self._stop_requested:
                raise StopRequested
            self._free.acquire()
            fetched = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        finally:
            self._fetching = False
        if fetched is None:
            self._free.release()
        return fetched

    def execute_job(self, job: Job, queue: Queue) -> None:
        """A job that Redis lost meanwhile is made good by the sweeper."""
        dispatch.taken(was_first=bool(job.meta.get(dispatch.FIRST)))
        try:
            execution = self.prepare_execution(job)
        except RedisError as error:
            logger.warning("job_lost", job=job.id, error=str(error))
            self._free.release()
            return
        if not _has_begun(threading.Thread(target=self._carry, args=(job, queue, execution), name=job.id, daemon=True)):
            self.executions.pop(execution.id, None)
            self._free.release()

    def _carry(self, job: Job, queue: Queue, execution: Execution) -> None:
        try:
            self.perform_job(job, queue, execution)
        except RedisError as error:
            logger.warning("job_not_recorded", job=job.id, error=str(error))
        finally:
            self.executions.pop(execution.id, None)
            self._ended()

    def _ended(self) -> None:
        connections.close_all()
        self._free.release()
        with self._one_ended:
            self._one_ended.notify_all()

    @property
    def has_work(self) -> bool:
        """Some thread carries a run."""
        return bool(self.executions or self._taken_up)

    # --- a run that this process parked for a moment --------------------------------------------------------------

    def take_up(self, run_id: int) -> bool:
        """Carry it on without the queue; False where no thread is free for it, or none is to begin."""
        if self._stop_requested or run_id in self._taken_up or not self._free.acquire(blocking=False):
            return False
        self._taken_up.add(run_id)
        if not _has_begun(threading.Thread(target=self._carry_on, args=(run_id,), name=f"again-{run_id}", daemon=True)):
            self._taken_up.discard(run_id)
            self._free.release()
            return False
        return True

    def _carry_on(self, run_id: int) -> None:
        try:
            executor.advance(run_id, owner=self.name)
        except DatabaseError as error:  # the sweeper finds it
            logger.warning("run_not_taken_up", run=run_id, error=str(error))
        except Exception:
            logger.exception("run_not_taken_up", run=run_id)
        finally:
            self._taken_up.discard(run_id)
            self._ended()

    # --- what RQ says of itself in Redis ------------------------------------------------------------------------

    def _beat_for_ever(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            try:
                self._beat()
            except RedisError as error:
                logger.warning("not_heard", error=str(error))

    def _beat(self) -> None:
        """This process lives, and so do its jobs; written whole, because Redis may have been emptied."""
        if self.birth_date is None:
            return
        self.last_heartbeat = now()
        state = WorkerStatus.BUSY if self.has_work else WorkerStatus.IDLE
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize() | {"state": state})
            pipeline.expire(self.key, IDLE_SECONDS + 60)
            worker_registration.register(self, pipeline)
            pipeline.execute()
        for execution in list(self.executions.values()):
            self.maintain_heartbeats(execution.job, execution)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Only as part of something larger: between two jobs the thread above speaks for all."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Idle is a process none of whose threads has a job."""
        if state == WorkerStatus.IDLE and self.has_work:
            state = WorkerStatus.BUSY
        if pipeline is not None or state != self._state:
            _unless_away(super().set_state, state, pipeline)

    def run_maintenance_tasks(self) -> None:
        _unless_away(super().run_maintenance_tasks)

    def check_for_suspension(self, burst: bool) -> None:
        _unless_away(super().check_for_suspension, burst)

    def procline(self, message: str) -> None:
        """The title of a process cannot name the jobs of all its threads."""

    # --- the end ------------------------------------------------------------------------------------------------

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Take no more jobs, and give each run back after its present step."""
        self._shutdown_requested_date, self._asked_at = now(), time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request_force_stop)
        keeper.hand_over.set()
        self._stop_requested = True
        if self._fetching:
            raise StopRequested

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second request, but not its echo from a process group or supervisor: end at once."""
        self._cold = self._cold or time.monotonic() - self._asked_at >= 1

    def teardown(self) -> None:
        """Wait for the jobs in hand, when asked to stop at most JOB_GRACE_SECONDS."""
        asked = time.monotonic()
        if self._stop_requested:
            _unless_away(self.set_shutdown_requested_date)
        while self.has_work and not self._cold and not (self._stop_requested and self._has_waited(asked)):
            with self._one_ended:
                self._one_ended.wait(0.2)
        _unless_away(super().teardown)

    def _has_waited(self, since: float) -> bool:
        """Long enough; a step for whose sake this process ends is not waited for."""
        if keeper.leaving.is_set():
            return not keeper.is_busy() or time.monotonic() - since > keeper.LEAVE_SECONDS
        grace: float = settings.JOB_GRACE_SECONDS
        return time.monotonic() - since > grace


def _has_begun(thread: threading.Thread) -> bool:
    """The machine may have no room for another thread; what it was to carry is then made good by the sweeper."""
    try:
        thread.start()
    except RuntimeError as error:
        logger.warning("thread_not_begun", thread=thread.name, error=str(error))
        return False
    return True


def _unless_away(what: Any, *args: Any) -> None:
    try:
        what(*args)
    except RedisError as error:
        logger.warning("redis_away", error=str(error))


def _connect() -> None:
    """So that the server has prepared what every run needs; while it is away, the first run does that."""
    with suppress(DatabaseError):
        event_log.take(0, owner="")
        pen.warm_up()


def _warm_up(agent: sdk.Agent) -> None:
    """One agent that cannot be loaded must not keep the others from working: its own steps will ask a person."""
    try:
        if agent.warm_up:
            agent.warm_up()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this agent's alone
        logger.error("warm_up_failed", agent=agent.slug, error=str(error))
