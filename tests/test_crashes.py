"""What a crash is held against: the step that was alone in its process, never one that was only there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reviews.models import Review
from runs import audit, commands, event_log, executor, keeper, sdk, timeline
from runs.engine.events import Draft, Kind
from runs.engine.outcome import MOST_CRASHES, MOST_LOSSES, Ending, crashed, how_crashed, is_poison, lost
from runs.engine.step import StepState, after_crash
from runs.models import Run
from tests.agents import count, swallow
from tests.processes import eventually, process
from tests.test_poison import FAST, crashes, job_processes, started

pytestmark = pytest.mark.django_db(transaction=True)
STEP = StepState(1, "one", "worker", "One", "", None)


@pytest.mark.parametrize(
    ("ending", "counted", "told"),
    [
        (Ending("by signal 11 (SIGSEGV)", 1.0, signal=11), (1, 0), "its process ended by signal 11 (SIGSEGV) after 1.0 s"),
        (Ending("because it took longer than 1 s", 1.0), (1, 0), "it was cut off after 1.0 s, because it took longer than 1 s"),
        (lost("vm-1", 0, 1.0), (1, 0), "its job process vm-1 was lost; the run was taken over 1.0 s after the attempt began"),
        (lost("vm-1", 1, 1.0), (0, 1), "its job process vm-1 was lost with another in hand, which may have ended it; the run"),
        (lost("vm-1", 3, 1.0), (0, 1), "its job process vm-1 was lost with 3 others in hand, any of which may have ended it;"),
        (lost("", None, 1.0), (0, 0), "its job process was lost; the run was taken over 1.0 s after the attempt began"),
    ],
)
def test_what_an_ending_counts_for_and_how_it_is_told(ending: Ending, counted: tuple[int, int], told: str) -> None:
    crash = crashed(1, 1, ending).data
    assert after_crash(STEP, crash) == counted
    assert after_crash(replace(STEP, crashes=2, losses=3), crash) == (2 + counted[0], 3 + counted[1])
    assert how_crashed(crash).startswith(told)


def test_a_crash_of_an_older_log_counts() -> None:
    assert after_crash(STEP, {"attempt": 1, "reason": "together with vm-1"}) == (1, 0)


@pytest.mark.parametrize(
    ("crashes", "losses", "poison"),
    [(0, 0, False), (MOST_CRASHES - 1, MOST_LOSSES - 1, False), (MOST_CRASHES, 0, True), (0, MOST_LOSSES, True)],
)
def test_what_is_tried_no_more(crashes: int, losses: int, poison: bool) -> None:
    assert is_poison(crashes, losses) == poison


def killed_in(run: Run, owner: str, *drafts: Draft) -> None:
    """That process took the run, wrote the drafts and died."""
    log, opening = event_log.take(run.pk, owner=owner)  # type: ignore[misc]
    log.append(opening, *drafts)
    Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())


def start_of(name: str, worker: sdk.Worker[..., Any], **given: Any) -> Draft:
    steps = executor.Steps(event_log.RunLog(0, event_log.RunState()))
    return Draft(Kind.STEP_STARTED, steps.reach(name, worker, given).request | {"attempt": 1}, 1)


def test_a_step_that_a_person_lets_be_tried_again_is_alone_from_its_first_attempt(tmp_path: Path) -> None:
    """The job process that looks after it lives, and carries others meanwhile."""
    ledger = tmp_path / "ledger"
    run = started("poisonous", "exit", ledger=ledger)
    killed_in(run, "first", start_of("swallow", swallow, kind="exit", ledger=str(ledger)))
    for attempt, owner in ((2, "second"), (3, "third")):
        killed_in(run, owner, Draft(Kind.ATTEMPT_STARTED, {"attempt": attempt, "remark": ""}, 1))
    executor.advance(run.pk, owner="fourth")
    review = Review.objects.open().get(run=run)
    commands.decide(run.pk, 1, "retry", by="reviewer", fingerprint=review.fingerprint)
    Review.objects.filter(pk=review.pk).update(state="decided")
    with process("rqworker", "default", **FAST) as shared, process("sweeper", **FAST):
        eventually(lambda: Review.objects.open().filter(run=run).exists())
        good = started("counting", "hello", number=2)
        eventually(lambda: Run.objects.get(pk=good.pk).status == "succeeded")
        assert shared.poll() is None
    pids = {line.split()[2] for line in ledger.read_text().splitlines()}
    assert (len(pids), str(shared.pid) in pids) == (3, False)
    assert [(crash["exit_code"], crash["counts"]) for crash in crashes(run)[-3:]] == [(3, True)] * 3
    assert audit.first_wrong(run.pk) == ""


def test_those_that_were_in_hand_beside_a_poisonous_step_are_not_blamed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with process("rqworker", "default", **FAST) as shared:
        beside = [started("holding", "hello", ledger=ledger) for _ in range(3)]
        eventually(lambda: ledger.exists() and len(ledger.read_text().splitlines()) == 3)
        poison = started("poisonous", "exit")
        assert shared.wait(timeout=30) == 3
    Path(f"{ledger}.open").touch()
    with job_processes(1), process("sweeper", **FAST):
        ids = [run.pk for run in beside]
        eventually(lambda: Run.objects.filter(pk__in=ids, status="succeeded").count() == 3, seconds=120)
        eventually(lambda: Review.objects.open().filter(run=poison).exists(), seconds=120)
    for run in [*beside, poison]:
        assert (crashes(run)[0]["counts"], crashes(run)[0]["others"] > 0) == (False, True)  # type: ignore[operator]
    counted = [crash["counts"] for crash in crashes(poison)]
    assert (counted.count(True), counted[-1]) == (MOST_CRASHES, True)
    assert not Review.objects.filter(run__in=beside).exists()
    assert all(audit.first_wrong(run.pk) == "" for run in beside)


def test_a_supervisor_that_ends_its_process_between_two_steps_is_named_and_the_step_is_not_repeated(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("leaving", "hello", ledger=ledger)
    killed_in(run, "first", start_of("count", count, number=1, ledger=str(ledger)))
    with process("rqworker", "default", **FAST) as second:
        assert second.wait(timeout=30) == 5
    assert Run.objects.get(pk=run.pk).steps.get().status == "succeeded", (
        "after a loss it is written before the supervisor goes on"
    )
    for owner in ("third", "fourth", ""):
        Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())
        assert not owner or event_log.take(run.pk, owner=owner)
    with process("rqworker", "default", **FAST) as shared, process("sweeper", **FAST):
        eventually(lambda: Run.objects.get(pk=run.pk).status == "failed")
        assert shared.poll() is None
    run.refresh_from_db()
    assert run.error["kind"] == "process_ended"
    assert (
        "ended 3 times between two steps, while no worker was at work: the last time with exit code 5 after"
        in run.error["message"]
    )
    assert len(ledger.read_text().splitlines()) == 1
    assert "left no result of attempt 1: its job process first was lost" in sentence(run, Kind.ATTEMPT_CRASHED)
    assert audit.first_wrong(run.pk) == ""


def sentence(run: Run, kind: Kind) -> str:
    return next(line.sentence for line in timeline.log(run.pk, after=0, most=100) if line.fact.kind == kind)


# --- a process that is asked to stop ----------------------------------------------------------------------------------


def carried_on(run: Run, *drafts: Draft) -> event_log.RunLog:
    log, opening = event_log.take(run.pk, owner="test")  # type: ignore[misc]
    log.append(opening, *drafts)
    return log


def test_a_step_that_comes_to_its_end_while_its_run_is_given_back_is_not_cut_off() -> None:
    run = started("counting", "hello", number=1)
    log = carried_on(run, start_of("count_1", count, number=0, ledger="", seconds=0.0))
    thread_of_the_step = event_log.RunLog.load(run.pk, fence=log.fence)

    def drafts_of(state: event_log.RunState) -> list[Draft]:
        if state.steps[1].status == "running":
            thread_of_the_step.append(Draft(Kind.STEP_SUCCEEDED, {"output": 1}, 1))
        return keeper._handed_over(state)

    log.append_last(drafts_of)
    assert [fact.kind for fact in event_log.facts(run.pk)][-2:] == ["StepSucceeded", "RunReleased"]
    executor.advance(run.pk, owner="another")
    assert Run.objects.get(pk=run.pk).output == {"said": "1"}


def test_what_is_given_back_is_cut_off_but_not_blamed_cancelled_where_asked_and_untouched_where_nothing_began() -> None:
    running, cancelled, taken = (started("counting", "hello", number=1) for _ in range(3))
    logs = [carried_on(run, start_of("count_1", count, number=0, ledger="", seconds=0.0)) for run in (running, cancelled)]
    logs.append(event_log.take(taken.pk, owner="test")[0])  # type: ignore[index]
    commands.cancel(cancelled.pk, by="operator")
    for log in logs:
        assert keeper._write_end(keeper.not_kept(log.run_id, log.fence), keeper._handed_over)
    assert [[fact.kind for fact in event_log.facts(run.pk)][3:] for run in (running, cancelled, taken)] == [
        ["AttemptCrashed", "RunReleased"],
        ["RunCancelRequested", "AttemptCrashed", "RunCancelled"],
        [],
    ]
    step = event_log.RunLog.load(running.pk).state.steps[1]
    assert (step.status, step.crashes, step.losses) == ("retrying", 0, 0)
    assert set(Run.objects.due()) == {running, taken}
    executor.advance(taken.pk, owner="another")
    assert "RunStarted" in [fact.kind for fact in event_log.facts(taken.pk)], "nobody was lost"
    assert all(audit.first_wrong(run.pk) == "" for run in (running, cancelled, taken))
