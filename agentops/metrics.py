"""/metrics for Prometheus: what PostgreSQL and Redis say at the moment of the scrape, so that no process counts for itself."""

import hmac
from collections.abc import Iterator
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agentops import health
from runs import sdk
from runs.alerts.measures import MEASURES
from runs.models.run import OPEN

logger = structlog.get_logger()
OFF = "Metrics are off: METRICS_TOKEN is not set (docs/operations.md)."
# each from an index, and small however much history there is
RUNS_OPEN = "SELECT status, count(*) FROM runs_run WHERE status = ANY(%s) GROUP BY status"
WAITING = "SELECT waiting_cause, count(*) FROM runs_run WHERE status = 'waiting' GROUP BY 1"
REVIEWS_OPEN = "SELECT cause, count(*) FROM reviews_review WHERE state = 'open' GROUP BY 1"
ALERTS_OPEN = """
SELECT coalesce(rule.built_in, 'rule-' || rule.id), count(*) FROM runs_alert AS alert
JOIN runs_alertrule AS rule ON rule.id = alert.rule_id WHERE alert.state <> 'resolved' GROUP BY 1
"""
# what the monitoring has read last: of each measure and subject one row
LATEST = """
SELECT wanted.measure, wanted.subject, last.value
FROM unnest(%(measures)s::text[], %(subjects)s::text[]) AS wanted(measure, subject),
  LATERAL (SELECT value FROM runs_reading WHERE measure = wanted.measure AND subject = wanted.subject
    AND at > now() - interval '15 minutes' ORDER BY at DESC LIMIT 1) AS last
"""
BREAKERS = "SELECT name FROM runs_dependency ORDER BY name LIMIT 500"


@require_GET
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """For whoever has the token; 404 while none is set."""
    if not settings.METRICS_TOKEN:
        return HttpResponseNotFound(OFF, content_type="text/plain")
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {settings.METRICS_TOKEN}".encode()):
        told = "Send the header Authorization: Bearer and the token of METRICS_TOKEN."
        return HttpResponse(told, status=401, content_type="text/plain", headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    registry = CollectorRegistry()
    registry.register(Scrape())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Scrape(Collector):
    """One look. What cannot be read is left out and named; while the database is away only the readiness is said."""

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing is asked when it is registered."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = {name: health.said(check) == "ok" for name, check in health.CHECKS.items()}
        yield _family("agentops_ready", "1 where the part that runs need works", "part", ready)
        if ready["database"]:
            failed = dict.fromkeys(PARTS, 0)
            for name, part in PARTS.items():
                try:
                    yield from list(part())
                except DatabaseError as error:
                    logger.warning("metrics_not_read", part=name, error=str(error))
                    failed[name] = 1
            yield _family("agentops_scrape_failed", "1 where what belongs to the part could not be read", "part", failed)


def _of_runs() -> Iterator[GaugeMetricFamily]:
    runs: dict[str, Any] = dict.fromkeys(map(str, OPEN), 0) | dict(_asked(RUNS_OPEN, [list(OPEN)]))
    yield _family("agentops_runs_open", "Runs that have not ended", "status", runs)
    yield _family("agentops_runs_waiting", "Runs that wait, by cause", "cause", dict(_asked(WAITING)))


def _of_reviews() -> Iterator[GaugeMetricFamily]:
    yield _family("agentops_reviews_open", "Reviews that wait for a person", "cause", dict(_asked(REVIEWS_OPEN)))


def _of_alerts() -> Iterator[GaugeMetricFamily]:
    yield _family("agentops_alerts_open", "Alerts that have not ended", "rule", dict(_asked(ALERTS_OPEN)))


def _of_readings() -> Iterator[GaugeMetricFamily]:
    """Subjects are the agents of the code and the dependencies: what strangers write becomes no label."""
    subjects = {"": [""], "agent": ["", *sorted(sdk.AGENTS)], "dependency": [name for (name,) in _asked(BREAKERS)]}
    by_reading = [one for one in MEASURES.values() if one.name != "reviews_open"]  # which is said by cause
    wanted = [(one.name, subject) for one in by_reading for subject in subjects[one.of]]
    values = {"measures": [measure for measure, _ in wanted], "subjects": [subject for _, subject in wanted]}
    found: dict[str, dict[str, Any]] = {}
    for measure, subject, value in _asked(LATEST, values):
        found.setdefault(measure, {})[subject] = value
    for measure, by_subject in found.items():
        known = MEASURES[measure]
        window = "now" if known.is_gauge else "in the last five minutes that are over"
        yield _family(f"agentops_{measure}", f"{known.title}, {window}", known.of, by_subject)


PARTS = {"runs": _of_runs, "reviews": _of_reviews, "alerts": _of_alerts, "readings": _of_readings}


def _family(name: str, help_text: str, label: str, values: dict[str, Any]) -> GaugeMetricFamily:
    """Of everything together the label is empty."""
    family = GaugeMetricFamily(name, help_text, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], float(value))
    return family


def _asked(statement: str, values: Any = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        found: list[Any] = cursor.fetchall()
        return found
