"""What goes wrong at the edges of a run: cancels that come late, effects whose end is unknown, rude supervisors."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from reviews.models import Review
from runs import commands, dispatch, event_log, executor
from runs.engine.errors import GiveUp, TryLater
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.sdk import Rejected, Result
from runs.sdk import Run as Handle
from tests.scripted import (
    EFFECTS,
    SCRIPT,
    advanced,
    again,
    blank,
    decided,
    judged,
    killed_in,
    kinds,
    one_step,
    pay,
    pay_by_guess,
    plain,
    plain_or_pay,
    raises,
    started,
    why,
)

__all__ = ["blank"]
pytestmark = pytest.mark.django_db


# --- effects that may happen only once ----------------------------------------------------------------------------


def test_a_retry_after_a_cancel_repeats_no_effect_whose_end_is_unknown() -> None:
    run = started(one_step(pay))
    killed_in(run, start_of("one", pay))
    assert "Nobody knows whether it happened" in why(advanced(run))
    commands.cancel(run.pk, by="operator")
    assert again(run).status == "waiting"
    assert "Nobody knows whether it happened" in why(run)
    assert EFFECTS == []
    assert decided(run, "happened", value="it happened").output == {"said": "it happened"}


def test_a_retry_after_a_cancel_asks_again_about_the_same_proposal() -> None:
    run = advanced(started(one_step(pay_by_guess)))
    commands.cancel(run.pk, by="operator")
    assert again(run).status == "waiting"
    assert (EFFECTS, Review.objects.open().get().proposal) == (["paid"], "paid")
    assert decided(run, "approve").output == {"said": "paid"}
    assert EFFECTS == ["paid"]


def test_a_recorded_success_survives_changed_code_a_cancel_and_a_retry() -> None:
    SCRIPT["plain"] = lambda: "plain"
    run = started(lambda run: (run.step("one", pay, text="x"), run.step("two", judged, text="x"))[0])
    SCRIPT["judged"] = lambda: Result("unsure", 0.1)
    advanced(run)
    commands.cancel(run.pk, by="operator")
    SCRIPT["supervisor"] = one_step(plain)
    assert "the code now asks for the same" not in why(again(run))
    commands.cancel(run.pk, by="operator")
    SCRIPT["supervisor"] = lambda run: (run.step("one", pay, text="x"), run.step("two", judged, text="x"))[0]
    assert decided(again(run), "approve").output == {"said": "paid"}
    assert EFFECTS == ["paid"]


@pytest.mark.parametrize("error", [TryLater("no answer within 8 s"), GiveUp("no"), ValueError("odd")])
def test_a_failed_attempt_at_an_effect_is_not_repeated_by_itself(error: Exception) -> None:
    SCRIPT["pay"] = lambda: raises(error)
    run = advanced(started(one_step(pay)))
    assert (run.status, EFFECTS) == ("waiting", ["paid"])
    assert "Nobody knows whether it happened" in why(run)


def test_the_fallbacks_own_effect_counts() -> None:
    SCRIPT["pay"] = lambda: raises(SystemExit(1))
    run = advanced(started(one_step(plain_or_pay)))
    assert (run.status, EFFECTS, run.steps.get().effect) == ("waiting", ["paid"], "once")
    killed = started(one_step(plain_or_pay))
    taken = {"worker": pay.name, "effect": "once", "why": "gone"}
    start = start_of("one", plain_or_pay)
    attempt = Draft(Kind.ATTEMPT_STARTED, {"attempt": 2, "remark": ""}, 1)
    killed_in(killed, start, Draft(Kind.FALLBACK_TAKEN, taken, 1), attempt)
    assert "Nobody knows whether it happened" in why(advanced(killed))


def start_of(name: str, worker_: Any) -> Draft:
    log = event_log.RunLog(0, event_log.RunState())
    request = executor.Steps(log).reach(name, worker_, {"text": "x"}).request
    return Draft(Kind.STEP_STARTED, request | {"attempt": 1}, 1)


# --- cancels that come in between -----------------------------------------------------------------------------------


def cancel_within(run: list[Run], answer: Any) -> Callable[[], Any]:
    def work() -> Any:
        commands.cancel(run[0].pk, by="operator")
        return answer

    return work


@pytest.mark.parametrize("answer", [Result("sure", 0.9), Result("unsure", 0.1)])
def test_a_cancel_during_the_last_step_is_heard_whatever_the_step_comes_to(answer: Result[str]) -> None:
    runs: list[Run] = []
    SCRIPT["judged"] = cancel_within(runs, answer)
    runs.append(started(one_step(judged)))
    run = advanced(runs[0])
    assert (run.status, run.lease_until) == ("cancelled", None)
    assert not Review.objects.open().exists()
    assert kinds(run).count("RunCancelled") == 1


def test_a_cancel_during_a_step_lets_no_further_step_begin() -> None:
    runs: list[Run] = []
    SCRIPT["plain"] = cancel_within(runs, "done")
    runs.append(started(lambda run: (run.step("one", plain, text="x"), run.step("two", pay, text="x"))[0]))
    run = advanced(runs[0])
    assert (run.status, EFFECTS, run.steps.count()) == ("cancelled", [], 1)
    assert run.steps.get().status == "succeeded", "what happened is kept"


def test_a_cancel_during_a_step_that_waits_for_another_attempt_is_heard() -> None:
    runs: list[Run] = []

    def busy() -> Any:
        commands.cancel(runs[0].pk, by="operator")
        raise TryLater("busy", retry_after=60)

    SCRIPT["plain"] = busy
    runs.append(started(one_step(plain)))
    assert advanced(runs[0]).status == "cancelled"


def test_a_cancel_between_taking_and_beginning_is_final() -> None:
    run = started(one_step(plain))
    taken = event_log.take(run.pk, owner="slow")
    assert taken is not None
    log, opening = taken
    commands.cancel(run.pk, by="operator")
    with pytest.raises(event_log.LeaseLost):
        log.append(opening)
    assert kinds(run) == ["RunRequested", "RunCancelRequested", "RunCancelled"]


def test_a_second_cancel_ends_a_run_that_did_not_hear_the_first() -> None:
    run = started(one_step(judged))
    SCRIPT["judged"] = lambda: Result("unsure", 0.1)
    advanced(run)
    with event_log.locked(run.pk) as log:
        log.append(Draft(Kind.RUN_CANCEL_REQUESTED, {"reason": ""}, actor="operator"))
    commands.cancel(run.pk, by="operator")
    run.refresh_from_db()
    assert run.status == "cancelled"


# --- code that changed ------------------------------------------------------------------------------------------------


def test_a_cancel_for_changed_code_ends_the_run_and_a_retry_compares_anew() -> None:
    SCRIPT["plain"] = lambda: "plain"
    SCRIPT["judged"] = lambda: Result("unsure", 0.1)
    both = lambda run: (run.step("one", plain, text="x"), run.step("two", judged, text="x"))[0]  # noqa: E731
    run = advanced(started(both))
    commands.cancel(run.pk, by="operator")
    SCRIPT["supervisor"] = lambda run: run.step("other", plain, text="x")
    assert Review.objects.open().get(run=again(run)).cause == "code_changed"
    run = decided(run, "cancel")
    assert (run.status, run.error) == ("cancelled", None)
    SCRIPT["supervisor"] = both
    assert again(run).status == "waiting"
    assert Review.objects.open().get(run=run).cause == "low_confidence"


def test_a_retry_asks_again_only_about_the_step_that_ended_the_run() -> None:
    def supervisor(run: Handle) -> Any:
        try:
            run.step("gate", plain.gated("ask"), text="x")
        except Rejected:
            return run.step("bug", judged, text="x") + SCRIPT["then"]()
        return "approved"

    SCRIPT["judged"] = lambda: Result("sure", 0.9)
    SCRIPT["then"] = lambda: raises(RuntimeError("a bug"))
    run = decided(advanced(started(supervisor)), "reject")
    assert (run.status, run.error["kind"]) == ("failed", "RuntimeError")
    SCRIPT["then"] = lambda: "!"
    assert again(run).output == {"said": "sure!"}


# --- rude supervisors ---------------------------------------------------------------------------------------------------


def test_a_finally_block_executes_nothing_while_the_run_is_parked() -> None:
    def supervisor(run: Handle) -> Any:
        try:
            return run.step("one", judged, text="x")
        finally:
            run.step("clean_up", pay, text="x")

    SCRIPT["judged"] = lambda: Result("unsure", 0.1)
    run = advanced(started(supervisor))
    assert (run.status, EFFECTS) == ("waiting", [])
    assert decided(run, "approve").status == "succeeded"
    assert EFFECTS == ["paid"]


def test_a_supervisor_that_swallows_everything_cannot_end_a_parked_run() -> None:
    def supervisor(run: Handle) -> Any:
        try:
            return run.step("one", judged, text="x")
        except BaseException:  # noqa: BLE001
            return "swallowed"

    SCRIPT["judged"] = lambda: Result("unsure", 0.1)
    run = advanced(started(supervisor))
    assert run.status == "waiting"
    assert decided(run, "approve").output == {"said": "unsure"}


def test_a_supervisor_cannot_swallow_the_loss_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def supervisor(run: Handle) -> Any:
        try:
            return run.step("one", plain, text="x")
        except Exception:  # noqa: BLE001
            return "swallowed"

    SCRIPT["plain"] = lambda: "plain"
    run = started(supervisor)
    with monkeypatch.context() as away:
        away.setattr(event_log.RunLog, "append", lambda *a, **k: raises(OperationalError("the database is away")))
        with pytest.raises(OperationalError):
            executor.advance(run.pk, owner="test")
    Run.objects.update(lease_until=event_log.now())
    assert advanced(run).output == {"said": "plain"}


@pytest.mark.parametrize("error", [SystemExit("bye"), asyncio.CancelledError("bye")])
def test_a_supervisor_that_wants_to_end_its_process_fails_its_run_and_keeps_what_was_done(error: BaseException) -> None:
    SCRIPT["plain"] = lambda: "plain"
    run = advanced(started(lambda run: raises(error)))
    assert (run.status, run.error["kind"], run.error["message"]) == ("failed", type(error).__name__, "bye")
    run = advanced(started(lambda run: (one_step(plain)(run), raises(error))))
    assert (run.status, run.steps.get().status) == ("failed", "succeeded")


# --- processes that do not survive a step ---------------------------------------------------------------------------------


def test_a_step_that_kills_its_process_three_times_goes_to_a_person() -> None:
    run = started(one_step(plain))
    killed_in(run, start_of("one", plain))
    for attempt in (2, 3):
        killed_in(run, Draft(Kind.ATTEMPT_STARTED, {"attempt": attempt, "remark": ""}, 1))
    assert why(advanced(run)).startswith("This step left no result 3 times. The last time its job process killed was")
    SCRIPT["plain"] = lambda: "survived"
    assert decided(run, "retry").output == {"said": "survived"}


def test_a_worker_that_exits_is_a_failed_attempt() -> None:
    SCRIPT["plain"] = lambda: raises(SystemExit(3))
    assert why(advanced(started(one_step(plain)))) == "SystemExit: 3"


def test_a_process_that_is_asked_to_stop_gives_the_run_back_between_two_steps() -> None:
    SCRIPT["plain"] = lambda: executor.hand_over.set()
    run = started(lambda run: (run.step("one", plain, text="x"), run.step("two", judged, text="x"))[1])
    try:
        run = advanced(run)
    finally:
        executor.hand_over.clear()
    assert (run.status, run.lease_until, run.steps.get().status) == ("queued", None, "succeeded")
    SCRIPT["judged"] = lambda: Result("sure", 0.9)
    assert advanced(run).output == {"said": "sure"}
    assert kinds(run).count("StepStarted") == 2


def test_a_run_that_ends_its_process_before_anything_is_recorded_fails_in_the_end_and_can_be_retried() -> None:
    SCRIPT["plain"] = lambda: "plain"
    run = started(one_step(plain))
    for _ in range(executor.MOST_TAKINGS):
        assert event_log.take(run.pk, owner="killed at once") is not None
        Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())
    run = advanced(run)
    assert (run.status, run.error["kind"], run.step_count) == ("failed", "process_ended", 0)
    assert "ended 10 times" in run.error["message"]
    assert again(run).output == {"said": "plain"}


@pytest.mark.django_db(transaction=True)
def test_a_call_that_is_in_nobodys_hands_is_missing() -> None:
    """RQ lost it between taking it from the queue and starting it: its hash still says queued."""
    run = started(one_step(plain))
    call = dispatch.Call(run.pk, run.last_seq)
    assert dispatch.missing([call]) == []
    dispatch.django_rq.get_queue("default").pop_job_id()
    assert dispatch.missing([call]) == [call]
