"""What the page of a run says in words: how long it worked and waited, what went another way, and what a worker said."""

import re
from dataclasses import replace
from datetime import UTC

import pytest

from runs import commands, dependencies, event_log, executor, sdk, timeline
from runs.engine import outcome
from runs.engine.events import Draft, Kind
from runs.models import Step
from tests import agents, shop
from tests.test_pages_runs import carried, whole

pytestmark = pytest.mark.django_db


def test_a_step_that_waited_for_a_person_says_both_times(signed_in):
    run = carried("guessing", number=3)
    assert "for a person</span>" not in signed_in().get(f"/runs/{run.pk}/").text
    commands.decide(run.pk, 1, "approve", by="reviewer", fingerprint=run.reviews.get().fingerprint)
    (card,) = timeline.cards(run)
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert re.search(r"<span>waited [\d.]+ m?s for a person</span>\s*<span>[\d.]+ m?s</span>", page)
    assert card.worked_ms + card.waited_ms == pytest.approx(card.step.duration_ms, abs=1)


def test_a_withdrawn_question_no_longer_waits():
    run = carried("asking")
    commands.cancel(run.pk, by="operator")
    (card,) = timeline.cards(run)
    assert card.asked is None
    assert card.waited_ms > 0
    assert card.worked_ms is None


def test_a_step_that_waits_now_says_since_when(signed_in):
    shop.set_terms()
    dependencies.force("shop", "open", by="admin", reason="maintenance")
    run = shop.carried("buy")
    (card,) = timeline.cards(run)
    since = f'{card.waits_since.astimezone(UTC).isoformat()}"'
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert f'<dt>Time</dt><dd>waiting since <time datetime="{since}' in page
    run = shop.again(run)
    assert timeline.cards(run)[0].waits_since == card.waits_since, "to look whether it works again is no end of the wait"
    assert f'<dt>Time</dt><dd>waiting since <time datetime="{since}' in signed_in().get(f"/runs/{run.pk}/").text
    commands.cancel(run.pk, by="operator")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert re.search(r"<dt>Time</dt><dd>[\d.]+ m?s waiting", page)
    assert "waiting since" not in page


def test_a_fallback_is_told_on_the_closed_step(signed_in):
    agents.FAILURES["tired"] = [agents.GiveUp("no way")]
    run = carried("falling-back", text="tired")
    page = signed_in().get(f"/runs/{run.pk}/").text
    step = page[page.index('id="step-1"') :]
    assert "Fallback</span>" in step.partition("</summary>")[0]


def test_what_a_worker_said_is_told_without_the_kind_of_its_error(signed_in):
    agents.FAILURES["odd"] = [agents.AskHuman("Who is this?")]
    run = carried("stumbling", text="odd")
    raw = "&quot;why&quot;: &quot;AskHuman: "
    for path in (f"/runs/{run.pk}/", f"/reviews/{run.reviews.get().pk}/"):
        page = signed_in().get(path).text
        assert "Who is this?" in page
        assert not re.search(r"(?<![\w.])AskHuman: ", page.replace(raw, ""))


def test_a_rejection_is_said_once(signed_in):
    run = carried("asking")
    commands.decide(run.pk, 1, "reject", by="reviewer", fingerprint=run.reviews.get().fingerprint, reason="spam")
    executor.advance(run.pk, owner="test")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert "reviewer rejected it: spam" in page
    assert "rejected: reviewer" not in page
    assert "(rejected)" not in page


def test_an_error_nobody_knows_is_named_after_what_it_says(signed_in):
    agents.FAILURES["odd"] = [KeyError("card")]
    page = signed_in().get(f"/runs/{carried('stumbling', text='odd').pk}/").text
    assert '<span class="text-secondary">(KeyError)</span>' in page


def test_a_question_is_told_as_a_question(signed_in):
    run = carried("asking", text="the wall")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert "The supervisor asks a person, in step 1 (Ask a person): Which colour for the wall?" in page
    assert "Step 1 (Ask a person) waits for the answer." in page


def test_hidden_letters_are_marked_on_every_page(signed_in):
    run = carried("asking", text="pay\u202eton")
    paths = [f"/runs/{run.pk}/", f"/runs/{run.pk}/events/", "/runs/", "/", "/reviews/", f"/reviews/{run.reviews.get().pk}/"]
    for path in paths:
        page = signed_in().get(path).text
        assert "\u202e" not in page, path
        assert "U+202E" in page, path


LOST = "its job process vm-7-1a was lost; the run was taken over 16.0 s after the attempt began"


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (outcome.Ending("by signal 11 (SIGSEGV)", 4.24, signal=11, memory_mb=64),
         "its process ended by signal 11 (SIGSEGV) after 4.2 s with 64 MB in use"),
        (outcome.Ending("with exit code 3", 0.05, exit_code=3), "its process ended with exit code 3 after 0.1 s"),
        (outcome.Ending("with exit code 3", 0.04, exit_code=3), "its process ended with exit code 3 within 0.1 s"),
        (outcome.Ending(f"{outcome.TOGETHER} vm-7-1a", 16.0), LOST),
        (outcome.Ending(f"{outcome.TOGETHER} its run", 16.0), LOST.replace(" vm-7-1a", "")),
        (outcome.Ending("because its run was cancelled", 12.4), "it was cut off after 12.4 s, because its run was cancelled"),
    ],
)  # fmt: skip
def test_a_crash_says_what_is_known_of_it(signed_in, ending, told):
    run = commands.start("counting", {"text": "a", "number": 1}, by="operator")
    log, opening = event_log.take(run.pk, owner="a process")
    request = {"name": "count_1", "worker": "agents.count", "title": "Count", "fingerprint": "", "input": {}, "effect": "none"}
    log.append(opening, Draft(Kind.STEP_STARTED, request | {"attempt": 1}, 1), outcome.crashed(1, 1, ending))
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert f"<dt>Attempt 1</dt><dd>{told}</dd>" in page
    what = "left no result of" if outcome.TOGETHER in ending.reason else "did not come to the end of"
    assert f"Step 1 (Count) {what} attempt 1: {told}." in page
    assert "(crashed)</span>" not in page
    assert ending.reason not in page[page.index('id="step-1"') : page.index("<dt>Attempt 1</dt>")]


def test_a_run_that_is_being_cancelled_says_what_becomes_of_its_step(signed_in):
    run = commands.start("counting", {"text": "a", "number": 1}, by="operator")
    log, opening = event_log.take(run.pk, owner="a process")
    log.append(opening)
    commands.cancel(run.pk, by="operator")
    assert (
        "It is being cancelled: its present step may take another 12 s, then it is cut off."
        in signed_in().get(f"/runs/{run.pk}/").text
    )


def test_a_gate_says_why_while_it_waits_and_after(signed_in):
    run = carried("paying")
    waiting = signed_in().get(f"/runs/{run.pk}/").text
    note = waiting[waiting.index('class="note tone-amber mb-0 wide"') :].partition("</p>")[0]
    assert "Money leaves the house. It waits for a person" in note
    assert "Asked because" not in waiting
    commands.decide(run.pk, 1, "reject", by="reviewer", fingerprint=run.reviews.get().fingerprint, reason="no")
    run.reviews.update(state="decided")
    assert "<dt>Asked because</dt><dd>Money leaves the house.</dd>" in signed_in().get(f"/runs/{run.pk}/").text


@pytest.mark.parametrize("slug", ["asking", "guessing", "stumbling"])
def test_what_a_step_says_elsewhere_is_no_second_reason(signed_in, slug):
    agents.FAILURES["odd"] = [agents.AskHuman("Who is this?")]
    (card,) = timeline.cards(carried(slug, text="odd"))
    assert card.asked_why
    assert card.reason_to_ask == ""


@pytest.mark.parametrize(
    ("name", "title", "shown"),
    [("pay", "Pay", ""), ("look_up", "Look up!", ""), ("count_1", "Count", "count_1"), ("guess", "Guess the language", "guess")],
)
def test_a_name_is_shown_where_the_title_says_something_else(name, title, shown):
    assert timeline.StepCard(Step(name=name, title=title)).name == shown


def test_the_name_of_a_step_stands_beside_its_title(signed_in):
    page = signed_in().get(f"/runs/{carried('counting', number=1).pk}/").text
    assert '<strong>Count</strong> <code class="name">count_1</code>' in page


def test_a_large_value_is_named_by_its_size_and_can_be_opened(signed_in, monkeypatch):
    def supervisor(run, order):
        text = run.step("repeat", agents.repeat, text="<b>é", times=order.number * 100_000)
        return agents.Answer(said=text)

    monkeypatch.setattr(agents, "counting", replace(agents.counting, function=supervisor))
    monkeypatch.setitem(sdk.AGENTS, "counting", agents.counting)
    run = carried("counting", number=3)
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert page.count("1.5 MB, stored beside the log") == 2  # the step's output and the run's
    address = re.search(rf'href="(/runs/{run.pk}/payloads/[0-9a-f]+/)"', page)[1]
    opened = signed_in("reviewer").get(address)
    assert whole(opened) == "<b>é" * 300_000
    assert opened["Content-Type"] == "text/plain; charset=utf-8"
    assert "no-store" in opened["Cache-Control"]
    assert opened["Content-Disposition"].startswith("attachment; ")
    another = carried("counting", number=0)
    assert signed_in().get(address.replace(f"/{run.pk}/", f"/{another.pk}/")).status_code == 404
    assert signed_in("outsider").get(address).status_code == 403


def test_a_run_whose_agent_is_not_installed_any_more_is_offered_neither_a_retry_nor_a_fork(signed_in, monkeypatch):
    run = carried("asking")
    commands.cancel(run.pk, by="operator")
    offered = signed_in().get(f"/runs/{run.pk}/").text
    assert f"/runs/{run.pk}/retry/" in offered
    assert f"/runs/{run.pk}/steps/1/fork/" in offered
    assert "is not installed here" not in offered
    monkeypatch.delitem(sdk.AGENTS, "asking")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert f"/runs/{run.pk}/retry/" not in page
    assert f"/runs/{run.pk}/steps/1/fork/" not in page
    assert "Not retried or forked: its agent is not installed here" in page
    assert "Not retried or forked" not in signed_in("reviewer").get(f"/runs/{run.pk}/").text
    with pytest.raises(commands.UnknownAgent, match="There is no agent 'asking'"):
        commands.retry(run.pk, by="operator")
    run.refresh_from_db()
    assert run.status == "cancelled"
