"""The rows that caused an alert: text and address of each."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import connection
from django.urls import reverse

from runs.models import AlertRule, BrokenLog, Pruning, Round, Run, RunStatus
from runs.templatetags.shown import duration

MOST = 8
Row = dict[str, str]
NOT_READ = "The rows could not be read: the log of the sweeper or of a job process says why (alert_evidence_failed)"


def of(rule: AlertRule, subject: str, since: datetime, until: datetime) -> list[Row]:
    """Some of them, the worst or newest first."""
    found = OF.get(rule.measure)
    return found(subject, since, until) if found else []


def _ended(subject: str, since: datetime, until: datetime) -> list[Row]:
    """Where none has: those that were begun last, which say what became of them instead."""
    runs = Run.objects.filter(agent=subject) if subject else Run.objects.all()
    ended = runs.filter(finished_at__gte=since, finished_at__lt=until).exclude(status=RunStatus.CANCELLED)
    found = ended.order_by("-finished_at")[:MOST] or runs.order_by("-created_at", "-id")[:MOST]
    return [_linked("run", run.pk, f"Run {run.pk}: {run.get_status_display()}") for run in found]


def _failed(subject: str, since: datetime, until: datetime) -> list[Row]:
    runs = Run.objects.filter(finished_at__gte=since, finished_at__lt=until, status=RunStatus.FAILED)
    found = (runs.filter(agent=subject) if subject else runs).order_by("-finished_at")[:MOST]
    said = [(run, str((run.error or {}).get("message", "failed"))[:160]) for run in found]
    return [_linked("run", run.pk, f"Run {run.pk}: {why}") for run, why in said]


# by the index of `finished_at`, which is what a window is small by; that of how long runs took would be walked for weeks
TOOK = """
WITH ended AS MATERIALIZED (
  SELECT id, extract(epoch FROM finished_at - created_at)::float AS seconds FROM runs_run
  WHERE finished_at >= %(since)s AND finished_at < %(until)s AND %(agent)s IN ('', agent) AND status <> 'cancelled')
SELECT id, seconds FROM ended ORDER BY seconds DESC, id DESC LIMIT %(most)s
"""


def _slow(subject: str, since: datetime, until: datetime) -> list[Row]:
    values = {"agent": subject, "since": since, "until": until, "most": MOST}
    return [_linked("run", run, f"Run {run}: took {duration(1000 * seconds)}") for run, seconds in _asked(TOOK, values)]


SPENT = """
SELECT run.id, budget.used::float FROM runs_run AS run JOIN runs_budget AS budget ON budget.scope = 'run:' || run.id
WHERE budget.unit = %(unit)s AND run.finished_at >= %(since)s AND run.finished_at < %(until)s AND %(agent)s IN ('', run.agent)
  AND run.status <> 'cancelled'
ORDER BY budget.used DESC LIMIT %(most)s
"""


def _spent(unit: str) -> Callable[..., list[Row]]:
    def rows(subject: str, since: datetime, until: datetime) -> list[Row]:
        values = {"unit": unit, "agent": subject, "since": since, "until": until, "most": MOST}
        return [_linked("run", run, f"Run {run}: {used:,.4g} {unit}") for run, used in _asked(SPENT, values)]

    return rows


ASKED = """
SELECT run.id, count(*) FROM runs_run AS run JOIN runs_step AS step ON step.run_id = run.id
WHERE run.finished_at >= %(since)s AND run.finished_at < %(until)s AND %(agent)s IN ('', run.agent)
  AND run.status <> 'cancelled' AND CASE %(why)s WHEN 'asked a person' THEN step.cause NOT IN ('', 'sample')
    WHEN 'was corrected' THEN step.decision IN ('edit', 'take_over', 'reject') ELSE step.confidence < step.threshold END
GROUP BY run.id ORDER BY count(*) DESC, run.id DESC LIMIT %(most)s
"""


def _asking(why: str) -> Callable[..., list[Row]]:
    def rows(subject: str, since: datetime, until: datetime) -> list[Row]:
        values = {"why": why, "agent": subject, "since": since, "until": until, "most": MOST}
        found = _asked(ASKED, values)
        return [_linked("run", run, f"Run {run}: {why} {count} time{'s' * (count != 1)}") for run, count in found]

    return rows


# what a review is about is not said here: who may see alerts may not see every review
REVIEWS = "SELECT id, run_id FROM reviews_review WHERE state = 'open' ORDER BY {} NULLS LAST, id LIMIT %(most)s"
QUARANTINED = """
SELECT id, run_id FROM reviews_review AS review WHERE state = 'open' AND cause = 'failed' AND EXISTS (
  SELECT FROM runs_event AS event WHERE event.run_id = review.run_id AND event.step = review.position
    AND event.kind = 'AttemptCrashed') ORDER BY id DESC LIMIT %(most)s
"""


def _reviews(statement: str) -> Callable[..., list[Row]]:
    def rows(*_: Any) -> list[Row]:
        return [_linked("review", review, f"Review {review}, of run {run}") for review, run in _asked(statement, {"most": MOST})]

    return rows


def _broken(*_: Any) -> list[Row]:
    found = BrokenLog.objects.order_by("-found_at")[:MOST]
    prunings = Pruning.objects.exclude(wrong="").order_by("-pk").values_list("wrong", flat=True)[:MOST]
    tombstones = [{"text": wrong[:160], "url": reverse("runs")} for wrong in prunings]
    return tombstones + [_linked("run", one.run_id, f"Run {one.run_id}: {one.wrong[:160]}") for one in found]


def _nights(*_: Any) -> list[Row]:
    last = Pruning.objects.exclude(night=None).order_by("-night").first()
    if last and not last.ended_at:
        said = f"That of {last.night} did not end: the log of the sweeper or of a job process says why (not_pruned)"
    else:
        said = f"The last one is of {last.night if last else 'no night'}: no sweeper was there in the hour of the next"
    return [{"text": said, "url": reverse("dashboard")}]


def _dependency(subject: str, *_: Any) -> list[Row]:
    return [_linked("dependency", subject, f"Dependency {subject}")]


def _dashboard(*_: Any) -> list[Row]:
    return [{"text": "Machinery, on the dashboard", "url": reverse("dashboard")}]


def _parts_that_failed(*_: Any) -> list[Row]:
    failed = Round.objects.values_list("failed", flat=True).first() or []
    return [{"text": part, "url": reverse("alert_rules")} for part in failed[:MOST]]


def unreadable() -> Row:
    """Instead of rows, where asking for them failed."""
    return {"text": NOT_READ, "url": reverse("dashboard")}


def _linked(name: str, key: int | str, text: str) -> Row:
    return {"text": text, "url": reverse(name, args=[key])}


def _asked(statement: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        found: list[Any] = cursor.fetchall()
        return found


OF: dict[str, Callable[..., list[Row]]] = {
    "runs_ended": _ended,
    "failure_rate": _failed,
    "duration": _slow,
    "duration_p95": _slow,
    "cost": _spent("money"),
    "tokens": _spent("tokens"),
    "confidence": _asking("was unsure"),
    "escalation_rate": _asking("asked a person"),
    "correction_rate": _asking("was corrected"),
    "reviews_late": _reviews(REVIEWS.format("due_at")),
    "review_age": _reviews(REVIEWS.format("opened_at")),
    "reviews_open": _reviews(REVIEWS.format("opened_at")),
    "quarantined": _reviews(QUARANTINED),
    "broken_logs": _broken,
    "retention_missed": _nights,
    "breaker_open": _dependency,
    "queue": _dashboard,
    "job_processes": _dashboard,
    "sweeper": _dashboard,
    "redis": _dashboard,
    "failed_parts": _parts_that_failed,
}
