"""The thread that removes old runs once a night, in the sweeper; off unless PRUNE_DAYS says how long runs are kept."""

import threading
import time
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections

from runs import clock, retention
from runs.models import Pruning

logger = structlog.get_logger()
BETWEEN_SECONDS = 60.0
NAME = "retention"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TAKEN_UP_FOR = 4 * HOUR  # what stopped is gone on with so long
STOPPED = timedelta(minutes=15)  # without a sign of it
SIGN_SECONDS = 30.0


def start() -> None:
    """Look each minute whether it is time, until this process ends."""
    if settings.PRUNE_DAYS:
        threading.Thread(target=_watch, name=NAME, daemon=True).start()


def _watch() -> None:
    retention.stand_back()
    pause = threading.Event()
    while not pause.wait(BETWEEN_SECONDS):
        try:
            look()
        except (DatabaseError, OSError) as error:
            logger.warning("not_pruned", error=str(error))
        except Exception:
            logger.exception("not_pruned")  # whatever it is, the next night is another
        finally:
            connections.close_all()


def look() -> None:
    """Prune in the hour of PRUNE_HOUR (UTC), if no sweeper has begun to in this night; or go on, if it has stopped.

    What is left some hours later is for the next night.
    """
    now = clock.now()
    begins = _newest(now)
    said = {
        "by": NAME, "ended_before": now - settings.PRUNE_DAYS * DAY, "archive": settings.PRUNE_ARCHIVE, "seen_at": now,
    }  # fmt: skip
    if now - begins < HOUR:
        pruning, is_ours = Pruning.objects.get_or_create(night=begins.date(), defaults=said)
        if is_ours:
            return _prune(pruning)
    stopped = Pruning.objects.filter(night=begins.date(), ended_at=None, seen_at__lt=now - STOPPED)
    if now - begins < TAKEN_UP_FOR and stopped.update(seen_at=now):
        _prune(Pruning.objects.get(night=begins.date()))
    return None


def _prune(pruning: Pruning) -> None:
    signed = time.monotonic()
    for report in retention.prune(pruning):
        done = report
        if time.monotonic() - signed > SIGN_SECONDS:
            signed = time.monotonic()
            Pruning.objects.filter(pk=pruning.pk).update(seen_at=clock.now())
    logger.info("pruned", runs=done.runs, events=done.events, alerts=done.alerts, bulks=done.bulks, kept=dict(done.kept))


def _newest(now: datetime) -> datetime:
    """When the hour began last."""
    begins = now.replace(hour=settings.PRUNE_HOUR, minute=0, second=0, microsecond=0)
    return begins if begins <= now else begins - DAY


def missed(now: datetime) -> bool:
    """The last night whose hour is over has no pruning, though one before it has; or its pruning has stopped."""
    if not settings.PRUNE_DAYS:
        return False
    night = _newest(now - HOUR).date()
    last = Pruning.objects.exclude(night=None).order_by("-night").first()
    if not last or not last.night:
        return False
    return last.night < night or (last.ended_at is None and last.seen_at < now - STOPPED)
