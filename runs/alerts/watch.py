"""The thread that keeps the rounds going, in the sweeper and in every job process: each sees that the other is missing."""

import threading

import structlog
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import connections
from redis.exceptions import RedisError

from runs import dispatch
from runs.alerts import delivery, evaluation

logger = structlog.get_logger()
FIRST_SECONDS, BETWEEN_SECONDS = 15.0, 10.0
ASKED_SECONDS = 10


def start() -> None:
    """Watch until this process ends."""
    threading.Thread(target=_watch, name="alerts", daemon=True).start()


def _watch() -> None:
    pause = threading.Event()
    pause.wait(FIRST_SECONDS)
    while True:
        try:
            look()
        except (DatabaseError, RedisError, OSError) as error:
            logger.warning("alerts_not_evaluated", error=str(error))
        except Exception:
            logger.exception("alerts_not_evaluated")  # whatever it is, the next round is made
        finally:
            connections.close_all()
        pause.wait(BETWEEN_SECONDS)


def look() -> None:
    """Make the round, if nobody has in this minute, and have said what is to be said."""
    if evaluation.take_round():
        evaluation.make_round()
    if delivery.waiting() and cache.add("agentops:alert-notices", 1, timeout=ASKED_SECONDS):
        _have_said()


def _have_said() -> None:
    """By a job process; where none is alive, which may be just what is to be said, by this one."""
    seen = dispatch.look()
    if seen and seen.processes:
        dispatch.ask(delivery.JOB)
    else:
        delivery.deliver()
