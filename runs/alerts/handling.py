"""What a person does about an alert: take it, put it off."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from runs import live
from runs.models import Alert, AlertEvent, AlertNotice
from runs.requests import Refused

OVER = "This alert has ended meanwhile: there is nothing left to do."
HOURS = (1, 4, 24, 72)
State = Alert.State


def acknowledge(pk: int, *, by: User) -> None:
    """Somebody is at it: they own it from now on. Raises Refused."""
    with transaction.atomic():
        alert = _locked(pk)
        if alert.owner_id == by.pk and alert.state == State.ACKNOWLEDGED:
            raise Refused("You have acknowledged it already.")
        before = f"Taken over from {alert.owner}." if alert.owner and alert.owner_id != by.pk else ""
        state = State.NO_DATA if alert.state == State.NO_DATA else State.ACKNOWLEDGED
        Alert.objects.filter(pk=pk).update(state=state, owner=by, snoozed_until=None)
        AlertEvent.objects.create(alert=alert, kind=AlertEvent.Kind.ACKNOWLEDGED, by=by.get_username(), note=before)
        live.nudge_alerts()


def snooze(pk: int, *, by: User, hours: int) -> None:
    """Nobody is told of it for so long; then once more, where it still holds. Raises Refused."""
    if hours not in HOURS:
        raise Refused(f"Choose for how many hours: {', '.join(map(str, HOURS))}.")
    with transaction.atomic():
        alert = _locked(pk)
        Alert.objects.filter(pk=pk).update(state=State.SNOOZED, snoozed_until=Now() + timedelta(hours=hours))
        alert.notices.filter(delivery=AlertNotice.Delivery.WAITS).update(delivery=AlertNotice.Delivery.DROPPED)
        note = f"For {hours} hour{'s' * (hours != 1)}."
        AlertEvent.objects.create(alert=alert, kind=AlertEvent.Kind.SNOOZED, by=by.get_username(), note=note)
        live.nudge_alerts()


def _locked(pk: int) -> Alert:
    alert = Alert.objects.select_for_update(of=("self",)).select_related("owner").get(pk=pk)
    if not alert.is_open:
        raise Refused(OVER)
    return alert
