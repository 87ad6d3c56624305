"""How messages to one recipient are sent by one process at a time, and what follows when one could not be sent."""

import random
from datetime import timedelta
from typing import Any

import structlog
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from runs.engine import outcome
from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.integrations import notices as outside
from runs.models.pace import Pace

logger = structlog.get_logger()
MORE_SECONDS = 60.0  # than guard lets a call take: then whoever was sending is taken for dead
MOST_ATTEMPTS = 10_000  # of a message, where its dependency names no number: its time ends before
NOT_SENT = (TryLater, GiveUp, AskHuman, outside.NoSuchChannel)


def taken(pace: Pace, *, dependency: str) -> bool:
    """Whether this process may send to the recipient now; nobody else does meanwhile."""
    free = Q(sending_until=None) | Q(sending_until__lte=Now())
    may_try = Q(retry_at=None) | Q(retry_at__lte=Now())
    until = Now() + timedelta(seconds=outside.longest_seconds(dependency) + MORE_SECONDS)
    return bool(type(pace)._default_manager.filter(free, may_try, pk=pace.pk).update(sending_until=until))


def given_back(pace: Pace) -> None:
    """There was nothing to send after all."""
    type(pace)._default_manager.filter(pk=pace.pk).update(sending_until=None)


def sent(pace: Pace, **fields: Any) -> None:
    """It went out."""
    pace.begin_anew()
    _note(pace, **fields)


def failed(pace: Pace, error: Exception) -> None:
    """What follows is decided as for a step of a run, by the terms of the dependency; the error is shown to the recipient."""
    now, failures, since = timezone.now(), pace.failures, pace.failing_since
    attempts = (isinstance(error, TryLater) and error.terms and error.terms.attempts) or MOST_ATTEMPTS
    next_ = outcome.after_failure(
        error, attempt=failures + 1, attempts=attempts, elapsed_seconds=(now - (since or now)).total_seconds(),
        chance=random.random(),  # noqa: S311 - jitter
    )  # fmt: skip
    pace.begin_anew()
    pace.last_error = str(error)
    match next_:
        case outcome.TryAgain(seconds):
            pace.retry_at, pace.failures, pace.failing_since = (
                now + timedelta(seconds=seconds),
                min(failures + 1, 1000),
                since or now,
            )
        case outcome.NotYet(seconds):  # held back: nothing was sent, and that is no failure
            pace.retry_at, pace.failures, pace.failing_since = now + timedelta(seconds=seconds), failures, since
        case _:
            pace.gave_up_at = now
    logger.warning("notices_not_sent", to=str(pace), error=str(error), given_up=bool(pace.gave_up_at))
    _note(pace)


def _note(pace: Pace, **fields: Any) -> None:
    """How it went; what the recipient has set meanwhile stays."""
    went = {name: getattr(pace, name) for name in ("retry_at", "failures", "failing_since", "gave_up_at", "last_error")}
    type(pace)._default_manager.filter(pk=pace.pk).update(sending_until=None, **went, **fields)
