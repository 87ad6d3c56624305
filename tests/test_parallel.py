"""Steps side by side: their results in order, what one of them waits for, and what happens in the middle."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from reviews import decisions
from reviews.models import Review
from runs import audit, commands, event_log, executor, sdk
from runs.engine.errors import TryLater
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.sdk import Rejected, Result, agent, call, worker
from runs.sdk import Run as Handle
from tests.agents import Answer, Order

pytestmark = pytest.mark.django_db
DOES: dict[str, Any] = {}
CALLED: list[str] = []


def does(name: str) -> Any:
    CALLED.append(name)
    return DOES.get(name, lambda: name)()


@worker
def piece(name: str) -> str:
    return str(does(name))


@worker(effect="once")
def piece_once(name: str) -> str:
    return str(does(name))


@worker
def estimated(name: str) -> Result[str]:
    return Result(name, confidence=does(name) if name in DOES else 0.1)


@agent("gathering", title="Gathering", version="1", threshold=0.8)
def gathering(run: Handle, order: Order) -> Answer:
    """Does what the test has put into DOES."""
    return Answer(said=str(DOES["supervisor"](run)))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    DOES.clear()
    CALLED.clear()


def started(*workers: sdk.Worker[..., str], then: Callable[[list[str]], Any] = " ".join) -> Run:
    calls = [call(f"part_{number}", each, name=f"part_{number}") for number, each in enumerate(workers, start=1)]
    DOES["supervisor"] = lambda run: then(run.gather(*calls))
    return commands.start("gathering", {"text": "hello"}, by="operator")


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def decided(run: Run, position: int, kind: str, **more: Any) -> None:
    review = Review.objects.open().get(run=run, position=position)
    actor = User.objects.get(username="reviewer")
    decisions.decide(review.pk, actor=actor, kind=kind, seen=review.fingerprint, reason="because", **more)
    run.refresh_from_db()


def statuses(run: Run) -> list[str]:
    return [step.status for step in run.steps.all()]


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def test_results_come_in_order_although_the_workers_meet() -> None:
    """Each waits for all the others: one after the other they would never end."""
    together = threading.Barrier(4)
    for number in range(1, 5):
        DOES[f"part_{number}"] = lambda number=number: (together.wait(timeout=30), f"<{number}>")[1]
    run = advanced(started(piece, piece, piece, piece))
    assert (run.status, run.output) == ("succeeded", {"said": "<1> <2> <3> <4>"})
    assert kinds(run)[:6] == ["RunRequested", "RunStarted", *["StepStarted"] * 4], "all starts are one write"


def test_no_more_run_at_once_than_the_setting_says(settings: Any) -> None:
    settings.GATHER_THREADS = 2
    busy, most, lock, both = [0], [0], threading.Lock(), threading.Barrier(2)

    def work() -> str:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        both.wait(timeout=30)
        with lock:
            busy[0] -= 1
        return "x"

    DOES.update({f"part_{number}": work for number in range(1, 21)})
    run = advanced(started(*[piece] * 20))
    assert (run.status, most[0], statuses(run)) == ("succeeded", 2, ["succeeded"] * 20)


def test_one_that_needs_a_person_does_not_stop_the_others_and_several_are_decided_separately() -> None:
    run = advanced(started(piece, estimated, piece.gated("look first"), estimated))
    assert (run.status, run.waiting_cause, run.waiting_step) == ("waiting", "person", 2)
    assert statuses(run) == ["succeeded", "waiting", "waiting", "waiting"]
    decided(run, 3, "approve")
    assert advanced(run).status == "waiting"
    assert statuses(run) == ["succeeded", "waiting", "succeeded", "waiting"]
    decided(run, 2, "edit", value="by hand")
    decided(run, 4, "approve")
    assert advanced(run).output == {"said": "part_1 by hand part_3 part_4"}
    assert CALLED.count("part_1") == CALLED.count("part_3") == 1
    assert kinds(run).count("StepEscalated") == 3, "nobody is asked twice"


def test_a_decision_while_the_others_still_work_is_not_lost() -> None:
    DOES["part_2"] = lambda: "late"
    run = started(piece.gated("look first"), piece)
    taken = event_log.take(run.pk, owner="test")
    assert taken is not None
    steps = executor.Steps(*taken)
    original = steps.log.append

    def decided_before_it_parks(*drafts: Draft, release: bool = False, **more: Any) -> None:
        if release and Review.objects.open().filter(run=run).exists():
            decided(run, 1, "approve")
        original(*drafts, release=release, **more)

    steps.log.append = decided_before_it_parks  # type: ignore[method-assign]
    executor._carry_until_stopped(steps)
    run.refresh_from_db()
    assert (run.status, run.lease_until) == ("queued", None), "it would otherwise wait for a decision that was made"
    assert advanced(run).output == {"said": "part_1 late"}


@pytest.mark.django_db(transaction=True)
def test_a_decision_while_a_decided_one_is_executed_goes_on_although_a_third_is_still_asked() -> None:
    run = advanced(started(*[piece.gated("look first")] * 3))
    decided(run, 1, "approve")
    DOES["part_1"] = lambda: decided(run, 2, "approve") or "part_1"
    run = advanced(run)
    assert list(Run.objects.due()) == [run]
    run = advanced(run)
    assert (run.status, statuses(run)) == ("waiting", ["succeeded", "succeeded", "waiting"])


def test_the_first_rejection_in_order_is_raised_when_all_are_done() -> None:
    run = advanced(started(piece, estimated, estimated))
    decided(run, 3, "reject")
    assert advanced(run).status == "waiting", "another is still open"
    decided(run, 2, "reject")
    run = advanced(run)
    assert (run.status, run.error["kind"]) == ("failed", "rejected")
    assert event_log.facts(run.pk)[-1].step == 2


def test_one_that_is_tried_again_later_waits_for_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = {"part_1": 0, "part_2": 0}

    def busy(name: str, seconds: float) -> Callable[[], str]:
        def work() -> str:
            tries[name] += 1
            if tries[name] == 1:
                raise TryLater("busy", retry_after=seconds)
            return name

        return work

    DOES["part_1"], DOES["part_2"] = busy("part_1", 1000), busy("part_2", 5000)
    run = advanced(started(piece, piece, piece))
    assert (run.status, run.waiting_cause, statuses(run)) == ("retrying", "retry", ["retrying", "retrying", "succeeded"])
    assert 900 < (run.wake_at - event_log.now()).total_seconds() <= 1000
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())
    assert statuses(advanced(run)) == ["succeeded", "retrying", "succeeded"]
    assert (run.status, tries) == ("retrying", {"part_1": 2, "part_2": 1})
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())
    assert advanced(run).output == {"said": "part_1 part_2 part_3"}


def test_a_cancel_in_the_middle_keeps_what_happened_and_begins_nothing(settings: Any) -> None:
    settings.GATHER_THREADS = 1
    run = started(piece, piece, piece_once)
    record = executor.Steps.record

    def cancelled_first(self: executor.Steps, *drafts: Draft, release: bool = False) -> bool:
        if CALLED and not self.log.state.cancel_requested:
            commands.cancel(run.pk, by="operator")
        return record(self, *drafts, release=release)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor.Steps, "record", cancelled_first)
        run = advanced(run)
    assert (run.status, statuses(run), CALLED) == ("cancelled", ["succeeded"], ["part_1"])
    commands.retry(run.pk, by="operator")
    assert advanced(run).output == {"said": "part_1 part_2 part_3"}
    assert CALLED == ["part_1", "part_2", "part_3"]


def test_a_hand_over_in_the_middle_begins_nothing_more(settings: Any) -> None:
    settings.GATHER_THREADS = 1
    DOES["part_1"] = lambda: executor.hand_over.set() or "x"
    run = started(piece, piece)
    try:
        run = advanced(run)
    finally:
        executor.hand_over.clear()
    assert (run.status, statuses(run), run.lease_until) == ("queued", ["succeeded"], None)
    assert advanced(run).output == {"said": "x part_2"}


def test_a_process_that_dies_in_the_middle_repeats_only_what_may_be_repeated() -> None:
    run = started(piece, piece_once, piece)
    taken = event_log.take(run.pk, owner="killed")
    assert taken is not None
    log, opening = taken
    starts = []
    for number, each in enumerate((piece, piece_once, piece), start=1):
        request = executor.Steps(log)
        request.position = number - 1
        asked = request.reach(f"part_{number}", each, {"name": f"part_{number}"}).request
        starts.append(Draft(Kind.STEP_STARTED, asked | {"attempt": 1}, number))
    log.append(opening, *starts)
    log.append(Draft(Kind.STEP_SUCCEEDED, {"output": "done"}, 3))
    Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())
    run = advanced(run)
    assert (run.status, statuses(run), CALLED) == ("waiting", ["succeeded", "waiting", "succeeded"], ["part_1"])
    assert Review.objects.open().get(run=run).cause == "outcome_unknown"
    decided(run, 2, "happened", value="it did")
    assert advanced(run).output == {"said": "part_1 it did done"}


def test_a_supervisor_that_is_not_deterministic_inside_gather_is_found() -> None:
    run = advanced(started(piece, estimated))
    DOES["supervisor"] = lambda run: run.gather(call("part_1", piece, name="other"), call("part_2", estimated, name="part_2"))
    Run.objects.filter(pk=run.pk).update(status="queued", waiting_cause="", waiting_step=None)
    executor.advance(run.pk, owner="test")
    found = Review.objects.open().filter(run=run).order_by("position")
    assert [(review.position, review.cause) for review in found] == [(1, "code_changed"), (2, "low_confidence")]
    assert CALLED.count("part_1") == 1, "nothing was executed"


def test_a_question_that_a_changed_code_displaced_is_asked_again_and_nothing_is_executed_twice() -> None:
    def supervisor(name: str) -> Callable[[Handle], Any]:
        first, gate = call("first", piece_once, name=name), call("gate", piece.gated("look"), name="gate")
        return lambda run: run.gather(first, gate)

    DOES["paid"] = lambda: (_ for _ in ()).throw(RuntimeError("timeout"))
    run = started(piece)
    DOES["supervisor"] = supervisor("paid")
    run = advanced(run)
    DOES["supervisor"] = supervisor("other")
    decided(run, 2, "approve")
    assert Review.objects.open().get(run=advanced(run), position=1).cause == "code_changed"
    commands.cancel(run.pk, by="operator")
    commands.retry(run.pk, by="operator")
    assert Review.objects.open().get(run=advanced(run), position=1).cause == "code_changed"
    closed = Review.objects.filter(run=run, state="cancelled").order_by("pk")
    assert list(closed.values_list("cause", "ending")) == [("outcome_unknown", "code_changed"), ("code_changed", "run_ended")]
    DOES["supervisor"] = supervisor("paid")
    decided(run, 1, "retry")
    assert Review.objects.open().get(run=advanced(run)).cause == "outcome_unknown"
    decided(run, 1, "happened", value="it did")
    assert advanced(run).output == {"said": "['it did', 'gate']"}
    assert CALLED == ["paid", "gate"]


def test_a_proposal_that_a_changed_code_displaced_is_judged_again() -> None:
    def supervisor(name: str) -> Callable[[Handle], Any]:
        return lambda run: run.step("first", estimated, name=name)

    run = started(piece)
    DOES["supervisor"] = supervisor("guess")
    commands.cancel(advanced(run).pk, by="operator")
    commands.retry(run.pk, by="operator")
    DOES["supervisor"] = supervisor("other")
    run = advanced(run)
    DOES["supervisor"] = supervisor("guess")
    decided(run, 1, "retry")
    review = Review.objects.open().get(run=advanced(run))
    assert (review.cause, review.proposal, review.confidence) == ("low_confidence", "guess", 0.1)
    decided(run, 1, "approve")
    assert advanced(run).output == {"said": "guess"}
    assert "AttemptCrashed" not in kinds(run)


def test_a_run_that_ends_while_somebody_is_asked_asks_nobody_any_more() -> None:
    def supervisor(run: Handle) -> str:
        raise RuntimeError("a bug")

    run = advanced(started(estimated, estimated))
    DOES["supervisor"] = supervisor
    decided(run, 1, "approve")
    run = advanced(run)
    assert (run.status, statuses(run)) == ("failed", ["succeeded", "cancelled"])
    assert not Review.objects.open().exists()


def test_a_caught_rejection_lets_the_supervisor_go_on() -> None:
    def caught(run: Handle) -> str:
        try:
            return " ".join(run.gather(call("a", piece, name="a"), call("b", piece.gated("ask"), name="b")))
        except Rejected as rejected:
            return rejected.reason

    run = started(piece)
    DOES["supervisor"] = caught
    decided(advanced(run), 2, "reject")
    assert advanced(run).output == {"said": "because"}
