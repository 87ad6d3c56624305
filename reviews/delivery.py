"""Sends the notices that wait, by mail and to channels: in digests, and not in quiet hours."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Exists, Max, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from reviews import digest
from reviews.models import Channel, Notice, NoticeSettings, Pace
from runs import access, dispatch, pacing
from runs.engine.errors import GiveUp
from runs.integrations import notices as outside

JOB = "reviews.delivery.deliver"
MOST = 500  # notices of one message
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
    if not _is_due(pace, now) or pace.is_quiet(now) or _has_enough(pace, now):
        return False
    if not pacing.taken(pace, dependency=_dependency(pace)):
        return False
    chosen = list(_waiting(pace).select_related("review").order_by("-review__risk", "at")[:MOST])
    try:
        _send(pace, chosen)
    except pacing.NOT_SENT as error:
        pacing.failed(pace, error)
        return False
    _sent(pace, chosen)
    return True


def _is_due(pace: Pace, now: datetime) -> bool:
    """What was given up is tried again together with what has come since."""
    oldest, newest = _waiting(pace).aggregate(oldest=Min("at"), newest=Max("at")).values()
    if oldest is None or oldest + timedelta(minutes=pace.digest_minutes) > now:
        return False
    return pace.gave_up_at is None or newest > pace.gave_up_at


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
    """Whoever may not see the inbox any more gets no mail about it, also none that has waited."""
    if isinstance(pace, NoticeSettings):
        return pace.mail and access.may_review(pace.user)
    return isinstance(pace, Channel) and pace.enabled


def _has_enough(pace: Pace, now: datetime) -> bool:
    """As many messages in this hour as the recipient wants."""
    sent = Notice.objects.filter(_recipient(pace), delivery=Delivery.SENT, sent_at__gt=now - timedelta(hours=1))
    return sent.values("sent_at").distinct().count() >= pace.hourly_cap


def _dependency(pace: Pace) -> str:
    return outside.CHANNELS if isinstance(pace, Channel) else outside.MAIL


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
    pacing.sent(pace, last_sent_at=at)


dispatch.OFFERED[JOB] = deliver
