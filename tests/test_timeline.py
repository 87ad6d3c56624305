"""The timeline of a run: its bars, one step by its own address, runs within runs, how little of a long run is on the page, and
two runs beside one another.
"""

import re
from datetime import timedelta
from random import Random

import pytest
from django.utils import timezone

from agentops.seeding import filling
from agentops.seeding.story import Story
from runs import cards, commands, event_log, executor, pairs, parts, sdk, timeline
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import agents
from tests.test_pages_runs import carried, raw_events, start

pytestmark = pytest.mark.django_db


def bars(page):
    """The phases of each line, by its name."""
    found = re.findall(r'<svg id="bar-([\d-]+|run(?:-\d+)?)" class="bar"[^>]*>(.*?)</svg>', page, re.DOTALL)
    return {name: re.findall(r'<rect class="(\w+)', drawn) for name, drawn in found}


def test_every_attempt_and_wait_is_drawn_in_its_place(signed_in):
    agents.FAILURES["tired"] = [agents.GiveUp("no way")]
    run = carried("falling-back", text="tired")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert bars(page)["run"] == ["queue", "work"]
    assert [phase for phase in bars(page)["1"] if phase != "queue"] == ["work", "work"]
    assert "<title>Attempt 1, failed: " in page
    assert "<title>its fallback was taken</title>" in page


def test_a_decision_stands_between_asking_and_work_and_its_edit_is_told_word_by_word(signed_in):
    run = carried("guessing", number=3)
    value = {"colour": "green", "amount": 9}
    commands.decide(run.pk, 1, "edit", by="reviewer", fingerprint=run.reviews.get().fingerprint, value=value, reason="It is not")
    page = signed_in("reviewer").get(f"/runs/{run.pk}/").text
    assert bars(page)["1"] == ["work", "person"]
    assert "<title>a person decided</title>" in page
    assert "<del>red</del><ins>green</ins>" in page
    assert f'href="/reviews/{run.reviews.get().pk}/">review' in page
    assert "<dt>Policy</dt><dd>A person is asked: its confidence is under the threshold.</dd>" in page


def test_a_step_has_an_address_of_its_own_with_its_events_to_read_and_to_keep(signed_in):
    run, client = carried(number=3), signed_in()
    page = client.get(f"/runs/{run.pk}/?step=2").text
    assert re.findall(r'id="step-(\d+)-body" open', page) == ["2"]
    assert f'href="/runs/{run.pk}/?step=2#step-2"' in page
    assert [event["kind"] for event in raw_events(client, run, step=2)] == ["StepStarted", "StepSucceeded"]
    answer = client.get(f"/runs/{run.pk}/?step=9", follow=True)
    assert f"Run {run.pk} has no step 9: it has 3 so far." in answer.text


def test_of_a_long_run_the_page_holds_little_and_a_step_is_fetched_when_it_is_opened(signed_in, monkeypatch):
    monkeypatch.setattr(cards, "STEPS_SHOWN", 6)
    monkeypatch.setattr(timeline, "WHOLE", 4)
    run, client = carried(number=20), signed_in()
    page = client.get(f"/runs/{run.pk}/?step=8").text
    assert re.findall(r'<li class="step card" id="step-(\d+)"', page) == [str(place) for place in range(7, 13)]
    assert re.findall(r'hx-get="/runs/\d+/parts/step-(\d+)/"', page) == ["7", "9", "10", "11", "12"]
    assert 'href="?before=7"' in page
    assert 'href="?before=19"' in page
    assert "back to the live page" in page
    assert "Input, from the supervisor" in client.get(f"/runs/{run.pk}/parts/step-9/").text
    late = client.get(f"/runs/{run.pk}/?step=20").text
    assert re.findall(r'<li class="step card" id="step-(\d+)"', late) == [str(place) for place in range(15, 21)]
    assert "back to the live page" not in late


def test_a_page_that_catches_up_is_told_of_every_step(monkeypatch):
    for module in (cards, timeline, parts):
        monkeypatch.setattr(module, "STEPS_SHOWN", 5)
    run, after, told = carried(number=23), 1, set()
    while (found := parts.update(run.pk, after=after, viewer={})).parts:
        told |= {part.id for part in found.parts if part.into == "steps"}
        after = found.seq
    assert (after, told) == (run.last_seq, {f"step-{place}" for place in range(1, 24)})


def test_a_page_of_a_long_run_has_at_most_three_thousand_elements(signed_in):
    page = signed_in().get(f"/runs/{carried(number=90).pk}/").text
    assert len(re.findall(r'<li class="step card"', page)) == cards.STEPS_SHOWN
    assert len(re.findall(r"<[a-z]", page)) < 3_000


def test_a_step_is_found_by_its_number_and_by_what_stands_in_it(signed_in):
    agents.FAILURES["odd one"] = [agents.AskHuman("Who is this?")]
    run, client = carried("stumbling", text="odd one"), signed_in()
    address = f"/runs/{run.pk}/"
    assert client.get(address, {"find": "1"}).url == f"{address}?step=1&find=1#step-1"
    assert 'Step 1 is opened. <a href="?find=%221%22">' in client.get(address, {"find": "1"}, follow=True).text
    for text in ("Odd One", "who is", "STUMBLE"):
        page = client.get(address, {"find": text}).text
        assert f'<strong>1 step</strong> with <q>{text}</q>: <a href="?step=1#step-1">1 Stumble</a>' in page
    nothing = client.get(address, {"find": "<b>100%_"}).text
    assert "No step of this run has <q>&lt;b&gt;100%_</q> in it." in nothing


SAID = {
    "4711": [1], "4712": [2], "471": [2], '"2"': [2], 'say "no': [1], "back\\slash": [2], "COSTS 5.00$ (net)": [2],
    "look.up": [1, 2], "order_number": [], "fingerprint": [], ".*": [], "%": [], "007": [],
    "0049301234": [2], "9" * 99: [],
}  # fmt: skip


def test_a_search_finds_what_was_said_and_not_how_it_is_kept(signed_in, monkeypatch):
    run, client = start(), signed_in()
    log, opening = event_log.take(run.pk, owner="a process")
    said = {"worker": "look.up", "title": "Look up", "fingerprint": "4711", "effect": "none", "attempt": 1}
    order, notes = {"order_number": 4711, "text": 'say "no"'}, [{"text": "Order 4712 costs 5.00$ (net) back\\slash, 0049301234"}]
    begun = (said | {"name": f"look_{place}", "input": one} for place, one in enumerate((order, {"notes": notes, "count": 2}), 1))
    log.append(opening, *(Draft(Kind.STEP_STARTED, one, place) for place, one in enumerate(begun, 1)))
    for text, steps in SAID.items():
        page = client.get(f"/runs/{run.pk}/", {"find": text}).text
        assert re.findall(r'<a href="\?step=(\d+)#step-\d+">\d+ Look up</a>', page) == [str(place) for place in steps], text
    monkeypatch.setattr(timeline, "FIND_MS", 100)
    monkeypatch.setattr(timeline._Holds, "template", "(pg_sleep(20) IS NOT NULL AND ROW(%(expressions)s) IS NOT NULL)")
    assert "in all 2 steps took too long, and was ended." in client.get(f"/runs/{run.pk}/", {"find": "4711"}).text
    assert "No step of this run has" in client.get(f"/runs/{run.pk}/", {"find": "nowhere"}).text, "it looks into nothing else"


def test_all_events_of_a_step_are_in_its_json_however_many(signed_in, monkeypatch):
    monkeypatch.setattr("runs.views.files.PIECE", 3)
    run, client = carried(number=4), signed_in()
    raw = raw_events(client, run)
    assert [event["seq"] for event in raw] == list(range(1, run.last_seq + 1))
    assert [event["seq"] for event in raw_events(client, run, after=4, step=3)] == [
        event["seq"] for event in raw if event["step"] == 3 and event["seq"] > 4
    ]
    assert raw_events(client, run, after=run.last_seq) == []


def test_an_open_run_says_how_far_it_has_come(signed_in):
    for number in (2, 4, 4):
        carried(number=number)
    waited = carried(number=4)
    Run.objects.filter(pk=waited.pk).update(created_at=waited.started_at - timedelta(minutes=5))
    header = re.search(
        r"after [\d.]+ m?s, 4 steps, 5 min 0 s in the queue before</span>", signed_in().get(f"/runs/{waited.pk}/").text
    )
    assert header, "the time in the queue is told apart"
    page = signed_in().get(f"/runs/{start().pk}/").text
    assert "0 of about 4 steps</span>" in page
    assert re.search(r"after [\d.]+ m?s, 4 steps</span>", signed_in().get(f"/runs/{Run.objects.order_by('pk')[2].pk}/").text)


def test_the_bars_alone_are_those_of_the_page(signed_in):
    run, client = carried(number=12), signed_in()
    drawn = bars(client.get(f"/runs/{run.pk}/parts/bars/", {"first": 3, "last": 7}).text)
    assert [name for name in drawn if name != "run"] == ["3", "4", "5", "6", "7"]
    assert all(phases == ["work"] for phases in drawn.values())


def test_runs_that_a_step_started_lie_within_it_on_its_axis(signed_in, monkeypatch, django_assert_max_num_queries):
    def supervisor(run, order):
        children = run.spawn_many("start", "counting", [{"text": f"part {number}", "number": 2} for number in range(3)])
        return agents.Answer(said=str(len(run.join(*children))))

    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    monkeypatch.setattr(cards, "NESTED_SHOWN", 2)
    supervisor.__annotations__ = {"run": sdk.Run, "order": agents.Order, "return": agents.Answer}
    sdk.agent("supervising", title="Supervising", version="1")(supervisor)
    parent, client = carried("supervising"), signed_in()
    children = list(parent.children.order_by("pk"))
    for child in children:
        executor.advance(child.pk, owner="test")
    with django_assert_max_num_queries(21):
        page = client.get(f"/runs/{parent.pk}/").text
    assert [bars(page)[f"run-{child.pk}"] for child in children[:2]] == [["queue", "work"]] * 2
    assert f'href="/runs/?parent={parent.pk}">1 more</a>' in page
    steps = client.get(f"/runs/{parent.pk}/parts/nested-{children[0].pk}/", {"first": 1, "last": 2}).text
    assert bars(steps) == {f"{children[0].pk}-1": ["work"], f"{children[0].pk}-2": ["work"]}
    stranger = start()
    assert client.get(f"/runs/{parent.pk}/parts/nested-{stranger.pk}/").status_code == 404
    assert Run.objects.get(pk=parent.pk).status == "waiting"


# --- beside another run --------------------------------------------------------------------------------------------------


def beside(client, left, right, **query):
    return client.get(f"/runs/{left.pk}/compare/{right.pk}/", query).text


def test_a_fork_is_compared_with_its_original_step_by_step(signed_in, django_assert_max_num_queries):
    original, client = carried(number=3), signed_in()
    forked = commands.fork(original.pk, step=2, by="operator", input={"number": 40, "ledger": "", "seconds": 0})
    executor.advance(forked.pk, owner="test")
    with django_assert_max_num_queries(22):
        page = beside(client, original, forked)
    words = re.findall(r'aria-hidden="true".*?</svg>(Same|Differs: [^<]*|Only in run \d+)</span>', page, re.DOTALL)
    assert words[:2] == ["Same", "Differs: input, output"]
    assert "<del>3</del><ins>41</ins>" in page or "<del>2</del><ins>41</ins>" in page
    assert f'href="/runs/{original.pk}/?step=2#step-2"' in page
    assert f'href="/runs/{original.pk}/compare/{forked.pk}/">compare with it</a>' in client.get(f"/runs/{forked.pk}/").text


def told(word: str, *, fields: int, ends: bool = True) -> Run:
    """A run of the past with one step."""
    now = timezone.now()
    story = Story(Random(1), now - timedelta(hours=1), now)
    said = {"agent": "counting", "agent_version": "1", "input": {}, "summary": "one", "config": {"version": 1}}
    story.requested(said, by="operator")
    story.begins("look", "long.look", "Look", {})
    story.gives({f"field_{number}": f"{word} {number}" for number in range(fields)}, seconds=0.01)
    if ends:
        story.ends(Kind.RUN_SUCCEEDED, {"output": {"said": word}})
    return Run.objects.get(pk=filling.write_one(story))


def test_much_that_differs_is_folded_and_a_run_that_goes_on_has_no_output_to_compare(signed_in):
    client = signed_in()
    page = beside(client, told("old", fields=6), told("new", fields=6))
    assert "Their output differs" in page
    assert "fields differ" not in page
    page = beside(client, told("old", fields=7), told("new", fields=7, ends=False))
    assert "<summary>Output: 7 fields differ</summary>" in page
    assert page.count("<del>old") == page.count("<ins>new") == 7
    assert "Their output differs" not in page


def test_far_from_its_place_a_step_is_compared_too(monkeypatch):
    for module, most in ((pairs, "PAIRS_SHOWN"), (cards, "STEPS_SHOWN")):
        monkeypatch.setattr(module, most, 3)
    left, right = carried(number=3), carried(number=9)
    for place in (1, 2, 3):  # the left one's names stand at its end
        right.steps.filter(position=place).update(name=f"other_{place}")
        right.steps.filter(position=place + 6).update(name=f"count_{place}")
    found = pairs.pairs(left, right).pairs
    assert [(pair.left and pair.left.step.position, pair.right and pair.right.step.position) for pair in found] == [
        (1, 7), (2, 8), (3, 9), (None, 1), (None, 2), (None, 3),
    ]  # fmt: skip


def test_what_only_one_run_has_is_said_and_long_runs_are_compared_page_by_page(signed_in, monkeypatch):
    monkeypatch.setattr("runs.pairs.PAIRS_SHOWN", 2)
    short, long, client = carried(number=2), carried(number=5), signed_in()
    first, later = beside(client, short, long), beside(client, short, long, after=2)
    assert (first.count("</svg>Same</span>"), first.count("Only in run")) == (2, 0)
    assert 'href="?after=2"' in first
    assert (later.count("</svg>Same</span>"), later.count(f"Only in run {long.pk}")) == (0, 2)
    assert "Their output differs" in first
    assert client.get(f"/runs/{short.pk}/compare/", {"with": long.pk}).url == f"/runs/{short.pk}/compare/{long.pk}/"
    for wrong in ("", "x", "999999", "9" * 30):
        answer = client.get(f"/runs/{short.pk}/compare/", {"with": wrong}, follow=True)
        assert "There is no such run to compare with" in answer.text
