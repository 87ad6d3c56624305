"""When a rule opens an alert and when it ends, what its preview says, and what it does by itself."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import F
from django.template.loader import render_to_string
from django.utils import timezone

from runs import commands
from runs.alerts import chart, evaluation, handling, readings, rules
from runs.alerts.measures import MEASURES
from runs.engine.anomaly import Kind, Outcome, Point, Verdict
from runs.models import (
    Alert,
    AlertChannel,
    AlertNotice,
    AlertRule,
    Reading,
    Round,
    versions,
)  # fmt: skip
from runs.requests import Refused
from tests.watching import FIVE_MINUTES, MINUTE, NOW, history, judged, read, rule

pytestmark = pytest.mark.django_db


# --- one alert for a condition ----------------------------------------------------------------------------------------


def test_a_condition_opens_one_alert_that_ends_when_it_is_over(people: dict[str, User]) -> None:
    channel, given = AlertChannel.objects.create(name="night", url="json://x"), rule()
    assert judged(given, 1, 11, 1) is None
    alert = judged(given, 11, 1, 12)
    assert alert is not None
    assert (alert.state, alert.title, alert.value) == ("firing", "Jobs on the queue: 12, over the limit of 10", 12)
    assert alert.evidence == [{"text": "Machinery, on the dashboard", "url": "/"}]
    judged(given, 1, 12, 30)
    assert Alert.objects.count() == 1, "one alert for one condition"
    alert.refresh_from_db()
    assert alert.value == 30
    judged(given, 30, 1, 1)
    assert Alert.objects.open().count() == 1, "not before it holds in none of three"
    AlertNotice.objects.update(delivery="sent")
    judged(given, 1, 2, 3)
    alert.refresh_from_db()
    assert (alert.state, history(alert)) == ("resolved", ["opened", "resolved"])
    assert list(channel.notices.values_list("kind", "delivery")) == [("start", "sent"), ("end", "waits")]
    assert judged(given, 11, 11, 11).pk != alert.pk  # type: ignore[union-attr]
    assert evaluation.end(alert, note="twice") is False


def test_an_end_is_not_said_where_the_beginning_was_not() -> None:
    AlertChannel.objects.create(name="night", url="json://x")
    given = rule()
    judged(given, 11, 11, 11)
    judged(given, 1, 1, 1)
    assert list(AlertNotice.objects.values_list("kind", "delivery")) == [("start", "dropped")]


def test_what_is_read_no_more_is_no_end(people: dict[str, User]) -> None:
    given = rule()
    alert = judged(given, 11, 11, 11)
    assert alert is not None
    handling.acknowledge(alert.pk, by=people["operator"])
    judged(given)
    alert.refresh_from_db()
    assert alert.state == "no_data"
    judged(given, 11, 11, 11)
    alert.refresh_from_db()
    assert (alert.state, alert.owner) == ("acknowledged", people["operator"])
    Alert.objects.update(read_at=NOW - timedelta(hours=25))
    judged(given)
    alert.refresh_from_db()
    assert (alert.state, history(alert)) == ("resolved", ["opened", "acknowledged", "no_data", "firing", "closed"])


def test_who_snoozes_hears_of_it_again_when_the_pause_is_over(people: dict[str, User]) -> None:
    AlertChannel.objects.create(name="night", url="json://x")
    given = rule()
    alert = judged(given, 11, 11, 11)
    assert alert is not None
    with pytest.raises(Refused, match="1, 4, 24, 72"):
        handling.snooze(alert.pk, by=people["operator"], hours=2)
    handling.snooze(alert.pk, by=people["operator"], hours=4)
    evaluation._wake_snoozed()
    judged(given, 12, 12, 12)
    alert.refresh_from_db()
    assert alert.state == "snoozed"
    Alert.objects.update(snoozed_until=timezone.now())
    evaluation._wake_snoozed()
    alert.refresh_from_db()
    assert (alert.state, history(alert)) == ("firing", ["opened", "snoozed", "firing"])
    assert list(AlertNotice.objects.values_list("kind", "delivery")) == [("start", "dropped"), ("start", "waits")]
    handling.acknowledge(alert.pk, by=people["operator"])
    with pytest.raises(Refused, match="already"):
        handling.acknowledge(alert.pk, by=people["operator"])
    handling.acknowledge(alert.pk, by=people["admin"])
    assert alert.events.last().note == "Taken over from operator."  # type: ignore[union-attr]
    rules.configure(given.pk, by="admin", enabled=False)
    evaluation._end_disabled()
    with pytest.raises(Refused, match="ended"):
        handling.snooze(alert.pk, by=people["operator"], hours=1)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"measure": "love"}, "measure"), ({"breaches": 4}, "of"), ({"subject": "*"}, "subject"),
        ({"measure": "cost", "subject": "nobody"}, "subject"), ({"kind": "absence"}, "kind"),
        ({"measure": "breaker_open"}, "subject"), ({"kind": "anomaly", "limit": 0}, "limit"), ({"side": "either"}, "side"),
        ({"measure": "failure_rate", "limit": 30}, "limit"),
        ({"hours_from": "09:00"}, "hours_until"), ({"kind": "change", "limit": 100, "side": "below"}, "limit"),
        ({"kind": "change", "limit": 100}, "least_value"),
        ({"measure": "cost", "window_minutes": 1440, "hours_from": "09:00", "hours_until": "17:00"}, "hours_from"),
        ({"measure": "cost", "window_minutes": 60, "hours_from": "09:30", "hours_until": "10:30"}, "hours_from"),
        ({"measure": "cost", "window_minutes": 60, "hours_from": "09:00", "hours_until": "09:45"}, "hours_from"),
        ({"act": "pause_agent"}, "act_on"),
        ({"act": "pause_agent", "act_on": "x"}, "act_on"),
        ({"act": "lower_limit", "act_on": "shop"}, "act_limit"), ({"channels": [77]}, "channels"), ({"zone": "Mars/X"}, "zone"),
    ],
)  # fmt: skip
def test_a_rule_that_could_not_work_is_told_where(wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        rule(**wanted)
    assert field in refused.value.message_dict


def test_hours_may_be_as_short_as_one_window() -> None:
    wanted: dict[str, Any] = {"measure": "cost", "window_minutes": 60, "weekdays_only": True}
    assert rule(**wanted, hours_from="09:30", hours_until="10:30", zone="Asia/Kolkata").pk, "as windows lie there"
    assert rule(**wanted, name="At midnight", hours_from="23:30", hours_until="01:00").pk


def test_the_past_is_judged_by_the_version_that_was_in_force_then() -> None:
    made = rule(limit=10)
    changed = rules.configure(made.pk, by="admin", limit=2)
    now = readings.floor(timezone.now(), MINUTE)
    minutes = [now + number * MINUTE for number in range(-5, 6) if number]
    Reading.objects.bulk_create(Reading(measure="queue", at=at, value=5, count=1) for at in minutes)
    judged = rules.judged_then(changed, "", since=now - 10 * MINUTE, until=now + 5 * MINUTE)
    assert {one.point.at for one in judged} >= {one + MINUTE for one in minutes[:-1]}
    read_of = [one for one in judged if one.point.value]
    assert {one.outcome for one in read_of if one.point.at <= now} == {Outcome.CALM}
    assert {one.outcome for one in read_of if one.point.at > now} == {Outcome.BREACH}


def test_every_version_of_a_rule_is_kept() -> None:
    given = rule()
    assert rules.configure(given.pk, by="operator", limit=10).version == 1, "what changes nothing makes no version"
    assert (rules.configure(given.pk, by="operator", limit=20).version, given.version) == (2, 1)
    changed = versions.versions(given, most=5)
    assert [(one.pgh_data["changed_by"], one.pgh_data["limit"]) for one in changed] == [("operator", 20), ("admin", 10)]


WRONG: dict[str, dict[str, Any]] = {  # what each rule that ships finds wrong
    "reviews-late": {"values": [0, 60]}, "sweeper": {"values": [0, 0]}, "job-processes": {"values": [0, 0]},
    "redis": {"values": [0, 0]}, "monitoring": {"values": [1, 1]}, "queue": {"values": [150] * 12 + [900] * 3},
    "breaker": {"values": [1, 1], "subject": "shop"}, "quarantine": {"values": [1]}, "verification": {"values": [2]},
    "retention": {"values": [1]},
    "failures": {"values": [0.02, 0, 0.05] * 40 + [0.9] * 3, "subject": "counting", "every": FIVE_MINUTES, "count": 20},
    "cost": {"values": [1, 1.1, 0.9] * 40 + [9] * 3, "subject": "counting", "every": FIVE_MINUTES, "count": 20},
    "database": {"values": [49e9, 51e9]},
}  # fmt: skip

SAID_BY_YES = (
    "Breaker open or half-open: yes (shop)", "Last night's retention was missed: yes", "Redis answers: no", "Sweeper alive: no",
)  # fmt: skip


def test_each_rule_that_ships_finds_what_is_wrong_and_is_made_once() -> None:
    rules.ensure_built_in()
    AlertRule.objects.filter(built_in="queue").update(limit=7)
    rules.ensure_built_in()
    made = AlertRule.objects.exclude(built_in=None)
    assert (set(made.values_list("built_in", flat=True)), made.get(built_in="queue").limit) == (set(WRONG), 7)
    for one in made:
        rules.check(one)
        one.full_clean()
        wrong = WRONG[one.built_in or ""]
        calm = [1 if one.side == "below" else wrong["values"][0] if one.kind != "threshold" else 0] * len(wrong["values"])
        assert judged(one, *calm, measure=one.measure, **{k: v for k, v in wrong.items() if k != "values"}) is None, one
        alert = judged(one, *wrong["values"], measure=one.measure, **{k: v for k, v in wrong.items() if k != "values"})
        assert alert is not None, one
        assert (
            alert.title in SAID_BY_YES
            or "%" in alert.title
            or (" over the limit " in alert.title or " under the limit " in alert.title or "is usual" in alert.title)
        ), alert.title


def test_the_preview_is_what_the_evaluation_would_have_done() -> None:
    given = rule()
    read([1] * 30 + [11, 11, 11] + [1] * 30 + [11, 1, 11, 1, 1, 1] + [1] * 5 + [20, 20])
    tried = rules.preview(given, NOW)
    known = "Of that week only the last 76 minutes are known: nothing was read before."
    assert rules.preview_sentence(tried, given) == f"It would have fired 3 times in the last week. {known}"
    assert tried[0].openings[-1][1] is None
    other = rule(name="b", measure="reviews_open")
    assert rules.preview_sentence(rules.preview(other, NOW), other).startswith("Nothing was read")
    unusual = rule(name="c", kind="anomaly", least_count=3)
    said = rules.preview_sentence(rules.preview(unusual, NOW), unusual)
    assert said.startswith(
        "Nothing of the last week could be judged. A window counts with 3 runs or more. What is usual is known"
    )


PAST = """
INSERT INTO runs_reading (measure, subject, at, value, count)
SELECT measure, subject, at, CASE WHEN measure = 'runs_ended' AND random() < 0.9 THEN 0 ELSE round(random() * 100) END, 5
FROM (VALUES ('runs_ended', 'counting'), ('failure_rate', 'counting'), ('queue', '')) AS one(measure, subject),
  generate_series(%(now)s - interval '36 days', %(now)s, '5 minutes') AS at
"""


def test_whatever_is_asked_for_the_preview_judges_as_the_evaluation_did_at_the_time() -> None:
    Round.objects.create(pk=1, begun_at=NOW, read_until=readings.floor(NOW, FIVE_MINUTES), read_since=NOW - timedelta(days=36))
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.5)")
        cursor.execute(PAST, {"now": readings.floor(NOW, FIVE_MINUTES)})
    judged_at_all = set()
    for kind in Kind:
        measures = {Kind.ABSENCE: ["runs_ended"], Kind.ANOMALY: ["failure_rate", "queue"]}.get(kind, ["failure_rate"])
        for measure, minutes in itertools.product(measures, (5, 15, 60, 1440)):
            given = AlertRule(
                measure=measure, subject="*" if measure != "queue" else "", kind=kind, limit=0.5, window_minutes=minutes, of=2,
                back=3, least_value=0.1,
            )  # fmt: skip
            (tried,) = rules.preview(given, NOW)
            window = timedelta(minutes=minutes)
            for ago in range(3):
                found = rules.verdicts(given, NOW - ago * window)[tried.subject]
                assert found == tried.verdicts[-2 - ago : len(tried.verdicts) - ago], (kind, measure, minutes, ago)
            later = rules.verdicts(given, NOW + 4 * MINUTE)[tried.subject]
            assert later == tried.verdicts[-2:], "a window lies where it lay"
            judged_at_all |= {(kind, one.outcome.value) for one in tried.verdicts}
    assert {(kind, outcome) for kind in Kind for outcome in ("breach", "calm")} <= judged_at_all


def test_an_alert_is_a_band_within_the_picture_also_where_it_began_before_it_or_just_now() -> None:
    points = [Point(NOW + minute * MINUTE, None if minute == 0 else float(minute)) for minute in range(11)]
    verdicts = [Verdict(one, Outcome.CALM) for one in points]
    openings = [(NOW - MINUTE, None), (NOW - MINUTE, NOW + 4 * MINUTE), (NOW + 99 * MINUTE, None)]
    drawn = chart.draw(verdicts, openings)
    assert drawn is not None
    assert (drawn.first, [(band.x, band.width) for band in drawn.bands]) == (NOW + MINUTE, [(0, 600), (0, 200), (598, 2)])


def test_a_value_with_nothing_read_beside_it_is_drawn_by_itself_and_of_what_is_usual_nothing_is_lost() -> None:
    read = [1.0, 2.0, None, 3.0, None, 4.0]
    verdicts = [Verdict(Point(NOW + at * MINUTE, value), Outcome.CALM, expected=value and 1.0) for at, value in enumerate(read)]
    drawn = chart.draw(verdicts)
    assert drawn is not None
    assert (len(drawn.lines), len(drawn.usual), [x for x, _ in drawn.alone]) == (1, 3, [360.0, 600.0])
    shown = render_to_string("alerts/_chart.html", {"chart": drawn, "measure": MEASURES["queue"]})
    assert shown.count('class="alone"') == 2
    assert "a small square a value with nothing read before and after it" in shown
    whole = render_to_string("alerts/_chart.html", {"chart": chart.draw(verdicts[:2]), "measure": MEASURES["queue"]})
    assert ("alone" in whole, "square" in whole) == (False, False)


# --- silence and office hours -----------------------------------------------------------------------------------------


def test_each_agent_that_falls_silent_is_heard_of_but_no_stranger_and_none_that_is_disabled() -> None:
    Round.objects.create(pk=1, begun_at=NOW, read_until=readings.floor(NOW, FIVE_MINUTES), read_since=NOW - timedelta(days=9))
    for subject in ("counting", "paying", "guessing", "nobody knows"):
        read([3] * 12, measure="runs_ended", subject=subject, every=FIVE_MINUTES)
        Reading.objects.filter(subject=subject).update(at=F("at") - timedelta(hours=1))
    commands.configure("guessing", by="admin", enabled=False)
    Reading.objects.create(measure="runs_ended", subject="paying", at=NOW - FIVE_MINUTES, value=1)
    given = rule(measure="runs_ended", subject="*", kind="absence", breaches=1, of=1, window_minutes=15)
    evaluation.evaluate(given, NOW)
    assert {alert.subject: alert.title for alert in Alert.objects.all()} == {
        "counting": "Runs that ended: none in the last 15 minutes (Counting)"
    }
    assert [one.subject for one in rules.preview(given, NOW) if one.openings[-1][1] is None] == ["counting"]


def test_what_goes_on_over_a_weekend_stays_open_and_whose_rule_is_disabled_is_closed_and_not_over() -> None:
    AlertChannel.objects.create(name="night", url="json://x")
    Round.objects.create(pk=1, begun_at=NOW, read_until=NOW + timedelta(days=9), read_since=NOW - timedelta(days=9))
    given = rule(
        measure="runs_ended", kind="absence", hours_from="09:00", hours_until="17:00", weekdays_only=True, breaches=1, of=2
    )
    friday = readings.floor(NOW, timedelta(days=1))
    Reading.objects.create(measure="runs_ended", at=friday + timedelta(hours=16, minutes=25), value=2)
    Reading.objects.create(measure="runs_ended", at=friday + timedelta(days=1), value=2)
    states = []
    for hours in (16.5, 16.75, 17, 17.5, 44, 60, 81, 81.5, 82):  # to Monday at ten
        evaluation.evaluate(given, friday + timedelta(hours=hours))
        states.append(Alert.objects.values_list("state", flat=True).first())
    assert states == [None] + ["firing"] * 8
    (alert,) = Alert.objects.all()
    AlertNotice.objects.update(delivery="sent")
    rules.configure(given.pk, by="admin", enabled=False)
    evaluation._end_disabled()
    assert (history(alert), alert.notices.last().kind) == (["opened", "closed"], "end")  # type: ignore[union-attr]
