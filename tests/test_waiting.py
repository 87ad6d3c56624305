"""Waits that hold no process: "not yet", sleeps, deadlines of people; and the question which runs are due."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from reviews import decisions
from reviews.models import Review
from runs import audit, commands, describe, event_log, executor, reasons, sweeper
from runs.models import Run
from runs.sdk import Expired, TryLater, agent, ask_human, worker
from runs.sdk import Run as Handle
from tests.agents import Answer, Choice, Order

pytestmark = pytest.mark.django_db
DOES: dict[str, Callable[..., Any]] = {}


@worker(attempts=1)
def poll(text: str) -> str:
    return str(DOES["poll"]())


@worker(effect="once")
def poll_once(text: str) -> str:
    return str(DOES["poll"]())


@agent("unhurried", title="Unhurried", version="1")
def patient(run: Handle, order: Order) -> Answer:
    """Does what the test has put into DOES."""
    return Answer(said=str(DOES["supervisor"](run)))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    DOES.clear()


def started(supervisor: Callable[[Handle], Any]) -> Run:
    DOES["supervisor"] = supervisor
    return commands.start("unhurried", {"text": "hello"}, by="operator")


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def time_passes(run: Run) -> Run:
    """Until the moment for which the run is parked."""
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())
    return advanced(run)


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def seconds_left(run: Run) -> float:
    return (run.wake_at - event_log.now()).total_seconds()


@pytest.mark.parametrize("work", [poll, poll_once])
def test_not_yet_is_no_attempt_and_parks(work: Any) -> None:
    looks = [TryLater(30, why="no file"), TryLater(3600), TryLater(30)]

    def look() -> str:
        if looks:
            raise looks.pop(0)
        return "there"

    DOES["poll"] = look
    run = advanced(started(lambda run: run.step("poll", work, text="x")))
    assert (run.status, run.waiting_cause, run.lease_until) == ("waiting", "later", None)
    assert 25 < seconds_left(run) <= 30
    assert reasons.waiting(run, reasons.Wait(run.steps.get())).startswith("Step 1 (Poll")
    deferred = next(fact for fact in event_log.facts(run.pk) if fact.kind == "StepDeferred")
    assert (deferred.data["attempt"], deferred.data["seconds"], deferred.data["why"]) == (1, 30, "no file")
    assert "it is called again in 30 s" in describe.sentence(deferred, {1: "Poll"})
    assert advanced(run).status == "waiting", "it is not due yet"
    for _ in range(3):
        run = time_passes(run)
    assert (run.status, run.output, run.steps.get().attempt) == ("succeeded", {"said": "there"}, 1)
    assert "AttemptFailed" not in kinds(run)


def test_short_waits_give_the_process_back_when_asked_and_after_a_few(settings: Any) -> None:
    polled: list[int] = []

    def not_yet() -> str:
        polled.append(1)
        if len(polled) == 2:
            executor.hand_over.set()
        if len(polled) < 9:
            raise TryLater(0.01)
        return "ready"

    DOES["poll"] = not_yet
    try:
        run = advanced(started(lambda run: run.step("poll", poll, text="x")))
    finally:
        executor.hand_over.clear()
    assert (len(polled), run.status, run.lease_until) == (2, "queued", None)
    run = advanced(run)
    assert (len(polled), run.status, run.waiting_cause) == (6, "waiting", "later")
    assert time_passes(run).output == {"said": "ready"}


def test_a_sleep_ends_at_the_time_that_was_recorded_first() -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    moments = [later, later + timedelta(days=5)]
    run = advanced(started(lambda run: (run.sleep("rest", 60), run.sleep_until("until", moments.pop(0)), "awake")[-1]))
    assert (run.status, run.waiting_cause, 55 < seconds_left(run) <= 60) == ("waiting", "timer", True)
    assert reasons.waiting(run, reasons.Wait(run.steps.get())) == f"It waits and goes on {describe.when(run.wake_at)}."
    run = time_passes(run)
    assert (run.status, run.wake_at) == ("waiting", later)
    run = time_passes(run)
    assert (run.output, [step.status for step in run.steps.all()]) == ({"said": "awake"}, ["succeeded", "succeeded"])


def test_a_sleep_into_the_past_does_not_wait() -> None:
    run = advanced(started(lambda run: run.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC)) or "gone"))
    assert (run.status, run.output) == ("succeeded", {"said": "gone"})


@pytest.mark.parametrize(
    ("supervisor", "words"),
    [
        (lambda run: run.sleep_until("naive", datetime(2030, 1, 1)), "needs a time with a zone"),  # noqa: DTZ001
        (lambda run: run.sleep("back", -1), "-1 is not a number of seconds"),
        (lambda run: run.sleep("nan", float("nan")), "nan is not a number of seconds"),
    ],
)
def test_a_wait_that_makes_no_sense_fails_the_run_with_a_sentence(supervisor: Callable[[Handle], Any], words: str) -> None:
    run = advanced(started(supervisor))
    assert run.status == "failed"
    assert words in run.error["message"]


def test_a_cancel_and_a_retry_leave_a_sleep_its_time() -> None:
    run = advanced(started(lambda run: run.sleep("rest", 1000) or "awake"))
    was = run.wake_at
    commands.cancel(run.pk, by="operator")
    commands.retry(run.pk, by="operator")
    assert (advanced(run).status, run.wake_at) == ("waiting", was)


# --- deadlines of people --------------------------------------------------------------------------------------------


def ask(run: Handle) -> str:
    try:
        return str(run.step("ask", ask_human(Choice, within=3600), question="Which?").colour)
    except Expired as expired:
        return f"expired: {expired}"


def test_a_question_that_nobody_answers_in_time_expires_once() -> None:
    run = advanced(started(ask))
    assert (run.status, run.waiting_cause, 3590 < seconds_left(run) <= 3600) == ("waiting", "person", True)
    assert "It goes on without an answer at" in reasons.waiting(run, reasons.Wait(run.steps.get(), expires=True))
    run = time_passes(run)
    assert run.status == "succeeded"
    assert run.output["said"].startswith("expired: Nobody decided about step 1 (Ask a person) by ")
    assert (run.steps.get().status, Review.objects.get().state, kinds(run).count("StepExpired")) == ("expired", "expired", 1)


def test_an_answer_in_time_ends_the_deadline() -> None:
    run = advanced(started(ask))
    review = Review.objects.open().get()
    actor = User.objects.get(username="reviewer")
    value = {"colour": "red", "amount": 1}
    decisions.decide(review.pk, actor=actor, kind="answer", seen=review.fingerprint, reason="", value=value)
    run.refresh_from_db()
    assert (run.status, run.wake_at) == ("queued", None)
    assert advanced(run).output == {"said": "red"}


def test_a_decision_after_the_deadline_is_refused_also_before_anybody_noticed() -> None:
    run = advanced(started(lambda run: run.step("gate", poll.gated("look first", within=0), text="x")))
    review = Review.objects.open().get()
    with pytest.raises(commands.Refused, match="The time to decide ran out"):
        commands.decide(run.pk, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
    run = advanced(run)
    assert (run.status, run.error["kind"], Review.objects.get().state) == ("failed", "expired", "expired")
    commands.retry(run.pk, by="operator")
    assert (advanced(run).status, Review.objects.open().count()) == ("waiting", 1), "it is asked again"


# --- which runs are due ---------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_parked_runs_cost_the_sweeper_nothing_but_rows() -> None:
    at = event_log.now()
    parked = [
        ("waiting", "person", None),
        ("waiting", "timer", at + timedelta(days=1)),
        ("retrying", "retry", at + timedelta(days=1)),
    ]
    Run.objects.bulk_create(
        Run(agent="unhurried", created_at=at, status=status, waiting_cause=cause, wake_at=wake_at)
        for status, cause, wake_at in parked
        for _ in range(2000)
    )
    due = Run.objects.create(agent="unhurried", created_at=at, status="waiting", waiting_cause="timer", wake_at=at)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE runs_run")
    plan = Run.objects.due().explain(analyze=True)
    assert "Seq Scan" not in plan
    assert "Rows Removed by Filter" not in plan, "only those that are due are looked at"
    assert list(Run.objects.due()) == [due]
    assert sweeper.sweep() == 1
