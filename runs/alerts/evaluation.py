"""One round a minute, by whichever process comes first: reads, judges each rule, opens alerts and ends them."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from runs import clock, live
from runs.alerts import acts, audits, evidence, readings, rules
from runs.alerts.measures import MEASURES, subject_title
from runs.engine import anomaly
from runs.engine.anomaly import Next, Outcome, Verdict
from runs.models import Alert, AlertChannel, AlertEvent, AlertNotice, AlertRule, Round

logger = structlog.get_logger()
T = TypeVar("T")
BETWEEN_SECONDS = 55.0
WITHOUT_DATA = timedelta(days=1)  # after which an alert ends
OPEN, State = ~Q(state="resolved"), Alert.State
KNOWN = (Outcome.BREACH, Outcome.CALM)
WORST_FIRST = (*KNOWN, Outcome.OUTSIDE, Outcome.UNJUDGED)
FAILED = "failed"  # what a rule came to that could not be judged at all

# a conditional change, so that of all processes one makes the round of a minute
TAKE = """
INSERT INTO runs_round (id, begun_at) VALUES (1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET begun_at = excluded.begun_at
WHERE runs_round.begun_at < clock_timestamp() - make_interval(secs => %(seconds)s) RETURNING id
"""


def take_round() -> bool:
    """Whether it is this process that makes the round of this minute."""
    with connection.cursor() as cursor:
        cursor.execute(TAKE, {"seconds": BETWEEN_SECONDS})
        return cursor.fetchone() is not None


def make_round(now: datetime | None = None) -> None:
    """Read and judge. What fails, a part or a rule, is noted and holds nothing else up."""
    now, parts = now or clock.now(), Parts()
    kept = Round.objects.get(pk=1)
    is_new = parts.carry_out("Reading what ended", lambda: readings.read_ended(kept, now))
    parts.carry_out("Verifying what ended", audits.look)
    parts.carry_out("Reading what is there", lambda: readings.read_gauges(now))
    parts.carry_out("Counting what failed", lambda: readings.keep([("failed_parts", "", len(kept.failed))], now))
    outcomes: dict[str, str] = {}
    for rule in AlertRule.objects.filter(enabled=True):
        came_to = kept.outcomes.get(str(rule.pk), "")
        if is_new or rule.measure not in MEASURES or MEASURES[rule.measure].is_gauge:
            came_to = parts.carry_out(f"Rule {rule.pk} ({rule.name})", partial(evaluate, rule, now)) or FAILED
        outcomes[str(rule.pk)] = came_to
    parts.carry_out("Ending what was disabled", _end_disabled)
    parts.carry_out("Ending snoozes", _wake_snoozed)
    if now.minute == 0:
        parts.carry_out("Removing old readings", lambda: readings.prune(now))
    Round.objects.filter(pk=kept.pk).update(ended_at=clock.now(), failed=parts.failed, outcomes=outcomes)


class Parts:
    """Of one round: `failed` names those that could not be carried out."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def carry_out(self, part: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception:  # whatever it is: the next part may be the one that wakes somebody
            logger.exception("alert_round_failed", part=part)
            self.failed.append(part)
            return None


def evaluate(rule: AlertRule, now: datetime) -> str:
    """Each of its subjects, and what they came to; an open alert whose subject is read no more has no data."""
    open_ = {alert.subject: alert for alert in Alert.objects.filter(OPEN, rule=rule)}
    judged = rules.verdicts(rule, now)
    terms = rules.terms_of(rule)
    for subject in judged.keys() | open_.keys():
        found, alert = judged.get(subject, []), open_.get(subject)
        match anomaly.next_of(alert is not None, [one.outcome for one in found], terms):
            case Next.OPEN:
                _open(rule, subject, found)
            case Next.CLOSE if alert:
                end(alert, note=_over(rule, found[-1]))
            case Next.NO_DATA if alert:
                _no_data(alert, now)
            case Next.STAY if alert:
                _still(alert, found)
    last = {found[-1].outcome for found in judged.values() if found}
    return next((one.value for one in WORST_FIRST if one in last), Outcome.MISSING.value)


# --- a condition begins, goes on, ends ------------------------------------------------------------------------------


def _open(rule: AlertRule, subject: str, found: Sequence[Verdict]) -> None:
    verdict = found[-1]
    whose = subject_title(MEASURES[rule.measure], subject)
    title = f"{rules.sentence(rule, verdict)}{f' ({whose})' if whose else ''}"[:300]
    rows = _evidence(rule, subject, found)
    alert = Alert(rule=rule, rule_version=rule.version, subject=subject, title=title, value=verdict.point.value, evidence=rows)
    try:
        with transaction.atomic():
            alert.save()
            _say(alert, AlertEvent.Kind.OPENED, title)
            if acted := acts.act(rule, subject, title):
                acted.alert = alert
                acted.save()
            tell(alert, AlertNotice.Kind.START)
    except IntegrityError as error:
        if "alert_open_once" not in str(error):
            raise
        return  # another round has opened it
    logger.warning("alert_opened", alert=alert.pk, rule=rule.pk, title=title)


def _evidence(rule: AlertRule, subject: str, found: Sequence[Verdict]) -> list[evidence.Row]:
    """Since the first window that was wrong. An alert without its rows is better than none."""
    first = next(one for one in found if one.outcome == Outcome.BREACH).point.at
    try:
        with transaction.atomic():
            return evidence.of(rule, subject, first - rules.terms_of(rule).window, found[-1].point.at)
    except Exception:
        logger.exception("alert_evidence_failed", rule=rule.pk)
        return [evidence.unreadable()]


def _over(rule: AlertRule, verdict: Verdict) -> str:
    measure = MEASURES[rule.measure]
    return f"{measure.title}: {measure.said(verdict.point.value)}"


def _still(alert: Alert, found: Sequence[Verdict]) -> None:
    """Outside office hours nobody knows better than before, and no time goes by after which it would end."""
    changes: dict[str, object] = {"read_at": Now()}
    if (value := found[-1].point.value) is not None:
        changes["value"] = value
    with transaction.atomic():
        Alert.objects.filter(OPEN, pk=alert.pk).update(**changes)
        if all(one.outcome not in KNOWN for one in found):
            return
        back = State.ACKNOWLEDGED if alert.owner_id else State.FIRING
        if Alert.objects.filter(pk=alert.pk, state=State.NO_DATA).update(state=back):
            _say(alert, AlertEvent.Kind.FIRING, "There is data again, and it still holds.")


def _no_data(alert: Alert, now: datetime) -> None:
    if alert.read_at < now - WITHOUT_DATA:
        end(alert, note="Nothing could be judged for a day, so nobody knows whether it is over.", kind=AlertEvent.Kind.CLOSED)
        return
    with transaction.atomic():
        known = (State.FIRING, State.ACKNOWLEDGED)
        if Alert.objects.filter(pk=alert.pk, state__in=known).update(state=State.NO_DATA):
            _say(alert, AlertEvent.Kind.NO_DATA, "Nothing was read that could be judged, so nobody knows whether it is over.")


def end(alert: Alert, *, note: str, kind: AlertEvent.Kind = AlertEvent.Kind.RESOLVED) -> bool:
    """The condition is over, or closed without an answer; False where it had ended already."""
    with transaction.atomic():
        if not Alert.objects.filter(OPEN, pk=alert.pk).update(state=State.RESOLVED, ended_at=Now(), snoozed_until=None):
            return False
        _say(alert, kind, note)
        tell(alert, AlertNotice.Kind.END)
    return True


def _end_disabled() -> None:
    for alert in Alert.objects.filter(OPEN, rule__enabled=False):
        end(alert, note="Its rule was disabled.", kind=AlertEvent.Kind.CLOSED)


def _wake_snoozed() -> None:
    """What has not ended when its snooze is over is told once more."""
    for alert in Alert.objects.filter(state=State.SNOOZED, snoozed_until__lte=Now()).select_related("rule"):
        with transaction.atomic():
            back = State.ACKNOWLEDGED if alert.owner_id else State.FIRING
            if Alert.objects.filter(pk=alert.pk, state=State.SNOOZED).update(state=back, snoozed_until=None):
                _say(alert, AlertEvent.Kind.FIRING, "Its snooze is over, and it has not ended.")
                tell(alert, AlertNotice.Kind.START)


# --- what is written about it ---------------------------------------------------------------------------------------


def _say(alert: Alert, kind: str, note: str) -> None:
    AlertEvent.objects.create(alert=alert, kind=kind, note=note[:300])
    live.nudge_alerts()


def tell(alert: Alert, kind: AlertNotice.Kind) -> None:
    """In each channel of the rule; of an end only where the beginning was said, and a beginning that still waits is not said."""
    if kind == AlertNotice.Kind.START:
        notices: Iterable[AlertNotice] = [AlertNotice(alert=alert, channel=one, kind=kind) for one in _channels(alert.rule)]
    else:
        waiting = alert.notices.filter(delivery=AlertNotice.Delivery.WAITS)
        waiting.update(delivery=AlertNotice.Delivery.DROPPED)
        told = alert.notices.filter(kind=AlertNotice.Kind.START, delivery=AlertNotice.Delivery.SENT)
        ids = told.values_list("channel", flat=True).distinct()
        notices = [AlertNotice(alert=alert, channel_id=one, kind=kind) for one in ids]
    AlertNotice.objects.bulk_create(notices)


def _channels(rule: AlertRule) -> Iterable[AlertChannel]:
    """Those of the rule; where none of them is left and enabled, every one: an alert is not kept from everybody."""
    enabled = AlertChannel.objects.filter(enabled=True)
    return enabled.filter(pk__in=rule.channels) or enabled
