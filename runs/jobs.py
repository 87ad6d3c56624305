"""What RQ executes, and the job process that executes it with its agents already loaded."""

import os
import secrets
import signal
import socket
from types import FrameType
from typing import Any

import structlog
from rq import Worker, get_current_job
from rq.serializers import JSONSerializer
from rq.timeouts import UnixSignalDeathPenalty

from runs import executor, live, sdk

logger = structlog.get_logger()
# An idle job process says every 15 s that it lives (RQ subtracts 15 from this), a busy one every 5 s: RQ's own 405 and 30
# leave a dead one on the dashboard for minutes.
IDLE_SECONDS = 30
BUSY_BEAT_SECONDS = 5


def advance(run_id: int) -> None:
    """Carry the run as far as it can go."""
    try:
        job = get_current_job()
        executor.advance(run_id, owner=job.worker_name if job and job.worker_name else process_name())
    finally:
        live.flush()


def process_name() -> str:
    """Machine and process id, as the lease and the dashboard name it."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Overtime(BaseException):
    """The job took longer than JOB_TIMEOUT_SECONDS. No worker's own error: for the run, its process ended here."""


class DeathPenalty(UnixSignalDeathPenalty):
    """RQ's time limit, past any `except Exception` of a worker or supervisor."""

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        raise Overtime(f"the job took longer than {self._timeout} seconds")


class JobProcess(Worker):
    """RQ's own worker, which loads what the agents need once, before it forks for each job."""

    death_penalty_class = DeathPenalty

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """JSON always: RQ's default is pickle, which would execute what anybody writes into Redis."""
        name = kwargs.get("name") or f"{process_name()}-{secrets.token_hex(2)}"
        beats = {"worker_ttl": IDLE_SECONDS, "job_monitoring_interval": BUSY_BEAT_SECONDS}
        super().__init__(*args, **kwargs | {"serializer": JSONSerializer, "name": name} | beats)

    def work(self, *args: Any, **kwargs: Any) -> bool:
        for agent in sdk.agents():
            _warm_up(agent)
        return bool(super().work(*args, **kwargs))

    def handle_warm_shutdown_request(self) -> None:
        """Asked to stop: the run in hand is given back after its present step."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGUSR1)

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGUSR1, lambda signum, frame: executor.hand_over.set())


def _warm_up(agent: sdk.Agent) -> None:
    """One agent that cannot be loaded must not keep the others from working: its own steps will ask a person."""
    try:
        if agent.warm_up:
            agent.warm_up()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this agent's alone
        logger.error("warm_up_failed", agent=agent.slug, error=str(error))
