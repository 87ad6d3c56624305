"""Says in the channels that alerts began and ended: what waits for one channel in one message, not in quiet hours."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, OuterRef
from django.utils import timezone

from runs import dispatch, pacing
from runs.integrations import notices as outside
from runs.models import Alert, AlertChannel, AlertEvent, AlertNotice

JOB = "runs.alerts.delivery.deliver"
MAIL = "mailto:"
MOST = 100  # alerts of one message
Delivery = AlertNotice.Delivery


def waiting() -> bool:
    return AlertNotice.objects.filter(delivery=Delivery.WAITS).exists()


def deliver() -> int:
    """Send what is due now; return how many messages went out. Several processes may do so at once."""
    waits = AlertNotice.objects.filter(delivery=Delivery.WAITS, channel=OuterRef("pk"))
    return sum(_serve(channel) for channel in AlertChannel.objects.filter(Exists(waits)))


def _serve(channel: AlertChannel) -> bool:
    now = timezone.now()
    waits = AlertNotice.objects.filter(delivery=Delivery.WAITS, channel=channel)
    if not channel.enabled:
        waits.update(delivery=Delivery.DROPPED)
        return False
    if channel.is_quiet(now) or _has_enough(channel) or _gave_up(channel, waits.aggregate(newest=Max("at"))["newest"]):
        return False
    if not pacing.taken(channel, dependency=outside.MAIL if channel.url.startswith(MAIL) else outside.CHANNELS):
        return False
    chosen = list(waits.select_related("alert__rule").order_by("at", "pk")[:MOST])  # what nobody else sends any more
    if not chosen:
        pacing.given_back(channel)
        return False
    try:
        _send(channel, subject(chosen), text(chosen, channel))
    except pacing.NOT_SENT as error:
        pacing.failed(channel, error)
        return False
    at = timezone.now()
    _note(chosen, at)
    pacing.sent(channel, last_sent_at=at)
    return True


@transaction.atomic
def _note(chosen: list[AlertNotice], at: datetime) -> None:
    """They are sent. Of an alert that ended meanwhile the end is to be said too: its beginning was thought not to have been."""
    sent = AlertNotice.objects.filter(pk__in=[one.pk for one in chosen])
    dropped = list(sent.select_for_update().filter(kind=AlertNotice.Kind.START, delivery=Delivery.DROPPED))
    sent.update(delivery=Delivery.SENT, sent_at=at)
    ends = [AlertNotice(alert=one.alert, channel=one.channel, kind=AlertNotice.Kind.END) for one in dropped]
    AlertNotice.objects.bulk_create(ends)


def _has_enough(channel: AlertChannel) -> bool:
    """As many messages in this hour as it may have: what is beyond comes together in the next."""
    since = timezone.now() - timedelta(hours=1)
    sent = AlertNotice.objects.filter(channel=channel, delivery=Delivery.SENT, sent_at__gt=since)
    return sent.values("sent_at").distinct().count() >= channel.hourly_cap


def why_it_waits(channel: AlertChannel) -> str:
    """For the page, of what is not sent yet; "" where it is sent next."""
    if channel.last_error:
        return channel.last_error
    if channel.is_quiet(timezone.now()):
        return f"quiet hours until {channel.quiet_until:%H:%M} ({channel.zone})"
    return f"not more than {channel.hourly_cap} in an hour" if _has_enough(channel) else ""


def _gave_up(channel: AlertChannel, newest: datetime | None) -> bool:
    """What was given up is tried again together with what has come since."""
    return channel.gave_up_at is not None and (newest is None or newest <= channel.gave_up_at)


def _send(channel: AlertChannel, subject: str, text: str) -> None:
    if channel.url.startswith(MAIL):
        outside.send_mail(channel.url.removeprefix(MAIL), subject, text)
    else:
        outside.post(channel.url, subject, text)


# --- what is said -----------------------------------------------------------------------------------------------------


def subject(notices: list[AlertNotice]) -> str:
    if len(notices) == 1:
        one = notices[0]
        return f"{'Alert' if one.kind == AlertNotice.Kind.START else _how(_last(one.alert))}: {one.alert.rule.name}"
    started = sum(one.kind == AlertNotice.Kind.START for one in notices)
    parts = [
        f"{started} alert{'s' * (started != 1)}" * bool(started),
        f"{len(notices) - started} ended" * (len(notices) > started),
    ]
    return ", ".join(filter(None, parts))


def text(notices: list[AlertNotice], channel: AlertChannel) -> str:
    """What is wrong, since when, how bad, and where to go."""
    return "\n\n".join(_paragraph(one, channel) for one in notices)


def _paragraph(notice: AlertNotice, channel: AlertChannel) -> str:
    alert, said, why = notice.alert, "", ""
    when = f"Since {channel.local(alert.opened_at):%Y-%m-%d %H:%M} ({channel.zone})"
    if notice.kind == AlertNotice.Kind.END and alert.ended_at:
        last = _last(alert)
        said, why = f"{_how(last)}: ", f"\n{last.note}" if last and last.note else ""
        when = f"{when}, until {channel.local(alert.ended_at):%Y-%m-%d %H:%M}"
    link = f"{settings.PUBLIC_URL.rstrip('/')}{alert.get_absolute_url()}"
    return f"{said}{alert.rule.name}\n{alert.title}\n{when}.{why}\n{link}"


def _last(alert: Alert) -> AlertEvent | None:
    """How it ended."""
    return alert.events.filter(kind__in=[AlertEvent.Kind.RESOLVED, AlertEvent.Kind.CLOSED]).last()


def _how(last: AlertEvent | None) -> str:
    """Nobody hears that it is over where nobody knows."""
    return last.get_kind_display() if last else "Ended"


dispatch.OFFERED[JOB] = deliver
