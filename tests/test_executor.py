"""Runs carried by the executor on a real database: every way a step can go, and what the rows say afterwards."""

import time
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from pydantic import ValidationError

from reviews.models import Review
from runs import attempts, audit, commands, event_log, executor, pen, sdk, steps
from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.engine.events import Draft, Kind, first_broken
from runs.engine.state import Status
from runs.models import Run
from runs.models.event import Event
from tests import agents

pytestmark = pytest.mark.django_db


def started(slug: str, number: int = 3, text: str = "hello", **more: Any) -> Run:
    return commands.start(slug, {"text": text, "number": number, **more}, by="operator")


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    return run


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def review_of(run: Run) -> Review:
    return Review.objects.open().get(run=run)


def decide(run: Run, decision: str, **more: Any) -> Run:
    review = review_of(run)
    commands.decide(run.pk, review.position, decision, by="reviewer", fingerprint=review.fingerprint, **more)
    review.delete()
    return advanced(run)


def test_a_run_succeeds_and_its_rows_are_what_its_events_say() -> None:
    run = advanced(started("counting"))
    assert (run.status, run.output, run.step_count, run.lease_until) == ("succeeded", {"said": "3"}, 3, None)
    assert kinds(run) == ["RunRequested", "RunStarted", *["StepStarted", "StepSucceeded"] * 3, "RunSucceeded"]
    assert [(step.name, step.status, step.output, step.attempt) for step in event_log.with_payloads(run.pk, run.steps.all())] == [
        ("count_1", "succeeded", 1, 1),
        ("count_2", "succeeded", 2, 1),
        ("count_3", "succeeded", 3, 1),
    ]
    assert audit.first_wrong(run.pk) == ""


def test_a_result_and_the_next_start_share_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps: take the lease, read the events once, one statement a start (with the success before it), one for the end."""
    advanced(started("counting", 1))  # what a process asks once in a while, it has asked
    run, statements = started("counting", 10), []
    execute, insert = psycopg.Cursor.execute, pen._group._insert
    counted = lambda self, *a, **k: statements.append(a[0]) or execute(self, *a, **k)  # noqa: E731
    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    monkeypatch.setattr(pen._group, "_insert", lambda asked: statements.append(asked) or insert(asked))
    executor.advance(run.pk, owner="test")
    assert len(statements) == 1 + 10 + 1
    assert event_log.rows(run.pk).count() == 2 + 20 + 1


def test_low_confidence_waits_for_a_person() -> None:
    run = advanced(started("guessing", 5))
    assert (run.status, run.waiting_cause, run.waiting_step, run.lease_until) == ("waiting", "person", 1, None)
    review = review_of(run)
    assert (review.cause, review.confidence, review.threshold) == ("low_confidence", 0.5, 0.8)
    assert review.proposal == {"colour": "red", "amount": 5}
    assert review.why == "Confidence 0.50 is under the threshold of 0.80. because of its length"
    assert advanced(run).status == "waiting", "a parked run is advanced by nobody"


def test_enough_confidence_needs_nobody() -> None:
    assert advanced(started("guessing", 8)).output == {"said": "red 5"}
    assert not Review.objects.exists()


@pytest.mark.parametrize(
    ("decision", "value", "said"),
    [("approve", None, "red 5"), ("edit", {"colour": "green", "amount": 7}, "green 7"), ("send_back", None, "red 5")],
)
def test_the_decision_resumes_the_run(decision: str, value: Any, said: str) -> None:
    run = decide(advanced(started("guessing", 5)), decision, value=value, reason="look again")
    assert (run.status, run.output) == ("succeeded", {"said": said})
    step = run.steps.get()
    assert (step.decision, step.decided_by, step.attempt) == (decision, "reviewer", 2 if decision == "send_back" else 1)


def test_an_uncaught_rejection_fails_the_run_with_the_persons_reason() -> None:
    run = decide(advanced(started("guessing", 5)), "reject", reason="nonsense")
    assert (run.status, run.error["message"]) == ("failed", "reviewer rejected it: nonsense")
    assert run.steps.get().status == "rejected"


def test_a_gated_step_is_executed_only_after_a_person_approved_it(tmp_path: Any) -> None:
    ledger = tmp_path / "ledger"
    run = advanced(started("paying", 42, ledger=str(ledger)))
    assert not ledger.exists()
    review = review_of(run)
    assert (review.cause, review.subject, review.why) == ("gated", "input", "Money leaves the house.")
    assert review.proposal == {"amount": 42, "ledger": str(ledger)}
    run = decide(run, "edit", value={"amount": 41.5, "ledger": str(ledger)})
    assert (run.output, ledger.read_text()) == ({"said": "paid 41.5"}, "paid 41.5\n")


def test_a_caught_rejection_lets_the_supervisor_go_another_way() -> None:
    run = decide(advanced(started("paying")), "reject", reason="too much")
    assert (run.status, run.output) == ("succeeded", {"said": "not paid: too much"})


def test_a_question_is_answered_by_a_person() -> None:
    run = advanced(started("asking"))
    review = review_of(run)
    assert (review.cause, review.why, review.allowed) == ("question", "Which colour for hello?", ["answer", "reject"])
    run = decide(run, "answer", value={"colour": "green", "amount": 1})
    assert run.output == {"said": "green"}


def test_a_short_wait_is_slept_and_a_long_one_parks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(steps, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic))
    monkeypatch.setattr(attempts.random, "random", lambda: 0.5)
    agents.FAILURES["waits"] = [TryLater("busy"), TryLater("busy", retry_after=60)]
    run = advanced(started("stumbling", text="waits"))
    assert slept == [1.0]
    assert (run.status, run.waiting_cause) == ("retrying", "retry")
    assert 55 < (run.wake_at - event_log.now()).total_seconds() <= 60
    assert advanced(run).status == "retrying", "it is not due yet"
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())
    run = advanced(run)
    assert (run.status, run.steps.get().attempt) == ("succeeded", 3)
    assert kinds(run).count("AttemptFailed") == 2


def test_a_step_that_failed_finally_asks_a_person_who_may_supply_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(attempts.random, "random", lambda: 0.1)
    agents.FAILURES["fails"] = [TryLater("busy")] * 3
    run = advanced(started("stumbling", text="fails"))
    review = review_of(run)
    assert (review.cause, review.why) == ("failed", "It still failed after 3 attempts: busy")
    assert run.steps.get().error["kind"] == "TryLater"
    assert decide(run, "take_over", value="by hand").output == {"said": "by hand"}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (GiveUp("no such card"), "It cannot succeed by trying again: no such card"),
        (AskHuman("odd"), "AskHuman: odd"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_other_errors_are_not_tried_again(error: Exception, why: str) -> None:
    agents.FAILURES["once"] = [error]
    run = advanced(started("stumbling", text="once"))
    assert review_of(run).why == why
    assert decide(run, "retry").output == {"said": "stood up"}


def test_a_critical_step_takes_its_fallback_and_an_unknown_error_does_not() -> None:
    agents.FAILURES["falls"] = [GiveUp("gone")]
    run = advanced(started("falling-back", text="falls"))
    assert (run.output, run.steps.get().fallback) == ({"said": "another way"}, "agents.other_way")
    assert "FallbackTaken" in kinds(run)
    agents.FAILURES["unknown"] = [ZeroDivisionError("by zero")]
    assert advanced(started("falling-back", text="unknown")).status == "waiting"


def test_a_result_that_cannot_be_stored_asks_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agents.FAILURES, "nul", [])
    monkeypatch.setattr(agents.stumble.function, "__code__", (lambda text: "a\x00b").__code__)
    run = advanced(started("stumbling", text="nul"))
    assert "NUL" in review_of(run).why


# --- interruptions ----------------------------------------------------------------------------------------------


def interrupted(run: Run, *, after: int) -> None:
    """Leave the run as a process does that is killed in its step number `after` + 1."""
    taken = event_log.take(run.pk, owner="killed")
    assert taken is not None
    log, opening = taken
    pass_ = executor.Steps(log, opening)
    for number in range(after):
        pass_.perform(f"count_{number + 1}", agents.count, {"number": number, "ledger": "", "seconds": 0.0})
    request = pass_.reach(f"count_{after + 1}", agents.count, {"number": after, "ledger": "", "seconds": 0.0}).request
    log.append(*pass_.unwritten, Draft(Kind.STEP_STARTED, request | {"attempt": 1}, after + 1))


def began(run: Run) -> event_log.RunLog:
    """Take the run as a job process does, and write so."""
    taken = event_log.take(run.pk, owner="test")
    assert taken is not None
    log, opening = taken
    log.append(opening)
    return log


def expire(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())


def test_another_process_takes_over_and_repeats_no_recorded_step() -> None:
    run = started("counting")
    interrupted(run, after=1)
    assert advanced(run).status == "running", "the lease is still in force"
    expire(run)
    run = advanced(run)
    assert run.output == {"said": "3"}
    assert [step.attempt for step in run.steps.all()] == [1, 2, 1]
    assert "RunTakenOver" in kinds(run)


def test_a_process_that_lost_its_lease_can_write_nothing() -> None:
    run = started("counting")
    zombie = began(run)
    expire(run)
    advanced(run)
    before = event_log.rows(run.pk).count()
    with pytest.raises(event_log.LeaseLost):
        zombie.append(Draft(Kind.RUN_FAILED, {"error": {}}))
    assert event_log.rows(run.pk).count() == before


def test_a_step_that_may_happen_only_once_and_whose_end_is_unknown_goes_to_a_person(tmp_path: Any) -> None:
    run = advanced(started("paying", 5, ledger=str(tmp_path / "ledger")))
    review = review_of(run)
    commands.decide(run.pk, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
    review.delete()
    began(run).append(Draft(Kind.ATTEMPT_STARTED, {"attempt": 1, "remark": ""}, 1))
    expire(run)
    run = advanced(run)
    assert run.status == "waiting"
    assert "Nobody knows whether it happened" in review_of(run).why
    assert not (tmp_path / "ledger").exists()


def changed(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    monkeypatch.setattr(sdk.AGENTS["counting"].function, "__code__", function.__code__)


def test_changed_code_stops_at_exactly_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    run = started("counting")
    interrupted(run, after=2)
    expire(run)
    original = sdk.AGENTS["counting"].function.__code__

    def other(run: Any, order: Any) -> Any:
        run.step("count_1", count, number=0, ledger="", seconds=0.0)  # type: ignore[name-defined]  # noqa: F821
        run.step("recount", count, number=1, ledger="", seconds=0.0)  # type: ignore[name-defined]  # noqa: F821

    changed(monkeypatch, other)
    run = advanced(run)
    review = review_of(run)
    assert (review.cause, review.position) == ("code_changed", 2)
    assert "step 2 was `count_2`, the code now asks for `recount`" in review.why
    monkeypatch.setattr(sdk.AGENTS["counting"].function, "__code__", original)
    run = decide(run, "retry")
    assert (run.status, run.output) == ("succeeded", {"said": "3"})


def test_code_that_ends_before_a_recorded_step_is_changed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    run = started("counting")
    interrupted(run, after=1)
    expire(run)

    def shorter(run: Any, order: Any) -> Any:
        return Answer(said="short")  # type: ignore[name-defined]  # noqa: F821

    changed(monkeypatch, shorter)
    assert "the code now ends before it" in review_of(advanced(run)).why


def test_two_steps_of_one_name_fail_the_run_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(run: Any, order: Any) -> Any:
        run.step("count", count, number=0)  # type: ignore[name-defined]  # noqa: F821
        run.step("count", count, number=0)  # type: ignore[name-defined]  # noqa: F821

    changed(monkeypatch, twice)
    run = advanced(started("counting"))
    assert (run.status, run.error["message"]) == ("failed", "Two steps of this run are named 'count'; number them in a loop.")


def test_a_failed_run_is_retried_from_where_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = sdk.AGENTS["counting"].function.__code__

    def broken(run: Any, order: Any) -> Any:
        run.step("count_1", count, number=0, ledger="", seconds=0.0)  # type: ignore[name-defined]  # noqa: F821
        raise RuntimeError("a bug")

    changed(monkeypatch, broken)
    run = advanced(started("counting"))
    assert (run.status, run.error["kind"]) == ("failed", "RuntimeError")
    monkeypatch.setattr(sdk.AGENTS["counting"].function, "__code__", original)
    commands.retry(run.pk, by="operator")
    run = advanced(run)
    assert (run.output, [step.attempt for step in run.steps.all()]) == ({"said": "3"}, [1, 1, 1])


def test_a_parked_run_is_cancelled_at_once_and_its_review_closes() -> None:
    run = advanced(started("guessing", 1))
    commands.cancel(run.pk, by="operator")
    run.refresh_from_db()
    assert (run.status, run.steps.get().status, Review.objects.get().state) == ("cancelled", "cancelled", "cancelled")
    with pytest.raises(commands.Refused, match="already ended"):
        commands.cancel(run.pk, by="operator")


def test_a_running_run_is_cancelled_after_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    run = started("counting")
    pass_ = executor.Steps(began(run))
    commands.cancel(run.pk, by="operator")
    with pytest.raises(executor.Stopped):
        pass_.perform("count_1", agents.count, {"number": 0})
    run.refresh_from_db()
    assert (run.status, run.lease_until) == ("cancelled", None)


# --- commands on the wrong thing -------------------------------------------------------------------------------


def test_a_decision_on_something_else_is_refused() -> None:
    run = advanced(started("guessing", 1))
    seen = review_of(run).fingerprint
    cases: list[tuple[dict[str, Any], str]] = [
        ({"decision": "approve", "fingerprint": "other"}, "has changed since you looked"),
        ({"decision": "answer", "fingerprint": seen}, "cannot be decided with 'answer'"),
    ]
    for given, words in cases:
        with pytest.raises(commands.Refused, match=words):
            commands.decide(run.pk, 1, by="reviewer", **given)
    with pytest.raises(ValidationError):
        commands.decide(run.pk, 1, "edit", by="reviewer", fingerprint=seen, value={"colour": "blue", "amount": 1})
    assert event_log.RunLog.load(run.pk).state.steps[1].status == Status.WAITING


def test_starting_is_refused_with_a_sentence() -> None:
    with pytest.raises(commands.UnknownAgent, match=r"There is no agent 'nobody'\. Known agents: asking, "):
        commands.start("nobody", {}, by="")
    with pytest.raises(ValidationError):
        commands.start("counting", {"text": ""}, by="")
    commands.configure("counting", by="admin", enabled=False)
    with pytest.raises(commands.Refused, match="disabled"):
        started("counting")


def test_a_run_keeps_the_configuration_it_started_with() -> None:
    run = started("guessing", 5)
    config = commands.configure("guessing", by="admin", threshold=0.1)
    assert (config.version, config.changed_by) == (2, "admin")
    assert advanced(run).status == "waiting"
    assert advanced(started("guessing", 5)).status == "succeeded"


# --- the log ----------------------------------------------------------------------------------------------------


def test_the_database_refuses_to_change_the_log() -> None:
    run = advanced(started("counting"))
    for change in (
        lambda: Event.objects.filter(run=run).update(kind="x"),
        lambda: Event.objects.filter(run=run).delete(),
        lambda: connection.cursor().execute("UPDATE runs_event SET actor = 'x'"),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
    assert first_broken(run.pk, event_log.facts(run.pk)) == ""


def test_rows_are_rebuilt_from_events_and_a_changed_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = decide(advanced(started("guessing", 5)), "edit", value={"colour": "green", "amount": 7})
    assert audit.first_wrong(run.pk) == ""
    run.steps.update(status="failed")
    assert audit.first_wrong(run.pk) == "column status of its step 1 is not what its events say"
    Run.objects.filter(pk=run.pk).update(status="failed")
    assert audit.first_wrong(run.pk) == "its column status is not what its events say"
    run.steps.all().delete()
    event_log.reproject(run.pk)
    assert audit.first_wrong(run.pk) == ""
