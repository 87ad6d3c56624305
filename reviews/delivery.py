"""Sends the notices that wait, by mail and to channels: in digests, and not in quiet hours."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from django.db.models import Exists, Max, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from reviews import digest
from reviews.models import Channel, Notice, NoticeSettings, Pace
from runs import access, dispatch
from runs.engine import outcome
from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.integrations import notices as outside

logger = structlog.get_logger()
JOB = "reviews.delivery.deliver"
MORE_SECONDS = 60.0  # than guard lets a call take: then whoever was sending is taken for dead
MOST = 500  # notices of one message
MOST_ATTEMPTS = 10_000  # of a message, where its dependency names no number: its time ends before
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
    if not _is_due(pace, now) or pace.is_quiet(now) or _has_enough(pace, now) or not _taken(pace):
        return False
    chosen = list(_waiting(pace).select_related("review").order_by("-review__risk", "at")[:MOST])
    try:
        _send(pace, chosen)
    except (TryLater, GiveUp, AskHuman, outside.NoSuchChannel) as error:
        _failed(pace, error)
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


def _taken(pace: Pace) -> bool:
    free = Q(sending_until=None) | Q(sending_until__lte=Now())
    may_try = Q(retry_at=None) | Q(retry_at__lte=Now())
    until = Now() + timedelta(seconds=outside.longest_seconds(_dependency(pace)) + MORE_SECONDS)
    return bool(type(pace)._default_manager.filter(free, may_try, pk=pace.pk).update(sending_until=until))


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
    pace.begin_anew()
    _note(pace, last_sent_at=at)


def _failed(pace: Pace, error: Exception) -> None:
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


def _note(pace: Pace, **fields: object) -> None:
    """How it went; what the recipient has set meanwhile stays."""
    went = {name: getattr(pace, name) for name in ("retry_at", "failures", "failing_since", "gave_up_at", "last_error")}
    type(pace)._default_manager.filter(pk=pace.pk).update(sending_until=None, **went, **fields)


dispatch.OFFERED[JOB] = deliver
