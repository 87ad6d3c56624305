"""/metrics says what Prometheus wants to know, to whoever has the token."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from runs import commands
from runs.alerts import readings, rules
from runs.models import Alert, AlertRule, Dependency, Reading
from tests.processes import away

TOKEN = "a-long-token"


def scraped() -> dict[tuple[str, ...], float]:
    """(name, label) -> value, read by Prometheus's own parser."""
    answer = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (200, "text/plain")
    names = [line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    samples = [sample for family in text_string_to_metric_families(answer.content.decode()) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.mark.django_db
def test_without_a_token_there_is_nothing_and_with_a_wrong_one_no_entry(settings: Settings) -> None:
    assert Client().get("/metrics").status_code == 404
    settings.METRICS_TOKEN = TOKEN
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer ä"}):
        answer = Client().get("/metrics", headers=headers)
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
        assert "agentops_" not in answer.text


@pytest.mark.django_db
def test_a_scrape_reads_postgres_and_redis_with_few_labels(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    run = commands.start("counting", {"text": "hello", "number": 3}, by="operator")
    rules.ensure_built_in()
    Alert.objects.create(rule=AlertRule.objects.get(built_in="breaker"), rule_version=1, subject="shop", title="x")
    Dependency.objects.create(name="shop")
    now = readings.floor(timezone.now(), timedelta(minutes=5))
    for subject, measure, value in (
        ("counting", "failure_rate", 0.25), ("nobody-knows", "failure_rate", 1), ("", "queue", 7), ("shop", "breaker_open", 1),
        ("", "reviews_open", 3),
    ):  # fmt: skip
        Reading.objects.create(measure=measure, subject=subject, at=now, value=value)
    found = scraped()
    assert run.status == "queued"
    assert found["agentops_runs_open", "queued"] == 1
    assert found["agentops_ready", "database"] == 1
    assert found["agentops_ready", "job_processes"] == 0
    assert found["agentops_alerts_open", "breaker"] == 1
    assert found["agentops_failure_rate", "counting"] == 0.25
    assert ("agentops_failure_rate", "nobody-knows") not in found, "what is not in the code is no label"
    assert (found["agentops_queue",], found["agentops_breaker_open", "shop"]) == (7, 1)
    assert (found["agentops_ready", "monitoring"], found["agentops_scrape_failed", "runs"]) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_read_is_named_and_takes_nothing_else_with_it(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_alert RENAME TO runs_alert_elsewhere")
    try:
        found = scraped()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE runs_alert_elsewhere RENAME TO runs_alert")
    assert [found["agentops_scrape_failed", part] for part in ("runs", "reviews", "alerts", "readings")] == [0, 0, 1, 0]
    assert found["agentops_runs_open", "queued"] == 0


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_a_scrape_says_so(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    back = away()
    try:
        found = scraped()
    finally:
        back()
        connection.close()
    assert found["agentops_ready", "database"] == 0
    assert ("agentops_runs_open", "queued") not in found
