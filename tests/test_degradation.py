"""Graceful degradation: another worker, a person, or going on without the result and saying so."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agentops import report
from reviews.models import Review
from runs import audit, commands, describe, event_log, executor
from runs.engine.events import Draft, Kind
from runs.engine.outcome import Ending, crashed
from runs.models import Run
from runs.sdk import GiveUp, Rejected, Result, TryLater, agent, ask_human, call, skip, worker
from runs.sdk import Run as Handle
from tests.agents import Answer, Order

pytestmark = pytest.mark.django_db
DOES: dict[str, Callable[..., Any]] = {}
NOTE = "The rating of the shop is missing."


def does(name: str) -> str:
    return str(DOES.get(name, lambda: name)())


@worker(attempts=1, fallback=skip(NOTE))
def rate(shop: str) -> str | None:
    return does("rate")


@worker(attempts=1, fallback=skip("The price is the one of last year.", value=9))
def price(shop: str) -> int | Result[int]:
    return int(does("price"))


@worker(fallback=skip("The cache is empty as well."))
def cached(shop: str) -> str | None:
    return does("cached")


@worker(attempts=1, fallback=cached)
def current(shop: str) -> str | None:
    return does("current")


@worker(attempts=1, fallback=ask_human)
def decided_by_a_person(shop: str) -> str:
    return does("person")


@agent("shopping", title="Shopping", version="1")
def shopping(run: Handle, order: Order) -> Answer:
    """Does what the test has put into DOES."""
    return Answer(said=str(DOES["supervisor"](run)))


@agent("outlet", title="Outlet", version="1")
def outlet(run: Handle, order: Order) -> Answer:
    """A child that may be completed partially."""
    return Answer(said=str(run.step("rate", rate, shop=order.text)))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    DOES.clear()


def fails(error: Exception) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def carried(supervisor: Callable[[Handle], Any]) -> Run:
    DOES["supervisor"] = supervisor
    return advanced(commands.start("shopping", {"text": "hello"}, by="operator"))


def one_step(step: Any) -> Callable[[Handle], Any]:
    return lambda run: run.step("step", step, shop="corner")


def sentences(run: Run) -> list[str]:
    titles = dict(run.steps.values_list("position", "title"))
    return [describe.sentence(fact, titles) for fact in event_log.facts(run.pk)]


@pytest.mark.parametrize("error", [GiveUp("no such shop"), TryLater("busy")])
def test_a_skipped_step_completes_its_run_partially_and_says_what_is_missing(error: Exception) -> None:
    DOES["rate"] = fails(error)
    run = carried(one_step(rate))
    missing = [{"step": 1, "title": "Rate", "note": NOTE}]
    step = run.steps.get()
    assert (run.status, run.output, run.lease_until) == ("partial", {"said": "None"}, None)
    assert (step.status, step.reason, step.error["message"]) == ("skipped", NOTE, str(error))
    assert event_log.missing(run.pk) == missing
    assert not Review.objects.exists()
    assert f"The run was completed partially. Missing: step 1 (Rate): {NOTE}" in sentences(run)
    assert any(line.startswith(f"Step 1 (Rate) was skipped: {NOTE} It ") for line in sentences(run))
    shown = report.with_details(Run.objects.filter(pk=run.pk)).get()
    assert json.loads(report.as_json(shown))["missing"] == missing
    assert f"Missing: step 1 (Rate): {NOTE}" in report.as_text(shown)


def test_a_value_stands_in_the_place_of_the_result_and_the_run_goes_on_after_a_replay() -> None:
    seen: list[Any] = []
    DOES["price"] = fails(GiveUp("no price"))
    DOES["person"] = fails(GiveUp("asks"))

    def supervisor(run: Handle) -> str:
        seen.append(run.step("price", price, shop="corner"))
        return run.step("person", decided_by_a_person, shop="corner")

    run = carried(supervisor)
    assert (run.status, run.waiting_cause, seen) == ("waiting", "person", [9])
    review = Review.objects.get()
    commands.decide(run.pk, 2, "take_over", by="reviewer", fingerprint=review.fingerprint, value="by hand")
    run = advanced(run)
    assert (run.status, run.output, seen) == ("partial", {"said": "by hand"}, [9, 9])
    assert [one["step"] for one in event_log.missing(run.pk)] == [1]


def test_each_of_several_that_are_skipped_side_by_side_is_named() -> None:
    DOES["rate"], DOES["price"] = fails(GiveUp("no")), fails(GiveUp("no"))
    DOES["current"] = lambda: "fresh"
    calls = [("rate", rate), ("price", price), ("current", current)]
    run = carried(lambda run: run.gather(*(call(name, step, shop="corner") for name, step in calls)))
    assert (run.status, run.output) == ("partial", {"said": "[None, 9, 'fresh']"})
    assert [one["title"] for one in event_log.missing(run.pk)] == ["Rate", "Price"]


def test_what_was_skipped_beside_a_step_that_a_person_rejected_is_missing_too() -> None:
    DOES["rate"], DOES["person"] = fails(GiveUp("no")), fails(GiveUp("asks"))

    def supervisor(run: Handle) -> str:
        try:
            run.gather(call("rate", rate, shop="corner"), call("person", decided_by_a_person, shop="corner"))
        except Rejected:
            return "without both"
        return "with both"

    run = carried(supervisor)
    commands.decide(run.pk, 2, "reject", by="reviewer", fingerprint=Review.objects.get().fingerprint, reason="no")
    run = advanced(run)
    assert (run.status, run.output) == ("partial", {"said": "without both"})
    assert [one["title"] for one in event_log.missing(run.pk)] == ["Rate"]


@pytest.mark.parametrize(
    ("cached_does", "status", "output", "fallback"),
    [(lambda: "old", "succeeded", "old", "test_degradation.cached"), (fails(GiveUp("none")), "partial", "None", "skipped")],
)
def test_a_fallback_may_itself_be_skipped(cached_does: Any, status: str, output: str, fallback: str) -> None:
    DOES["current"], DOES["cached"] = fails(GiveUp("no")), cached_does
    run = carried(one_step(current))
    step = run.steps.get()
    assert (run.status, run.output, step.fallback) == (status, {"said": output}, "test_degradation.cached")
    assert [fact.data["worker"] for fact in event_log.facts(run.pk) if fact.kind == "FallbackTaken"] == [
        "test_degradation.cached"
    ]
    assert (step.status == "skipped") is (fallback == "skipped")


@pytest.mark.parametrize(("step", "error"), [(decided_by_a_person, GiveUp("no")), (rate, ZeroDivisionError("odd"))])
def test_a_person_is_asked_where_that_is_the_fallback_and_for_every_error_nobody_knows(step: Any, error: Exception) -> None:
    DOES["person"], DOES["rate"] = fails(error), fails(error)
    run = carried(one_step(step))
    assert (run.status, Review.objects.get().cause) == ("waiting", "failed")


def test_a_parent_is_completed_without_what_its_children_were_completed_without() -> None:
    DOES["rate"] = fails(GiveUp("no"))

    def supervisor(run: Handle) -> str:
        outcomes = run.join(*run.spawn_many("outlets", "outlet", [{"text": "a"}, {"text": "b"}]))
        return " ".join(f"{one.status} {one.succeeded} {one.output.said}" for one in outcomes)

    run = carried(supervisor)
    for child in run.children.order_by("pk"):
        assert advanced(child).status == "partial"
    run = advanced(run)
    first = run.children.order_by("pk").first()
    assert first
    assert (run.status, run.output) == ("partial", {"said": "partial True None partial True None"})
    assert [one["note"] for one in event_log.missing(run.pk)] == [f"Run {first.pk} and 1 more were completed partially."]


def test_a_fork_takes_over_a_skipped_step_and_is_completed_without_it_too() -> None:
    DOES["rate"] = fails(GiveUp("no"))

    def supervisor(run: Handle) -> str:
        return f"{run.step('rate', rate, shop='corner')} {run.step('price', price, shop='corner')}"

    DOES["price"] = lambda: "3"
    run = carried(supervisor)
    del DOES["rate"]
    fork = advanced(commands.fork(run.pk, step=2, by="operator"))
    assert (fork.status, fork.output, [step.status for step in fork.steps.all()]) == (
        "partial", {"said": "None 3"}, ["skipped", "succeeded"],
    )  # fmt: skip
    again = advanced(commands.fork(run.pk, step=1, by="operator"))
    assert (again.status, again.output) == ("succeeded", {"said": "rate 3"})


def test_a_run_that_was_completed_partially_has_ended() -> None:
    DOES["rate"] = fails(GiveUp("no"))
    run = carried(one_step(rate))
    with pytest.raises(commands.Refused, match="has already ended"):
        commands.cancel(run.pk, by="operator")
    with pytest.raises(commands.Refused, match="Only a failed or cancelled run can be retried"):
        commands.retry(run.pk, by="operator")
    assert not Run.objects.due().exists()


# --- time ---------------------------------------------------------------------------------------------------------------


def hang() -> None:
    """In Python, so that it can be cut off in this process."""
    while True:
        time.sleep(0.01)


@worker(effect="idempotent", timeout=0.2, fallback=cached)
def hanging(shop: str) -> str | None:
    DOES["calls"]()
    hang()
    return None


@worker(effect="idempotent", total_timeout=0.6, attempts=100, fallback=cached)
def slow(shop: str) -> str | None:
    return does("slow")


def test_an_attempt_that_hangs_is_cut_off_and_after_three_the_fallback_is_taken() -> None:
    calls: list[int] = []
    DOES["calls"], DOES["cached"] = lambda: calls.append(1), lambda: "old"
    run = carried(one_step(hanging))
    step = run.steps.get()
    assert (run.status, run.output, len(calls)) == ("succeeded", {"said": "old"}, 3)
    assert step.fallback == "test_degradation.cached"
    crashes = [fact.data for fact in event_log.facts(run.pk) if fact.kind == "AttemptCrashed"]
    assert [crash["reason"] for crash in crashes] == ["because it took longer than 0.2 s"] * 3


def test_a_step_that_ended_three_processes_by_hanging_in_them_takes_the_fallback_in_the_next() -> None:
    """As the keeper leaves it where a step hangs in C: it writes the crash and ends the process (tests/test_keeper.py)."""
    DOES["supervisor"], DOES["cached"] = one_step(hanging), lambda: "old"
    run = commands.start("shopping", {"text": "hello"}, by="operator")
    taken = event_log.take(run.pk, owner="ended")
    assert taken
    log, opening = taken
    request = executor.Steps(log, opening).reach("step", hanging, {"shop": "corner"}).request
    starts = [Draft(Kind.STEP_STARTED, request | {"attempt": 1}, 1)]
    starts += [Draft(Kind.ATTEMPT_STARTED, {"attempt": attempt, "remark": ""}, 1) for attempt in (2, 3)]
    ending = Ending("because it took longer than 0.2 s", 0.2)
    hung = [draft for attempt, start in enumerate(starts, 1) for draft in (start, crashed(1, attempt, ending))]
    log.append(opening, *hung, Draft(Kind.RUN_RELEASED), release=True)
    run = advanced(run)
    assert (run.status, run.output, run.steps.get().attempt) == ("succeeded", {"said": "old"}, 4)


def test_a_step_that_hangs_beyond_its_own_time_takes_the_fallback_at_once() -> None:
    DOES["slow"], DOES["cached"] = hang, lambda: "old"
    run = carried(one_step(slow))
    kinds = [fact.kind for fact in event_log.facts(run.pk)]
    assert (run.status, run.output, kinds.count("AttemptCrashed")) == ("succeeded", {"said": "old"}, 1)
    assert "FallbackTaken" in kinds


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TryLater("busy", retry_after=600), "It still failed after 1 attempt in [01] s: busy"),
        (TryLater(600, why="no file"), r"It could not be done within 0\.6 s: no file"),
    ],
)
def test_a_wait_beyond_the_time_of_the_step_is_not_begun(error: Exception, why: str) -> None:
    DOES["slow"], DOES["cached"] = fails(error), lambda: "old"
    run = carried(one_step(slow))
    assert (run.status, run.output) == ("succeeded", {"said": "old"})
    (said,) = [fact.data["why"] for fact in event_log.facts(run.pk) if fact.kind == "FallbackTaken"]
    assert re.fullmatch(why, said)


def test_every_attempt_says_how_long_it_took(client: Client) -> None:
    DOES["slow"] = lambda: time.sleep(0.05) or "done"
    run = carried(one_step(slow))
    DOES["slow"] = lambda: time.sleep(0.05) or fails(GiveUp("no"))()
    failed = carried(one_step(slow))
    facts = [*event_log.facts(run.pk), *event_log.facts(failed.pk)]
    took = {fact.kind: fact.data["duration_ms"] for fact in facts if "duration_ms" in fact.data}
    assert took.keys() == {"StepSucceeded", "AttemptFailed"}
    assert took["AttemptFailed"] >= 50
    assert "failed after " in client.get(f"/runs/{failed.pk}/").text


# --- what people see ------------------------------------------------------------------------------------------------


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    made = Client()
    made.force_login(people["operator"])
    return made


def test_pages_say_that_it_was_completed_partially_and_without_what(client: Client) -> None:
    DOES["rate"] = fails(GiveUp("no such shop"))
    run = carried(one_step(rate))
    page = client.get(f"/runs/{run.pk}/").text
    assert "Completed partially" in page
    assert f'<a href="#step-1">step 1 (Rate)</a>: {NOTE}' in page
    assert "no such shop" in page
    assert "Skipped" in page
    assert f'id="run-link-{run.pk}"' in client.get("/runs/?status=partial").text
    assert "There is no run" not in client.get("/runs/?status=partial").text
    assert f'id="run-link-{run.pk}"' not in client.get("/runs/?status=succeeded").text
    assert 'id="count--partial"' in client.get("/").text
