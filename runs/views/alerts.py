"""The pages of alerts and of their rules, with what a person does about them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, sdk
from runs.alerts import chart, delivery, evaluation, evidence, handling, rules
from runs.alerts.forms import FIELDS, RuleForm
from runs.alerts.measures import MEASURES, subject_title
from runs.models import Alert, AlertChannel, AlertEvent, AlertNotice, AlertRule, Round, versions
from runs.requests import Refused
from runs.templatetags.shown import Look
from runs.views import keyset

ENDED_SHOWN = 30
VERSIONS_SHOWN = 12
AROUND = timedelta(hours=24)
LOOKS = {
    "firing": Look("Firing", "siren", "red"),
    "acknowledged": Look("Acknowledged", "user-check", "amber"),
    "snoozed": Look("Snoozed", "alarm-clock-off", "neutral"),
    "no_data": Look("No data", "circle-question-mark", "neutral"),
    "resolved": Look("Ended", "circle-check", "green"),
}
CLOSED = Look("Closed", "circle-question-mark", "neutral")  # without an answer: nobody knows
NOT_JUDGED = Look("Not judged yet", "circle-dashed", "neutral")
CAME_TO = {  # of a rule without an open alert, when it was last judged
    "calm": Look("Calm", "circle-check", "green"),
    "breach": Look("Breach", "triangle-alert", "amber"),
    "outside": Look("Outside its hours", "moon", "neutral"),
    "unjudged": Look("Too little to judge", "circle-question-mark", "neutral"),
    "missing": Look("No data", "circle-question-mark", "neutral"),
    evaluation.FAILED: Look("Cannot be judged", "circle-x", "red"),
}


@require_GET
@access.permits(access.may_look)
def alert_list(request: HttpRequest) -> HttpResponse:
    """Open ones, then those that ended; `?part=now` answers with the tables alone, for the page that is open."""
    open_ = list(Alert.objects.open().select_related("rule", "owner").order_by("-opened_at", "-pk"))
    ended = Alert.objects.filter(state=Alert.State.RESOLVED).select_related("rule", "owner")
    page = keyset.page(ended, ("opened_at", "id"), request.GET, size=ENDED_SHOWN)
    kept = Round.objects.first()
    cursor = {"cursor": request.GET["cursor"]} if "cursor" in request.GET else {}
    shown = {
        "open": with_looks(open_),
        "ended": with_looks(page.rows),
        "page": page,
        "broken": broken_channels(),
        "unwatched": rules.unwatched(kept),
        "failed": kept.failed if kept else [],
        "address": f"{request.path}?{urlencode(cursor | {'part': 'now'})}",
    }
    return render(request, "alerts/_now.html" if request.GET.get("part") == "now" else "alerts/list.html", shown)


def with_looks(alerts: list[Alert]) -> list[tuple[Alert, Look]]:
    """Each with its state by word and shape; of those that ended it is asked which were closed without an answer."""
    ended = [one.pk for one in alerts if not one.is_open]
    closed = set(AlertEvent.objects.filter(alert__in=ended, kind=AlertEvent.Kind.CLOSED).values_list("alert", flat=True))
    return [(one, CLOSED if one.pk in closed else LOOKS[one.state]) for one in alerts]


@require_GET
@never_cache
def alert_count(request: HttpRequest) -> HttpResponse:
    """How many are open, for the navigation of an open page: who is signed out meanwhile gets no form to sign in there."""
    if not access.may_look(request.user):
        raise PermissionDenied
    return render(request, "alerts/_nav_count.html", {"count": Alert.objects.open().count()})


def broken_channels() -> list[AlertChannel]:
    """Enabled ones to which the last message could not be sent."""
    return list(AlertChannel.objects.filter(enabled=True).exclude(last_error=""))


@require_GET
@access.permits(access.may_look)
def alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """`?part=now` answers with what changes by itself, for the page that is open."""
    found = get_object_or_404(Alert.objects.select_related("rule", "owner"), pk=alert_id)
    rule, measure = found.rule, MEASURES.get(found.rule.measure)
    until = found.ended_at or timezone.now()
    judged = rules.judged_then(rule, found.subject, since=until - AROUND, until=until) if measure else []
    shown = {
        "alert": found,
        "look": with_looks([found])[0][1],
        "measure": measure,
        "value": measure.said(found.value) if measure else found.value,
        "has_rows": found.rule.measure in evidence.OF,
        "whose": subject_title(measure, found.subject) if measure else found.subject,
        "events": list(found.events.all()),
        "notices": [(one, _why_it_waits(one)) for one in found.notices.select_related("channel").order_by("pk")],
        "is_installed": not measure or measure.of != "agent" or found.subject in sdk.AGENTS,
        "chart": chart.draw(judged, [(found.opened_at, found.ended_at)]),
        "hours": handling.HOURS,
        "may_handle": access.may_handle_alerts(request.user),
    }
    return render(request, "alerts/_one.html" if request.GET.get("part") == "now" else "alerts/one.html", shown)


def _why_it_waits(notice: AlertNotice) -> str:
    return delivery.why_it_waits(notice.channel) if notice.delivery == AlertNotice.Delivery.WAITS else ""


@require_http_methods(["GET", "POST"])
@access.permits(access.may_handle_alerts)
def acknowledge_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    def act(by: User) -> str:
        handling.acknowledge(alert_id, by=by)
        return "You have acknowledged it: others see that you are at it."

    return _acted(request, alert_id, act)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_handle_alerts)
def snooze_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    said = request.POST.get("hours", "")
    hours = int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 0

    def act(by: User) -> str:
        handling.snooze(alert_id, by=by, hours=hours)
        return f"Nobody is told of it for {hours} hour{'s' * (hours != 1)}; then once more, if it still holds."

    return _acted(request, alert_id, act)


def _acted(request: HttpRequest, alert_id: int, act: Callable[[User], str]) -> HttpResponse:
    get_object_or_404(Alert, pk=alert_id)
    if request.method == "GET":
        messages.info(request, access.ONLY_OPENED)
        return redirect("alert", alert_id)
    assert isinstance(request.user, User)  # noqa: S101 - asked for by permits
    try:
        messages.success(request, act(request.user))
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("alert", alert_id)


# --- rules ------------------------------------------------------------------------------------------------------------


@require_GET
@access.permits(access.may_look)
def alert_rules(request: HttpRequest) -> HttpResponse:
    rows = [(one, MEASURES.get(one.measure)) for one in AlertRule.objects.all()]
    open_, kept = set(Alert.objects.open().values_list("rule", flat=True)), Round.objects.first()
    looks = [_look(rule, open_, kept.outcomes if kept else {}) for rule, _ in rows]
    shown = {
        "rows": [(rule, measure, look) for (rule, measure), look in zip(rows, looks, strict=True)],
        "channels": list(AlertChannel.objects.all()),
        "failed": kept.failed if kept else [],
        "may_rule": access.may_change_rules(request.user),
    }
    return render(request, "alerts/rules.html", shown)


def _look(rule: AlertRule, open_: set[int], outcomes: dict[str, str]) -> Look:
    if not rule.enabled:
        return Look("Disabled", "ban", "neutral")
    return Look("Alert", "siren", "red") if rule.pk in open_ else CAME_TO.get(outcomes.get(str(rule.pk), ""), NOT_JUDGED)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_change_rules)
def alert_rule(request: HttpRequest, rule_id: int) -> HttpResponse:
    """Its form; "preview" tries what is in the form on the last week, and saves nothing."""
    return _rule(request, get_object_or_404(AlertRule, pk=rule_id))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_change_rules)
def new_alert_rule(request: HttpRequest) -> HttpResponse:
    return _rule(request, AlertRule())


def _rule(request: HttpRequest, row: AlertRule) -> HttpResponse:
    version, is_preview = row.version, "preview" in request.POST
    form = RuleForm(request.POST or None, instance=row)
    is_valid = form.is_valid() if form.is_bound else True
    if form.is_bound and is_valid and not is_preview:
        saved = form.saved(by=request.user.get_username())
        changed = row.pk is None or saved.version != version
        said = (
            f"Version {saved.version} of the rule is in force."
            if changed
            else f"Nothing was changed: version {version} stays in force."
        )
        messages.success(request, said)
        return redirect("alert_rule", saved.pk)
    tried = _tried(row) if is_valid and is_preview else []
    shown: dict[str, Any] = {
        "rule": row,
        "form": form,
        "tried": tried,
        "says": rules.preview_sentence([one for one, _, _ in tried], row) if is_valid and is_preview else "",
        "is_preview": is_preview,
        "measure": MEASURES.get(row.measure),
        "versions": _versions(row) if row.pk else [],
    }
    return render(request, "alerts/rule.html", shown, status=200 if is_valid else 422)


def _tried(row: AlertRule) -> list[Any]:
    """What would have come of each subject in the last week, with its title and a chart."""
    measure = MEASURES[row.measure]
    found = rules.preview(row, timezone.now())
    return [(one, subject_title(measure, one.subject), chart.draw(one.verdicts, one.openings)) for one in found]


def _versions(row: AlertRule) -> list[Any]:
    found = versions.versions(row, most=VERSIONS_SHOWN)
    return [(one, list(versions.changes(one, FIELDS))) for one in found]
