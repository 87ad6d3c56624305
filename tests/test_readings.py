"""What the monitoring reads of runs and of what is there, and the series that are made of it."""

from datetime import timedelta
from typing import Any

import pytest

from reviews.models import Review
from runs.alerts import audits, evaluation, readings, rules, trends
from runs.models import AlertRule, BrokenLog, Reading, Round
from runs.models.event import Event
from tests.reviewing import opened
from tests.watching import NOW, ended, judged, rule

pytestmark = pytest.mark.django_db


def value(measure: str, subject: str = "counting") -> list[tuple[float, int]]:
    found = Reading.objects.filter(measure=measure, subject=subject).order_by("at")
    return list(found.values_list("value", "count"))


def test_what_ended_is_read_by_agent_and_together_and_old_history_is_made_good() -> None:
    kept = Round.objects.create(begun_at=NOW)
    ended(7, seconds=10, confidence=0.8)
    ended(7, "failed", seconds=30, confidence=0.4, cause="failed", decision="reject")
    ended(7, agent="shopping", seconds=50)
    ended(7, "cancelled")
    ended(60 * 20)
    assert readings.read_ended(kept, NOW) is True
    assert not value("runs_ended")[1:], "of the first round the history of half a day"
    assert (value("failure_rate"), value("duration"), value("escalation_rate")) == ([(0.5, 2)], [(10.0, 2)], [(0.5, 2)])
    assert (value("duration_p95"), value("correction_rate")) == ([(30.0, 2)], [(0.5, 2)])
    assert value("confidence") == [(pytest.approx(0.6), 2)]
    assert (value("runs_ended", ""), value("duration", "")) == ([(3.0, 3)], [(30.0, 3)])
    assert readings.read_ended(kept, NOW) is True
    assert value("runs_ended") == [(1.0, 1), (2.0, 2)]
    assert readings.read_ended(kept, NOW) is False, "there is nothing older"
    ended(60 * 10)
    readings.read_anew()
    kept.refresh_from_db()
    assert readings.read_ended(kept, NOW) is True
    assert [count for _, count in value("runs_ended")] == [1, 1, 2], "history was filled in"
    ended(2)
    assert readings.read_ended(kept, NOW + timedelta(minutes=5)) is True
    assert [count for _, count in value("runs_ended")] == [1, 1, 2, 1]


def test_percentiles_of_an_hour_are_of_its_runs_and_not_of_its_parts(django_assert_num_queries: Any) -> None:
    """One after the other, eleven of a second and one of a thousand: the mean of their medians is 84 s."""
    kept = Round.objects.create(begun_at=NOW)
    for place in range(12):
        ended(5 * place + 2, seconds=1000 if place == 8 else 1)
    for ago in (57, 7, 7):
        ended(ago, agent="shopping", seconds=20)
    readings.read_ended(kept, NOW)
    readings.read_ended(kept, NOW)

    def found(measure: str, **wanted: Any) -> dict[str, tuple[float | None, float]]:
        given = AlertRule(measure=measure, kind="threshold", window_minutes=60, of=1, **wanted)
        judged_ = {subject: one.point for subject, (one,) in rules.verdicts(given, NOW).items()}
        return {subject: (point.value, point.count) for subject, point in judged_.items()}

    def about(seconds: float) -> Any:
        return pytest.approx(seconds, rel=0.011)

    assert found("duration", subject="*") == {"counting": (about(1), 12), "shopping": (about(20), 3)}
    assert found("duration") == {"": (about(1), 15)}
    assert found("duration_p95", subject="counting") == {"counting": (about(1000), 12)}
    ended(10, "cancelled", seconds=5000)
    given = rule(measure="duration_p95", subject="counting", limit=100, window_minutes=60, breaches=1, of=1)
    evaluation.evaluate(given, NOW)
    assert given.alerts.get().evidence[0]["text"].endswith(": took 16 min 40 s"), "of those that ended by themselves the slowest"
    with django_assert_num_queries(3):  # the histograms are unpacked once
        shown = trends.read(["duration", "duration_p95"], trends.SPANS["24h"], NOW - timedelta(minutes=1))
    assert [shown.whole("duration", whose) for whose in ("counting", "shopping", "")] == [about(1), about(20), about(1)]
    assert shown.values("duration_p95")[-1] == about(20)
    assert shown.values("duration_p95")[-2] == about(1000)


def test_silence_is_an_alert_in_office_hours_only() -> None:
    Round.objects.create(begun_at=NOW, read_until=readings.floor(NOW, timedelta(minutes=5)), read_since=NOW - timedelta(days=1))
    terms = {"measure": "runs_ended", "kind": "absence", "breaches": 1, "of": 1, "hours_from": "09:00", "hours_until": "17:00"}
    old = [ended(60 * number) for number in (5, 4, 3)]
    alert = judged(rule(**terms), *[])
    assert alert is not None
    assert alert.title == "Runs that ended: none in the last 15 minutes"
    said = [{"text": f"Run {run.pk}: Succeeded", "url": f"/runs/{run.pk}/"} for run in reversed(old)]
    assert alert.evidence == said, "what was begun last"
    assert judged(rule(name="Tokyo", **terms, zone="Asia/Tokyo"), *[]) is None
    assert judged(rule(name="b", **terms), 4, measure="runs_ended", every=timedelta(minutes=5)) is None


def test_too_many_runs_and_too_many_reviews_are_named() -> None:
    Round.objects.create(begun_at=NOW, read_until=NOW, read_since=NOW - timedelta(days=1))
    run, before = ended(3), ended(300)
    given = rule(measure="runs_ended", limit=0, window_minutes=15, breaches=1, of=1)
    alert = judged(given, 1, measure="runs_ended", every=timedelta(minutes=5))
    assert alert is not None
    assert before.pk not in (named := [row["url"] for row in alert.evidence])
    assert named == [f"/runs/{run.pk}/"]
    review = opened()
    readings.read_gauges(NOW)
    given = rule(name="Many", measure="reviews_open", limit=0, breaches=1, of=1)
    evaluation.evaluate(given, NOW)
    assert [row["url"] for row in given.alerts.get().evidence] == [f"/reviews/{review.pk}/"]


def test_an_unusual_failure_rate_names_the_runs_that_failed() -> None:
    rules.ensure_built_in()
    given, every = AlertRule.objects.get(built_in="failures"), timedelta(minutes=5)
    failed = ended(3, "failed")
    usual = [0.02, 0.0, 0.05] * 40
    assert judged(given, *usual, measure="failure_rate", subject="counting", every=every, count=20) is None
    alert = judged(given, *usual, 0.9, 0.8, 0.9, measure="failure_rate", subject="counting", every=every, count=20)
    assert alert is not None
    assert alert.title.startswith("Failure rate of runs: 86.7 %, where ")
    assert alert.evidence == [{"text": f"Run {failed.pk}: no luck", "url": f"/runs/{failed.pk}/"}]


def test_a_log_that_was_changed_is_an_alert_until_it_is_in_order() -> None:
    run = ended(1)  # without the events that its row speaks of
    audits.look()
    assert BrokenLog.objects.get().run == run
    readings.read_gauges(NOW)
    found = dict(Reading.objects.values_list("measure", "value"))
    assert (found["broken_logs"], found["quarantined"], found["reviews_open"]) == (1, 0, 0)
    assert found["database_bytes"] > 1e6
    audits.note(run.pk, "")
    assert not BrokenLog.objects.exists()


def test_a_step_that_ends_its_process_is_in_quarantine_while_its_review_is_open() -> None:
    review = opened()
    Review.objects.filter(pk=review.pk).update(cause="failed")
    Event.objects.create(
        run=review.run, seq=99, step=review.position, kind="AttemptCrashed", data={}, at=NOW, prev_hash="", hash=""
    )  # fmt: skip
    readings.read_gauges(NOW)
    assert (value("quarantined", ""), value("reviews_open", "")) == ([(1.0, 1)], [(1.0, 1)])
    given = rule(name="Poison", measure="quarantined", limit=0, breaches=1, of=1)
    evaluation.evaluate(given, NOW)
    assert given.alerts.get().evidence == [
        {"text": f"Review {review.pk}, of run {review.run_id}", "url": f"/reviews/{review.pk}/"}
    ]
