"""The dashboard's pictures over time: what they show of the readings, in which span, at what cost."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from runs import commands
from runs.alerts import trends
from runs.alerts.readings import floor
from runs.models import Reading, Round
from tests.test_pages_runs import carried

pytestmark = pytest.mark.django_db
MINUTES = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def nothing_kept():
    cache.clear()


def read(measure: str, value: float, *, ago: timedelta = timedelta(), count: int = 1, subject: str = "") -> datetime:
    at = floor(timezone.now(), MINUTES) - ago
    for one in {subject, ""}:
        Reading.objects.create(measure=measure, subject=one, at=at, value=value, count=count)
    return at


def known(*, since: timedelta, until: timedelta = MINUTES) -> None:
    """What ended is read so far."""
    begin = floor(timezone.now(), MINUTES)
    Round.objects.create(pk=1, begun_at=begin, read_since=begin - since, read_until=begin + until)


def test_what_adds_up_is_added_and_a_mean_counts_by_what_it_was_made_from(django_assert_num_queries):
    now = timezone.now()
    for ago, ended, share in ((0, 4.0, 0.5), (5, 6.0, 0.0), (10, 0.0, 0.0)):
        if ended:
            read("runs_ended", ended, ago=timedelta(minutes=ago), count=int(ended), subject="paying")
            read("failure_rate", share, ago=timedelta(minutes=ago), count=int(ended), subject="paying")
    read("failure_rate", 1.0, ago=timedelta(hours=4), count=90)
    known(since=timedelta(minutes=12))
    with django_assert_num_queries(2):
        found = trends.read(["runs_ended", "failure_rate", "cost"], trends.SPANS["3h"], now)
    assert len(found.begins) == len(found.values("runs_ended")) == 36
    assert found.begins[-1] == floor(now, MINUTES)
    assert found.values("runs_ended")[-5:] == [None, 0.0, 0.0, 6.0, 4.0], "before the first part that is known nothing is"
    assert found.a_minute(found.values("runs_ended"))[-5:] == [None, 0.0, 0.0, 1.2, 0.8]
    assert found.values("failure_rate")[-3:] == [None, 0.0, 0.5]
    assert found.whole("runs_ended") == 10
    assert found.whole("failure_rate", "paying") == 0.2
    assert found.whole("failure_rate", total=True) == 2
    assert (found.whole("cost"), found.whole("cost", total=True)) == (None, 0.0)
    assert found.subjects("runs_ended") == ["paying"]


@pytest.mark.parametrize(("key", "span"), trends.SPANS.items())
def test_a_span_has_whole_parts_of_whole_readings(key, span):
    assert span.length % span.part == timedelta()
    assert span.part % MINUTES == timedelta()
    assert 30 <= span.length // span.part <= 60


def test_the_part_that_goes_on_is_divided_by_what_is_known_of_it():
    now = datetime(2026, 11, 20, 13, 2, tzinfo=UTC)
    Round.objects.create(
        pk=1, begun_at=now, read_since=now - timedelta(days=20), read_until=datetime(2026, 11, 20, 13, tzinfo=UTC)
    )
    Reading.objects.create(measure="runs_ended", at=datetime(2026, 11, 20, 12, 5, tzinfo=UTC), value=120, count=120)
    found = trends.read(["runs_ended"], trends.SPANS["30d"], now)
    assert found.a_minute(found.values("runs_ended"))[-2:] == [0.0, 2.0]
    assert found.values("runs_ended")[:21] == [None] * 19 + [0.0] * 2, "of ten days nothing is known"
    assert trends.read(["runs_ended"], trends.SPANS["3h"], now).values("runs_ended")[-2:] == [0.0, None], "not read yet"


def test_the_dashboard_draws_what_ended_and_what_waits(signed_in):
    carried("paying")
    read("runs_ended", 30.0, count=30, subject="paying")
    read("failure_rate", 0.1, count=30, subject="paying")
    read("cost", 0.25, count=30, subject="paying")
    read("reviews_open", 3.0)
    known(since=timedelta(hours=3))
    page = signed_in().get("/?span=3h")
    assert 'id="span-3h" href="/?span=3h#trends" aria-current="true"' in page.text
    assert "30 runs ended, 3 of them failed" in page.text
    assert "7.50 USD in all" in page.text
    assert '<a href="/agents/paying/" id="trend-paying">' in page.text
    drawn = {chart["key"]: json.loads(chart["data"]) for chart in page.context["trends"]["charts"]}
    assert set(drawn) == {"ended", "shares", "cost", "waiting"}, "what has no value is not drawn"
    ended, failed = (line["values"] for line in drawn["ended"]["lines"])
    assert (ended[-1], round(failed[-1], 6)) == (6.0, 0.6), "a minute"
    assert len(drawn["ended"]["times"]) == len(ended) == 36


def test_each_agent_says_its_median_and_its_95th_percentile(signed_in):
    carried("paying")
    at = read("runs_ended", 20.0, count=20, subject="paying")
    slow = [math.ceil(32 * math.log2(1000 * seconds)) for seconds in (4, 90)]  # as runs.alerts.spread keeps them
    Reading.objects.create(measure="duration", subject="paying", at=at, value=4, count=20, bins=slow, in_bins=[18, 2])
    known(since=timedelta(hours=3))
    (agent,) = signed_in().get("/?span=3h").context["trends"]["agents"]
    assert (agent["duration"], agent["longest"]) == ("4.0 s", "1 min 30 s")


def test_the_page_asks_for_its_pictures_when_it_is_there(signed_in):
    carried("paying")
    page = signed_in().get("/").text
    assert 'hx-trigger="load, every 60s"' in page
    assert "data-plot" not in page
    assert "<dt>waits for a person</dt>" in page


def test_a_span_that_is_none_is_the_usual_one_and_nothing_that_ended_is_said(signed_in):
    page = signed_in().get("/?span=century&part=trends")
    assert page.context["span"] == "3h"
    assert "Nothing has ended in this time" in page.text
    read("runs_ended", 1.0, ago=timedelta(hours=4))
    cache.clear()
    assert signed_in().get("/?part=trends").context["span"] == "24h", "as soon as there is more to show"


def test_an_agent_s_page_has_its_own_pictures_its_operations_and_what_was_changed(signed_in):
    carried("paying")
    for subject, ended in (("paying", 12.0), ("counting", 40.0)):
        read("runs_ended", ended, count=int(ended), subject=subject, ago=MINUTES * (subject == "paying"))
    page = signed_in().get("/agents/paying/")
    assert 'hx-get="/agents/paying/?part=trends" hx-trigger="load, every 60s"' in page.text
    assert "1 run, the last begun" in page.text
    commands.configure("paying", by="admin", threshold=0.95)
    page = signed_in().get("/agents/paying/?span=3h")
    assert "12 runs ended, 0 of them failed" in page.text
    assert "40 runs" not in page.text
    assert "jobs on the queue" not in page.text
    assert "→ 0.95, by admin" in page.text
    assert signed_in().get("/agents/paying/?part=trends").text.lstrip().startswith('<section class="card" id="trends"')


def test_of_many_who_look_first_one_reads_and_the_others_ask_again(signed_in):
    place = "trends:30d:"
    assert cache.add(f"{place}:reading", 1, 20), "as somebody else who has just looked"
    page = signed_in().get("/?span=30d&part=trends").text
    assert "Being read: this takes a moment." in page
    assert 'hx-get="/?part=trends&amp;span=30d" hx-trigger="load delay:1s, every 60s"' in page
    cache.delete(f"{place}:reading")
    assert "Nothing has ended in this time" in signed_in().get("/?span=30d&part=trends").text
    at, found = cache.get(place)
    cache.set(place, (at - timedelta(minutes=50), found), 60)  # nobody has looked since
    assert "Nothing has ended in this time" in signed_in().get("/?span=30d&part=trends").text, "old, while somebody reads it anew"
