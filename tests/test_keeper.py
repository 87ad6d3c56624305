"""Leases that are kept by one statement, and steps that are cut off: with real threads, real processes, real pauses."""

import signal
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from reviews import decisions
from reviews.models import Review
from runs import audit, commands, event_log, executor, keeper, sdk
from runs.engine.events import Kind
from runs.keeper import CutOff, Held, Watch
from runs.models import Run
from runs.sdk import agent, call, worker
from tests.agents import Answer, Order
from tests.processes import eventually, process

pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "CANCEL_SECONDS": "1", "LOG_LEVEL": "ERROR"}


def started(slug: str, text: str = "hello", number: int = 3, ledger: Path | None = None) -> Run:
    return commands.start(slug, {"text": text, "number": number, "ledger": str(ledger or "")}, by="operator")


def status(run: Run) -> str:
    return str(Run.objects.get(pk=run.pk).status)


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def lines(ledger: Path) -> list[list[str]]:
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


# --- leases -----------------------------------------------------------------------------------------------------


def leased() -> tuple[int, int]:
    run = started("counting")
    taken = event_log.take(run.pk, owner="test")
    assert taken is not None
    return run.pk, taken[0].fence or 0


def test_one_statement_renews_what_is_ours_and_tells_of_the_rest() -> None:
    ours, lost, ended, asked, gone = leased(), leased(), leased(), leased(), (0, 1)
    Run.objects.filter(pk=lost[0]).update(fence=lost[1] + 1)
    Run.objects.filter(pk=ended[0]).update(lease_until=None)
    Run.objects.filter(pk=asked[0]).update(cancel_requested=True)
    before = Run.objects.get(pk=ours[0]).lease_until
    found = event_log.renew_all([ours, lost, ended, asked, gone])
    assert found == {
        ours: (True, True, False),
        lost: (False, False, False),
        ended: (False, False, False),
        asked: (True, True, True),
    }
    assert Run.objects.get(pk=ours[0]).lease_until > before


def test_a_row_that_somebody_has_locked_keeps_nobody_waiting() -> None:
    locked, free = leased(), leased()
    renewed: list[dict[tuple[int, int], event_log.Lease]] = []
    with transaction.atomic():
        Run.objects.select_for_update().get(pk=locked[0])
        other = threading.Thread(target=lambda: renewed.append(event_log.renew_all([locked, free])))
        other.start()
        other.join(timeout=10)
        assert renewed == [{locked: (True, False, False), free: (True, True, False)}]


def test_nothing_begins_under_a_lease_that_ran_out_by_our_own_clock() -> None:
    called: list[int] = []
    held = Held(1, 1, asked=time.monotonic() - 1000)
    with pytest.raises(event_log.LeaseLost):
        held.attempt(1, None, lambda: called.append(1))
    held.renewed(time.monotonic())
    held.attempt(1, None, lambda: called.append(2))
    assert called == [2]


def test_a_worker_that_was_not_called_because_the_lease_ran_out_has_not_failed() -> None:
    run = started("counting")
    taken = event_log.take(run.pk, owner="test")
    assert taken is not None
    log, opening = taken
    held = Held(run.pk, log.fence, asked=time.monotonic() - 1000)
    held.renewed = lambda asked: None  # type: ignore[method-assign]
    executor._carry_to_the_end(executor._steps(log, opening, held=held))
    assert (status(run), kinds(run)) == ("running", ["RunRequested", "RunStarted", "StepStarted"])


def test_a_process_that_was_stopped_for_longer_than_its_lease_starts_no_further_effect(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("counting", number=40, ledger=ledger)
    with process("rqworker", "default", **FAST) as stopped:
        eventually(lambda: len(lines(ledger)) > 5)
        stopped.send_signal(signal.SIGSTOP)
        with process("rqworker", "default", **FAST), process("sweeper", **FAST):
            eventually(lambda: len({pid for _, _, pid in lines(ledger)}) == 2)
            before = sum(pid == str(stopped.pid) for _, _, pid in lines(ledger))
            stopped.send_signal(signal.SIGCONT)
            eventually(lambda: status(run) == "succeeded")
    assert sum(pid == str(stopped.pid) for _, _, pid in lines(ledger)) == before
    assert len(lines(ledger)) <= 41, "the step in hand may have happened twice, no other"
    assert audit.first_wrong(run.pk) == ""


@worker
def piece(name: str) -> str:
    return name


@agent("looked-at-twice", title="Looked at twice", version="1")
def looked_at_twice(run: sdk.Run, order: Order) -> Answer:
    gated = piece.gated("look")
    return Answer(said=" ".join(run.gather(call("a", gated, name="a"), call("b", gated, name="b"))))


def test_nobody_is_asked_about_a_run_whose_supervisor_was_given_up(people: dict[str, User]) -> None:
    run = started("looked-at-twice")
    executor.advance(run.pk, owner="test")
    first = Review.objects.open().get(run=run, position=1)
    decisions.decide(first.pk, actor=people["reviewer"], kind="approve", seen=first.fingerprint)
    taken = event_log.take(run.pk, owner="test")
    assert taken is not None
    log, opening = taken
    log.append(opening)
    reason = "because it took longer than 900 s"
    keeper._write_end(keeper.not_kept(run.pk, log.fence), lambda state: keeper._given_up(state, None, reason))
    assert kinds(run)[-2:] == [Kind.STEP_WITHDRAWN, Kind.RUN_FAILED]
    assert not Review.objects.open().filter(run=run).exists()
    assert audit.first_wrong(run.pk) == ""
    commands.retry(run.pk, by="operator")
    executor.advance(run.pk, owner="test")
    assert [review.position for review in Review.objects.open().filter(run=run)] == [2]


# --- cutting off ------------------------------------------------------------------------------------------------


def test_an_attempt_is_cut_off_within_itself_or_not_at_all() -> None:
    """Another thread cuts off at any moment, also at the very end: what follows the attempt is never hit.

    At least 3,000 attempts, and as many as it takes until one was cut off: on a busy machine the other thread comes late.
    """
    watched: list[Watch] = []
    ended = threading.Event()

    def cutter() -> None:
        while not ended.is_set():
            if watched:
                watched.pop().cut_off("by the test")

    held, cut = keeper.not_kept(1, 1), 0
    other = threading.Thread(target=cutter)
    other.start()
    try:
        for number in count():
            if number >= 3000 and cut:
                break
            try:
                held.attempt(
                    1, None, lambda number=number: (watched.append(held.watches[0]), [None] * (number % 300), sum(range(300)))
                )
            except CutOff as cutoff:
                cut += cutoff.reason == "by the test"
            sum(range(300))
            assert held.watches == []
    finally:
        ended.set()
        other.join()


def test_a_cancelled_run_is_cut_off_in_a_loop_and_its_process_lives(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("poisonous", "loop", number=2, ledger=ledger)
    with process("rqworker", "default", **FAST) as job_process:
        eventually(lambda: lines(ledger))
        commands.cancel(run.pk, by="operator", reason="enough")
        eventually(lambda: status(run) == "cancelled", seconds=30)
        other = started("counting")
        eventually(lambda: status(other) == "succeeded")
        assert job_process.poll() is None
    assert kinds(run)[-2:] == [Kind.ATTEMPT_CRASHED, Kind.RUN_CANCELLED]


def test_a_cancelled_run_that_sleeps_is_cancelled_and_its_process_ends_after_the_others_steps(tmp_path: Path) -> None:
    sleeping, counted = tmp_path / "sleeping", tmp_path / "counted"
    run = started("poisonous", "sleep", number=2, ledger=sleeping)
    with process("rqworker", "default", **FAST) as job_process:
        eventually(lambda: lines(sleeping))
        other = started("counting", number=2000, ledger=counted)
        eventually(lambda: lines(counted))
        commands.cancel(run.pk, by="operator", reason="enough")
        assert job_process.wait(timeout=30) == keeper.STUCK
    assert status(run) == "cancelled"
    assert kinds(other)[-1] == Kind.RUN_RELEASED
    assert "RunTakenOver" not in kinds(other)


def test_a_process_in_which_no_thread_can_run_ends_and_its_run_is_cancelled_elsewhere(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("poisonous", "lock", number=2, ledger=ledger)
    with process("rqworker", "default", **FAST) as job_process:
        eventually(lambda: lines(ledger))
        commands.cancel(run.pk, by="operator", reason="enough")
        assert job_process.wait(timeout=30) == 1
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: status(run) == "cancelled")
    assert len(lines(ledger)) == 1
