"""Sends the notices that wait, by mail and to channels: in digests, not in quiet hours, and again after a failure."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from reviews import digest
from reviews.models import Channel, Notice, NoticeSettings, Pace
from runs import dispatch
from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.integrations import notices as outside

logger = structlog.get_logger()
JOB = "reviews.delivery.deliver"
SENDING_FOR = timedelta(minutes=2)  # longer than guard lets a call take
MOST = 500  # notices of one message
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
Delivery = Notice.Delivery


def deliver() -> int:
    """Send to everybody for whom something is due now; return how many messages went out.

    Several may do so at once: each recipient is taken by a conditional update. A message that was sent just before its process
    died is sent again; none is lost.
    """
    return sum(_serve(pace) for pace in _with_waiting())


def _with_waiting() -> Iterator[Pace]:
    waits = Notice.objects.filter(delivery=Delivery.WAITS)
    yield from NoticeSettings.objects.filter(Exists(waits.filter(user=OuterRef("user")))).select_related("user")
    yield from Channel.objects.filter(Exists(waits.filter(channel=OuterRef("pk"))))


def _serve(pace: Pace) -> bool:
    """Whether a message went out to this recipient."""
    now = timezone.now()
    _drop_closed(pace)
    oldest = _waiting(pace).order_by("at").values_list("at", flat=True).first()
    if oldest is None or oldest + timedelta(minutes=pace.digest_minutes) > now or pace.is_quiet(now) or _has_enough(pace, now):
        return False
    if not _taken(pace):
        return False
    chosen = list(_waiting(pace).select_related("review").order_by("-review__risk", "at")[:MOST])
    try:
        _send(pace, chosen)
    except (TryLater, GiveUp, AskHuman, outside.NoSuchChannel) as error:
        _failed(pace, str(error))
        return False
    _sent(pace, chosen)
    return True


def _recipient(pace: Pace) -> Q:
    return Q(user=pace.user) if isinstance(pace, NoticeSettings) else Q(channel=pace)


def _waiting(pace: Pace) -> "QuerySet[Notice]":
    return Notice.objects.filter(_recipient(pace), delivery=Delivery.WAITS)


def _drop_closed(pace: Pace) -> None:
    """What was decided meanwhile, what somebody else is at by now, and what was switched off, needs no message."""
    waiting = _waiting(pace)
    if not _is_on(pace):
        waiting.update(delivery=Delivery.DROPPED)
        return
    held = Q(review__claim__until__gt=Now())
    if isinstance(pace, NoticeSettings):
        held &= ~Q(review__claim__reviewer=pace.user) & ~Q(kind=Notice.Kind.TAKEN_OVER)
    closed = waiting.filter(~Q(review__state="open") | held)
    waiting.filter(pk__in=closed.values("pk")).update(delivery=Delivery.DROPPED)


def _is_on(pace: Pace) -> bool:
    if isinstance(pace, NoticeSettings):
        return pace.mail and pace.user.is_active
    return isinstance(pace, Channel) and pace.enabled


def _has_enough(pace: Pace, now: datetime) -> bool:
    """As many messages in this hour as the recipient wants."""
    sent = Notice.objects.filter(_recipient(pace), delivery=Delivery.SENT, sent_at__gt=now - timedelta(hours=1))
    return sent.values("sent_at").distinct().count() >= pace.hourly_cap


def _taken(pace: Pace) -> bool:
    free = Q(sending_until=None) | Q(sending_until__lte=Now())
    may_try = Q(retry_at=None) | Q(retry_at__lte=Now())
    return bool(type(pace)._default_manager.filter(free, may_try, pk=pace.pk).update(sending_until=Now() + SENDING_FOR))


def _send(pace: Pace, chosen: list[Notice]) -> None:
    subject, text = digest.subject(chosen), digest.text(chosen, pace)
    if isinstance(pace, Channel):
        outside.post(pace.url, subject, text)
    elif isinstance(pace, NoticeSettings):
        if not pace.user.email:
            raise GiveUp("Your account has no mail address. Ask an admin to add it.")
        outside.send_mail(pace.user.email, subject, text)


def _sent(pace: Pace, chosen: list[Notice]) -> None:
    at = timezone.now()
    Notice.objects.filter(pk__in=[one.pk for one in chosen]).update(delivery=Delivery.SENT, sent_at=at)
    _note(pace, sending_until=None, retry_at=None, failures=0, last_error="", last_sent_at=at)


def _failed(pace: Pace, error: str) -> None:
    """It is tried again after a pause that doubles; meanwhile the error is shown where the recipient is set up."""
    pause = min(FIRST_PAUSE * 2 ** min(pace.failures, 20), LONGEST_PAUSE)
    logger.warning("notices_not_sent", to=str(pace), error=error)
    _note(pace, sending_until=None, retry_at=timezone.now() + pause, failures=min(pace.failures + 1, 1000), last_error=error)


def _note(pace: Pace, **fields: object) -> None:
    type(pace)._default_manager.filter(pk=pace.pk).update(**fields)


dispatch.OFFERED[JOB] = deliver
