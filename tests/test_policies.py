"""Policies and real steps: before and after execution, at a deadline, as a sample; what an admin may write."""

import dataclasses
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from pydantic import BaseModel

from reviews import history
from reviews.models import Cause, Review, Risk
from runs import audit, commands, describe, escalations, event_log, executor, policies, sdk
from runs.engine import policy as judging
from runs.engine.events import Draft, Kind
from runs.models import Policy, Run
from runs.sdk import Result, agent, skip, worker
from tests.agents import Answer, Order
from tests.reviewing import fresh, signed_in

pytestmark = pytest.mark.django_db


# --- real steps -----------------------------------------------------------------------------------------------------


class Sum(BaseModel):
    cents: int
    note: str = ""


CALLED: list[int] = []
ANSWERS: dict[str, Any] = {}


@worker
def quote(cents: int) -> Sum:
    CALLED.append(cents)
    return Sum(cents=cents)


@worker
def estimate(cents: int) -> Result[Sum]:
    return Result(Sum(cents=cents), ANSWERS.get("confidence"), why="it looked so")


@worker(effect="once")
def transfer(cents: int) -> Sum:
    CALLED.append(cents)
    return Sum(cents=cents)


@worker(fallback=skip("There is no rating."))
def rating(cents: int) -> Sum | None:
    raise sdk.GiveUp("no rater")


WORKERS: dict[str, sdk.Worker[..., Any]] = {"quote": quote, "estimate": estimate, "transfer": transfer, "rating": rating}


@agent("quoting", title="Quoting", version="1", threshold=0.8)
def quoting(run: sdk.Run, order: Order) -> Answer:
    """Quotes its number with the worker that its text names; says so when nobody decided in time."""
    one = {"quote": quote, "estimate": estimate, "transfer": transfer, "rating": rating}[order.text]
    try:
        found = run.step("quote", one, cents=order.number)
    except sdk.Expired:
        return Answer(said="too late")
    except sdk.Rejected as rejected:
        return Answer(said=f"no: {rejected.reason}")
    return Answer(said=str(found and found.cents))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    CALLED.clear()
    ANSWERS.clear()


def policy(worker_: sdk.Worker[..., Any] | None = quote, **terms: Any) -> Policy:
    return policies.configure(by="admin", agent="quoting", worker=worker_.name if worker_ else "", **terms)


def started(what: str = "quote", number: int = 500) -> Run:
    return advanced(commands.start("quoting", {"text": what, "number": number}, by="operator"))


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def asked(run: Run) -> Review:
    return Review.objects.open().get(run=run)


def decide(run: Run, decision: str, **more: Any) -> Run:
    review = asked(run)
    commands.decide(run.pk, review.position, decision, by="reviewer", fingerprint=review.fingerprint, **more)
    review.delete()
    return advanced(run)


LARGE = {"when": "condition", "path": "cents", "operator": ">", "value": 100}


def test_a_condition_on_the_input_is_asked_before_anything_happens() -> None:
    row = policy(**LARGE, subject="input", risk="high", approvals=2, within_seconds=60)
    assert (started(number=100).status, CALLED) == ("succeeded", [100])
    run = started(number=101)
    review = asked(run)
    assert (run.status, CALLED) == ("waiting", [100])
    assert (review.cause, review.subject, review.risk, review.approvals) == ("gated", "input", Risk.HIGH, 2)
    assert (review.rule, review.default) == (f"Policy {row.pk}, version 1: cents > 100", "expire")
    assert review.due_at is not None
    assert review.why == f"{review.rule}. It is 101."
    assert decide(run, "edit", value={"cents": 7}).output == {"said": "7"}
    assert CALLED == [100, 7]


def test_a_condition_on_the_result_is_asked_before_the_run_goes_on() -> None:
    policy(**LARGE, subject="output")
    run = started(number=101)
    assert (run.status, CALLED, asked(run).proposal) == ("waiting", [101], {"cents": 101, "note": ""})
    assert {"approve", "edit", "reject"} <= set(asked(run).allowed)
    assert decide(run, "approve").output == {"said": "101"}
    assert CALLED == [101]


def test_what_cannot_be_evaluated_goes_to_a_person_and_no_clock_approves_it() -> None:
    policy(None, when="condition", subject="input", path="cents", operator="=", value="5", within_seconds=60)
    Policy.objects.update(path="nowhere", default="approve")
    run = started()
    assert (run.status, CALLED, asked(run).default) == ("waiting", [], "expire")
    assert "could not be evaluated: there is no nowhere" in asked(run).why


def test_never_switches_off_the_threshold_but_no_gate_of_the_code() -> None:
    assert started("estimate").status == "waiting"
    policy(estimate, when="never", sample_share=1.0)
    run = started("estimate")
    assert (run.status, describe.sentence(event_log.facts(run.pk)[-2], {})) == (
        "succeeded",
        "Step 1 succeeded without a confidence: its policy asks nobody about that. "
        "It was drawn as a sample, for a person to look at.",
    )
    policies.configure(by="admin", agent="paying", when="never")
    run = advanced(commands.start("paying", {"text": "rent", "number": 5}, by="operator"))
    assert (run.status, asked(run).cause, asked(run).risk, asked(run).rule) == ("waiting", "gated", Risk.HIGH, "")


def test_a_policys_threshold_counts_and_is_recorded() -> None:
    ANSWERS["confidence"] = 0.85
    assert started("estimate").status == "succeeded"
    policy(estimate, threshold=0.9)
    review = asked(started("estimate"))
    assert (review.cause, review.threshold, review.confidence) == ("low_confidence", 0.9, 0.85)
    assert review.rule.endswith("confidence under 0.9")


def test_a_fact_under_a_threshold_of_its_own_has_no_confidence_and_needs_a_person() -> None:
    policy(quote, threshold=0.1)
    review = asked(started())
    assert (review.cause, review.confidence, review.threshold) == ("low_confidence", None, 0.1)


def test_a_run_keeps_the_policies_it_started_with() -> None:
    run = commands.start("quoting", {"text": "quote", "number": 500}, by="operator")
    row = policy(**LARGE)
    assert advanced(run).status == "succeeded"
    assert started().status == "waiting"
    policies.configure(row.pk, by="admin", enabled=False)
    assert started().status == "succeeded"


def deploy(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The code has another worker `quote` from now on."""
    changed = dataclasses.replace(quote, **changes)
    monkeypatch.setitem(sdk.WORKERS, quote.name, changed)
    monkeypatch.setitem(globals(), "quote", changed)


# --- what may happen only once -----------------------------------------------------------------------------------------


def test_what_was_done_once_is_not_sent_back_to_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy(transfer, when="always", approvals=2)
    run = started("transfer")
    assert asked(run).allowed == ["approve", "edit", "reject"]
    policy(quote, when="always")
    deployed = started("quote")
    deploy(monkeypatch, effect="once")
    assert "send_back" in asked(deployed).allowed, "its worker was harmless when it was asked"
    for one in (run, deployed):
        with pytest.raises(commands.Refused, match=r"cannot be decided with|only once"):
            decide(one, "send_back", reason="Once more.")
    assert CALLED == [500, 500]


def test_a_result_of_what_was_done_once_is_put_again_when_the_run_is_retried() -> None:
    policies.configure(by="admin", agent="once", when="always", approvals=2)
    run = advanced(commands.start("once", {"text": "x", "number": 5}, by="operator"))
    before, rejected = asked(run), decide(run, "reject", reason="Wrong.")
    assert rejected.status == "failed"
    commands.retry(run.pk, by="operator")
    advanced(run)
    again = asked(run)
    assert CALLED == [5]
    for name in ("cause", "subject", "proposal", "allowed", "risk", "approvals", "rule"):
        assert getattr(again, name) == getattr(before, name)
    assert decide(run, "approve").output == {"said": "5"}
    assert CALLED == [5]


@pytest.mark.parametrize(("terms", "status"), [({"approvals": 2}, "waiting"), ({"risk": "high"}, "waiting"), ({}, "succeeded")])
def test_a_result_that_was_sent_back_goes_round_no_second_person(terms: dict[str, Any], status: str) -> None:
    policy(estimate, **terms)
    ANSWERS["confidence"] = 0.1
    run = started("estimate")
    ANSWERS["confidence"] = 0.99
    run = decide(run, "send_back", reason="Be surer.")
    assert run.status == status
    if status == "waiting":
        assert (asked(run).approvals, asked(run).confidence) == (terms.get("approvals", 1), 0.99)
        assert "sent back for changes" in asked(run).why


@agent("once", title="Once", version="1")
def only_once(run: sdk.Run, order: Order) -> Answer:
    """Transfers, and hears of no rejection."""
    return Answer(said=str(run.step("transfer", transfer, cents=order.number).cents))


# --- at the deadline --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "what", "output", "status"),
    [
        ({**LARGE, "subject": "input", "default": "approve"}, "quote", "500", "succeeded"),
        ({**LARGE, "subject": "output", "default": "approve"}, "quote", "500", "succeeded"),
        ({**LARGE, "subject": "input", "default": "expire"}, "quote", "too late", "succeeded"),
        ({"when": "always", "subject": "input", "default": "skip"}, "rating", "None", "partial"),
    ],
)
def test_at_the_deadline_happens_what_the_policy_names(terms: dict[str, Any], what: str, output: str, status: str) -> None:
    policy(WORKERS[what], **terms, within_seconds=1)
    run = started(what)
    review = asked(run)
    assert review.default == terms["default"]
    time_passes(run)
    run = advanced(run)
    assert (run.status, run.output) == (status, {"said": output})
    review.refresh_from_db()
    assert (review.state, review.decisions.count()) == ("expired", 0), "no person said anything"
    assert [line.did for line in history.lines(review)][-1] == Review.Ending(terms["default"]).label == review.why_closed
    event = event_log.rows(run.pk).get(kind=Kind.STEP_EXPIRED)
    assert (event.actor, event.data.get("default", "expire")) == ("", terms["default"])


def time_passes(run: Run) -> None:
    """Until the deadline of a second has come."""
    while event_log.now() <= run.wake_at:
        pass


def test_the_clock_approves_nothing_irreversible_even_where_the_row_says_so() -> None:
    with pytest.raises(ValidationError, match="the clock may not approve it"):
        policy(transfer, when="always", subject="input", within_seconds=1, default="approve")
    row = policy(transfer, when="always", subject="input", within_seconds=1, risk="low")
    Policy.objects.filter(pk=row.pk).update(default="approve")
    run = started("transfer")
    assert asked(run).default == "expire"
    time_passes(run)
    assert (advanced(run).output, CALLED) == ({"said": "too late"}, [])


@pytest.mark.parametrize("change", [{"effect": "once"}, {"fallback": transfer}])
@pytest.mark.parametrize("deployed", ["before the deadline", "after the clock approved it"])
def test_the_clock_approves_nothing_that_a_deploy_has_made_irreversible(
    deployed: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy(**LARGE, subject="input", within_seconds=1, default="approve")
    run = started()
    time_passes(run)
    if deployed == "before the deadline":
        deploy(monkeypatch, **change)
        assert (advanced(run).output, CALLED) == ({"said": "too late"}, [])
        return
    with event_log.locked(run.pk) as log:  # and the process that wrote it goes no further
        log.append(Draft(Kind.STEP_EXPIRED, escalations.expired(run.pk, log.state.steps[1]), 1))
    deploy(monkeypatch, **change)
    run = advanced(run)
    assert (run.status, asked(run).cause, CALLED) == ("waiting", "gated", [])
    assert "no longer what the clock approved" in asked(run).why


def test_a_question_is_as_risky_as_what_is_done_when_its_worker_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    row, before = policy(**LARGE, subject="input", within_seconds=60, default="approve"), started()
    assert (asked(before).risk, asked(before).default) == (Risk.NORMAL, "approve")
    deploy(monkeypatch, fallback=transfer)
    with pytest.raises(ValidationError, match="the clock may not approve it"):
        policies.configure(row.pk, by="admin", within_seconds=61)
    run = started()
    assert (asked(run).risk, asked(run).default) == (Risk.HIGH, "expire")
    assert decide(before, "approve").status == "waiting", "it was asked before there was such a fallback"
    assert (asked(before).risk, "no longer what reviewer approved" in asked(before).why, CALLED) == (Risk.HIGH, True, [])
    assert decide(before, "approve").status == "succeeded"


# --- a sample ---------------------------------------------------------------------------------------------------------


def test_a_sample_is_shown_to_people_and_holds_nothing_up() -> None:
    policy(None, sample_share=1.0)
    run = started()
    review = asked(run)
    assert (run.status, review.cause, review.risk, review.proposal) == (
        "succeeded",
        Cause.SAMPLE,
        Risk.LOW,
        {"cents": 500, "note": ""},
    )
    assert review.allowed == list(judging.OF_A_SAMPLE)
    assert event_log.rows(run.pk).get(kind=Kind.STEP_SUCCEEDED).data["sampled"] is True


def test_what_is_said_of_a_sample_is_never_told_as_something_that_happened(people: dict[str, User]) -> None:
    policy(None, sample_share=1.0)
    review, client = asked(started()), signed_in(people["reviewer"])
    typed = {"decision": "edit", "seen": review.fingerprint, "value.cents": "700", "value.note": ""}
    said = client.post(f"/reviews/{review.pk}/decision/", typed, follow=True).text
    said += client.get(review.get_absolute_url()).text + client.get("/reviews/history/").text
    for told in (f"Review {review.pk}: you said what would have been right.", "What would have been right", "Corrected"):
        assert told in said
    for untrue in ("dited and approved it", "dited and approved review", 'tone-neutral">Edited', "What the run went on with"):
        assert untrue not in said
    assert [line.did for line in history.lines(fresh(review))][-1] == "decided “Corrected”"


def test_what_a_person_saw_already_is_not_drawn() -> None:
    policy(**LARGE, subject="input", sample_share=1.0)
    assert decide(started(), "approve").status == "succeeded"
    assert not Review.objects.open().exists()


def test_nobody_is_shown_more_samples_than_the_agent_may_have_open() -> None:
    policy(None, sample_share=1.0)
    commands.configure("quoting", by="admin", reviews_per_agent=2)
    assert {started().status for _ in range(3)} == {"succeeded"}
    assert Review.objects.open().count() == 2


# --- what an admin may write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "field", "told"),
    [
        ({"agent": "nobody"}, "agent", "no such agent"), ({"worker": "quote.nothing"}, "worker", "no worker"),
        ({"when": "condition"}, "operator", "Say how"), (LARGE | {"path": "euros"}, "path", "It has: cents, note"),
        (LARGE | {"value": "many"}, "value", "a whole number"),
        (LARGE | {"path": "note", "value": "more"}, "value", "Enter a number, or a date"),
        (LARGE | {"value": ""}, "value", "whole number"),
        (LARGE | {"subject": "input", "path": "note"}, "path", "The input of Quote"),
        (LARGE | {"worker": "", "path": "note", "subject": "input"}, "path", "name a worker"),
        ({"threshold": 1.5}, "threshold", "less than or equal to 1"),
        ({"sample_share": -1}, "sample_share", "greater than or equal to 0"),
        ({"default": "skip"}, "within_seconds", "how long"),
        ({"default": "skip", "within_seconds": 5}, "default", "cannot be skipped"),
        ({"default": "approve", "within_seconds": 5, "risk": "high"}, "default", "high risk"),
        ({"approvals": 3}, "approvals", "not a valid choice"),
    ],
)  # fmt: skip
def test_a_policy_that_could_not_be_carried_out_is_refused_at_its_field(terms: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        policies.configure(by="admin", **{"agent": "quoting", "worker": quote.name} | terms)
    assert told in " ".join(refused.value.message_dict[field])
    assert not Policy.objects.exists()


def test_values_take_the_type_of_their_field() -> None:
    row = policy(**LARGE | {"value": "0100"})
    assert row.value == 100
    assert policies.configure(row.pk, by="admin", path="note", operator="contains", value="100").value == "100"
    assert policies.configure(row.pk, by="admin", operator="is empty").value is None


def test_versions_are_kept_and_two_policies_of_one_worker_are_refused() -> None:
    row = policy(**LARGE)
    assert policies.configure(row.pk, by="admin", value=100).version == 1
    changed = policies.configure(row.pk, by="admin2", value=200)
    assert (changed.version, changed.changed_by) == (2, "admin2")
    with pytest.raises(ValidationError, match="has a policy already"):
        policy(when="never")
    with pytest.raises(IntegrityError), transaction.atomic():
        Policy.objects.create(agent="quoting", worker=quote.name)
