"""What a rule does by itself, the round of a minute that one process makes, and what becomes of it when a part fails."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections, transaction
from structlog.testing import capture_logs

from runs import dispatch
from runs.alerts import evaluation, evidence, rules
from runs.models import AgentConfig, Alert, AlertChannel, AlertRule, BreakerChange, Dependency, Round
from runs.reliability import breaker
from tests.shop import set_terms
from tests.watching import MINUTE, NOW, history, judged, read, rule

pytestmark = pytest.mark.django_db


def test_a_rule_pauses_an_agent_and_its_version_names_the_rule() -> None:
    given = rule(measure="failure_rate", subject="*", limit=0.5, breaches=1, of=1, window_minutes=5, act="pause_agent")
    alert = judged(given, 0.9, measure="failure_rate", subject="counting", every=timedelta(minutes=5), count=20)
    assert alert is not None
    config = AgentConfig.objects.get(slug="counting")
    assert (config.enabled, config.changed_by) == (False, f"alert rule {given.pk} (The queue is long)")
    acted = alert.events.get(kind="acted")
    assert (acted.by, acted.note) == (given.actor, "counting is disabled: it starts no new runs until somebody enables it.")


def test_a_rule_lowers_a_limit_or_opens_a_breaker_or_says_why_not() -> None:
    set_terms(limit_requests=50)
    judged(rule(act="lower_limit", act_on="shop", act_limit=5), 11, 11, 11)
    row = Dependency.objects.get(name="shop")
    assert (row.limit_requests, row.changed_by.startswith("alert rule ")) == (5, True)
    opening = rule(name="b", act="open_breaker", act_on="shop")
    judged(opening, 11, 11, 11)
    change = row.changes.get()
    assert (change.new, change.by, change.why) == ("open", opening.actor, "Jobs on the queue: 11, over the limit of 10")
    again = judged(rule(name="c", act="open_breaker", act_on="shop"), 11, 11, 11)
    assert again is not None
    assert again.events.get(kind="not_acted").note == "shop: The breaker of shop is open already."
    gone = judged(rule(name="d", act="lower_limit", act_on="nobody", act_limit=5), 11, 11, 11)
    assert gone is not None
    assert "nobody" in gone.events.get(kind="not_acted").note


def test_what_fails_besides_keeps_no_alert_from_being_opened() -> None:
    """An act that nobody knows, and a dependency whose page has no address."""
    given = rule(measure="breaker_open", subject="*", limit=0, breaches=1, of=1)
    AlertRule.objects.filter(pk=given.pk).update(act="dance")
    given.refresh_from_db()
    alert = judged(given, 1, measure="breaker_open", subject="a name with spaces")
    assert alert is not None
    assert ([row["text"] for row in alert.evidence], history(alert)) == ([evidence.NOT_READ], ["opened", "not_acted"])
    assert "nobody expected" in alert.events.get(kind="not_acted").note


def test_where_no_channel_of_its_rule_is_left_every_other_hears_of_it() -> None:
    off, gone, other = (AlertChannel.objects.create(name=name, enabled=name != "off") for name in ("off", "gone", "other"))
    given = rule(channels=[off.pk, gone.pk], breaches=1, of=1)
    gone.delete()
    alert = judged(given, 99)
    assert alert is not None
    assert [notice.channel for notice in alert.notices.all()] == [other]


@pytest.mark.django_db(transaction=True)
def test_a_breaker_opens_when_others_can_see_which_alert_opened_it_and_not_before() -> None:
    set_terms()
    given = rule(act="open_breaker", act_on="shop")
    read([11, 11, 11])

    def seen_by_others() -> tuple[str, int, int]:
        return breaker.look("shop").state, BreakerChange.objects.count(), Alert.objects.count()

    with transaction.atomic():  # as if the process ended before its commit
        evaluation.evaluate(given, NOW)
        transaction.set_rollback(True)
    assert alone(seen_by_others) == ("closed", 0, 0)
    with transaction.atomic():
        evaluation.evaluate(given, NOW)
        assert alone(seen_by_others) == ("closed", 0, 0)
    assert alone(seen_by_others) == ("open", 1, 1)


def alone(call: Callable[[], Any]) -> Any:
    """What it comes to on a connection of its own."""

    def act() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(act).result()


@pytest.mark.django_db(transaction=True)
def test_two_rounds_at_the_same_moment_open_one_alert_act_once_and_end_it_once() -> None:
    AlertChannel.objects.create(name="night", url="json://x")
    set_terms(limit_requests=50)
    given = rule(act="lower_limit", act_on="shop", act_limit=5)
    read([11, 11, 11])
    assert sorted(together(evaluation.take_round)) == [False, True]
    together(lambda: evaluation.evaluate(given, NOW))
    alert = Alert.objects.get()
    assert (history(alert), alert.notices.count()) == (["opened", "acted"], 1)
    read([1, 1, 1])
    together(lambda: evaluation.evaluate(given, NOW))
    assert history(alert) == ["opened", "acted", "resolved"]


def together(call: Callable[[], Any]) -> list[Any]:
    """What each of two threads came to that began at the same moment."""
    barrier = threading.Barrier(2)

    def act(_: int) -> Any:
        try:
            barrier.wait()
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(act, range(2)))


def test_a_rule_that_cannot_be_judged_holds_up_no_other() -> None:
    broken = rule()
    AlertRule.objects.filter(pk=broken.pk).update(measure="taken out by an upgrade")
    rules.ensure_built_in()
    Round.objects.create(pk=1, begun_at=NOW)
    for minute in range(3):
        evaluation.make_round(NOW + minute * MINUTE)
    kept, failed = Round.objects.get(), f"Rule {broken.pk} (The queue is long)"
    assert (kept.failed, kept.outcomes[str(broken.pk)]) == ([failed], "failed")
    assert kept.ended_at is not None
    found = {alert.rule.built_in: alert for alert in Alert.objects.select_related("rule")}
    assert set(found) == {"job-processes", "sweeper", "monitoring"}, "it is heard of as anything else is"
    assert found["monitoring"].evidence == [{"text": failed, "url": "/alerts/rules/"}]
    assert {kept.outcomes[str(alert.rule_id)] for alert in found.values()} == {"breach"}


def test_while_redis_is_away_it_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    rules.ensure_built_in()
    Round.objects.create(pk=1, begun_at=NOW)
    dispatch.say_not_read.cache_clear()
    with monkeypatch.context() as away:
        away.setitem(settings.RQ_QUEUES["default"], "URL", "redis://127.0.0.1:1/0")
        with capture_logs() as logs:
            evaluation.make_round(NOW)
        assert "Connection refused" in next(one["error"] for one in logs if one["event"] == "queue_not_read"), "why is not lost"
        with capture_logs() as logs:
            evaluation.make_round(NOW + MINUTE)
        assert [one for one in logs if one["event"] == "queue_not_read"] == [], "nor said again on every look"
        (alert,) = Alert.objects.all()
        assert alert.title == "Redis answers: no"
    for minute in (2, 3, 4):
        evaluation.make_round(NOW + minute * MINUTE)
    alert.refresh_from_db()
    assert alert.state == "resolved"


def test_one_process_makes_the_round_of_a_minute_and_a_round_costs_few_questions(django_assert_max_num_queries: Any) -> None:
    assert (evaluation.take_round(), evaluation.take_round()) == (True, False)
    rules.ensure_built_in()
    evaluation.make_round(NOW)
    with django_assert_max_num_queries(60):
        evaluation.make_round(NOW + MINUTE)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_round SET begun_at = begun_at - interval '1 minute'")
    assert evaluation.take_round() is True
    assert set(Alert.objects.values_list("rule__built_in", flat=True)) == {"job-processes", "sweeper"}
