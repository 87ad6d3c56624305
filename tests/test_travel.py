"""A run as it was: each of its events, its bars then, and how little is read for that."""

import random
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from agentops.seeding import filling
from agentops.seeding.story import Story
from runs import commands, event_log, executor, timeline, travel
from runs.engine.events import Kind
from runs.models import Run
from tests import agents
from tests.test_pages_runs import carried
from tests.test_timeline import bars

pytestmark = pytest.mark.django_db


def decided(slug, **given):
    run = carried(slug, **given)
    commands.decide(run.pk, 1, "approve", by="reviewer", fingerprint=run.reviews.get().fingerprint)
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def cancelled(slug):
    run = carried(slug)
    commands.cancel(run.pk, by="operator", reason="A mistake")
    commands.retry(run.pk, by="operator")
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def falling_back():
    agents.FAILURES["tired"] = [agents.GiveUp("no way")]
    return carried("falling-back", text="tired")


HISTORIES = {
    "plain": lambda: carried(number=5),
    "decided": lambda: decided("guessing", number=3),
    "gated": lambda: decided("paying"),
    "cancelled, retried": lambda: cancelled("paying"),
    "fallback": falling_back,
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_run_as_of_each_event_is_what_the_whole_log_folds_to(name, monkeypatch):
    monkeypatch.setattr(travel, "STEPS_SHOWN", 2)
    run = HISTORIES[name]()
    for until in range(1, run.last_seq + 1):
        past, whole = travel.as_of(run, until), event_log.state(run.pk, until=until)
        assert (past.state.status, past.state.waiting_cause) == (whole.status, whole.waiting_cause), until
        assert past.shown.count == len(whole.steps)
        for card in past.shown.cards:
            told = whole.steps[card.step.position]
            assert (card.step.status, card.step.output, card.step.input) == (told.status, told.output, told.input), until


def test_going_back_in_a_long_run_reads_as_little_as_the_page_shows(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(travel, "STEPS_SHOWN", 5)
    run = carried(number=60)
    for until in (run.last_seq, run.last_seq // 2, 1):
        with django_assert_num_queries(4):
            past = travel.as_of(run, until)
        assert past.read <= 2 * 5 + 4
    middle = travel.as_of(run, run.last_seq // 2)
    assert [card.step.position for card in middle.shown.cards] == [26, 27, 28, 29, 30]
    assert middle.shown.cards[-1].step.status == "running"


def test_each_event_has_a_moment_of_its_own_also_where_the_clock_went_back(monkeypatch):
    run = commands.start("counting", {"text": "hello", "number": 5}, by="operator")
    before = run.created_at - timedelta(seconds=1)
    monkeypatch.setattr(event_log, "now", lambda: before)
    executor.advance(run.pk, owner="test")
    moments = [fact.at for fact in event_log.facts(run.pk)]
    assert len(moments) > 5
    assert moments == sorted(set(moments))


def test_the_page_of_an_earlier_moment_says_so_and_leads_on(signed_in):
    run, client = decided("paying"), signed_in()
    asked = next(line.fact.seq for line in timeline.log(run.pk, after=0, most=99) if line.fact.kind == "StepEscalated")
    page = client.get(f"/runs/{run.pk}/", {"until": asked}).text
    assert f"<strong>Event {asked} of {run.last_seq}</strong>: Step 1 (Pay) went to a person: Money leaves the house." in page
    assert f'href="?until={asked - 1}">Before</a>' in page
    assert f'href="?until={asked + 1}">After</a>' in page
    assert "paid" not in page
    assert bars(page)["1"][-1] != "work"
    assert "data-grows" not in page
    assert "data-socket" not in page
    for beyond in ("0", "999999"):
        assert client.get(f"/runs/{run.pk}/", {"until": beyond}).status_code == 200


def with_pauses(steps):
    """Between any two of its steps it was parked for an hour."""
    story = Story(random.Random(1), timezone.now() - timedelta(days=9), timezone.now())
    data = {"agent": "long", "agent_version": "1", "input": {}, "summary": "A run of days", "config": {"version": 1}}
    story.requested(data, by="operator")
    for number in range(steps):
        story.begins(f"look_{number}", "long.look", "Look", {"number": number})
        story.gives({"number": number}, seconds=1)
        story.say(Kind.RUN_PARKED, {"cause": "timer", "steps": [story.steps]}, story.steps)
        story.waits(3600)
        story.say(Kind.RUN_RESUMED, {"owner": "seed", "fence": 2})
    story.say(Kind.RUN_SUCCEEDED, {"output": None})
    return Run.objects.get(pk=filling.write_one(story))


def test_the_past_of_a_run_of_days_is_drawn_as_the_run_is(signed_in, monkeypatch):
    run, client = with_pauses(30), signed_in()
    page = client.get(f"/runs/{run.pk}/").text
    assert bars(page)["run"].count("waiting") == 30
    assert "where it is hatched nobody worked, for 1 h 0 min, 1 h 0 min," in page
    assert " and 24 more (1 d 6 h in all).</p>" in page
    past = client.get(f"/runs/{run.pk}/", {"until": run.last_seq}).text
    assert bars(past) == bars(page)
    scaled = client.get(f"/runs/{run.pk}/", {"step": 3, "idle": "show"}).text
    assert "nobody worked" not in scaled
    for address in ("?step=3", "?step=3&amp;idle=show&amp;open=all", "?until=now&amp;idle=show"):
        assert f'href="{address}"' in scaled, "the address keeps the scale"
    monkeypatch.setattr(travel, "STEPS_SHOWN", 4)
    some = client.get(f"/runs/{run.pk}/", {"until": run.last_seq, "step": 10}).text
    assert [name for name in bars(some) if name != "run"] == ["8", "9", "10", "11"]
    assert '30 steps had begun; shown are those about <a href="#step-10">step 10</a>.' in some
    last = client.get(f"/runs/{run.pk}/", {"until": run.last_seq}).text
    assert 'shown are those about <a href="#step-30">step 30</a>.' in last, "it may stand far below"
    beyond = client.get(f"/runs/{run.pk}/", {"until": run.last_seq, "step": 99}).text
    assert 'shown are those about <a href="#step-30">step 30</a>.' in beyond
    assert bars(some)["run"] == ["work", "waiting"] * 3 + ["work"], "what the run did before and after is on another axis"
    assert some.count('class="fold"') == 3
    assert re.search(r'class="first" x="0" y="9">after (6 h|7 h) \d+ min<', some)
