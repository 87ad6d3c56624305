"""Runs on real job processes, a real Redis and a real sweeper, with real faults."""

import collections
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import django_rq
import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from rq import Worker

from reviews import decisions
from reviews.models import Review
from runs import commands, dispatch, event_log, sweeper
from runs.engine.events import first_broken
from runs.models import Run
from tests import cast
from tests.processes import eventually, kill, process

pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2"}


@pytest.fixture
def job_process() -> Iterator[None]:
    with process("rqworker", "default", **FAST):
        yield


@pytest.fixture
def a_sweeper() -> Iterator[None]:
    with process("sweeper", **FAST):
        yield


def started(slug: str, number: int = 3, ledger: Path | None = None) -> Run:
    return commands.start(slug, {"text": "hello", "number": number, "ledger": str(ledger or "")}, by="operator")


def job_processes() -> list[Worker]:
    return Worker.all(connection=django_rq.get_connection("default"))


def ended(*runs: Run) -> bool:
    return Run.objects.filter(pk__in=[run.pk for run in runs]).ended().count() == len(runs)


def nothing_doubled(ledger: Path, *, but: int = 0) -> None:
    """Each step is in the ledger once; a killed process may have been in `but` steps that were not yet recorded."""
    times = collections.Counter(line.split()[0] for line in ledger.read_text().splitlines())
    assert sum(count - 1 for count in times.values()) <= but, times


@pytest.mark.usefixtures("job_process")
def test_a_run_goes_through_rq_waits_for_a_person_and_goes_on() -> None:
    reviewer = cast.people()["reviewer"]
    run = started("guessing", 5)
    eventually(lambda: Review.objects.filter(run=run).exists())
    review = Review.objects.get(run=run)
    decisions.decide(review.pk, actor=reviewer, kind="approve", seen=review.fingerprint)
    eventually(lambda: ended(run))
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", {"said": "red 5"})


def test_kill_9_loses_nothing_and_repeats_no_recorded_step(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with ExitStack() as stack:
        victim = stack.enter_context(process("rqworker", "default", **FAST))
        run = started("counting", 40, ledger)
        eventually(lambda: Run.objects.get(pk=run.pk).step_count > 10)
        kill(victim)
        recorded = Run.objects.get(pk=run.pk).step_count
        assert recorded < 40
        stack.enter_context(process("rqworker", "default", **FAST))
        stack.enter_context(process("sweeper", **FAST))
        eventually(lambda: ended(run))
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", {"said": "40"})
    nothing_doubled(ledger, but=1)
    facts = event_log.facts(run.pk)
    assert first_broken(run.pk, facts) == ""
    assert [fact.kind for fact in facts].count("RunTakenOver") == 1


def test_a_decision_that_arrives_while_its_job_process_is_dead_is_carried_out_once(tmp_path: Path) -> None:
    """The process dies in the middle of another run: the decision has to find the next one, and that run as well."""
    reviewer = cast.people()["reviewer"]
    paid, counted = tmp_path / "paid", tmp_path / "counted"
    with process("rqworker", "default", **FAST) as victim:
        waiting, busy = started("paying", 5, paid), started("counting", 40, counted)
        eventually(lambda: Run.objects.get(pk=busy.pk).step_count > 10)
        kill(victim)
    assert Run.objects.get(pk=busy.pk).status == "running"
    review = Review.objects.get(run=waiting)
    decisions.decide(review.pk, actor=reviewer, kind="approve", seen=review.fingerprint, reason="It was asked for.")
    assert not paid.exists(), "nobody is there to do it"
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: ended(waiting, busy))
    assert [Run.objects.get(pk=run.pk).output for run in (waiting, busy)] == [{"said": "paid 5.0"}, {"said": "40"}]
    assert paid.read_text() == "paid 5.0\n"
    nothing_doubled(counted, but=1)


def test_a_call_that_is_delivered_three_times_is_carried_by_one_job_process(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with process("rqworker", "default", **FAST), process("rqworker", "default", **FAST):
        eventually(lambda: len(job_processes()) == 2)
        run = started("counting", 20, ledger)
        dispatch.enqueue_now([dispatch.Call(run.pk, run.last_seq)] * 2)
        eventually(lambda: ended(run))
        eventually(lambda: sum(one.successful_job_count for one in job_processes()) == 3)
        assert all(one.successful_job_count for one in job_processes()), "each of the two had a call for it"
    lines = [line.split() for line in ledger.read_text().splitlines()]
    assert [key for key, _, _ in lines] == [f"{run.pk}:count_{number}" for number in range(1, 21)]
    assert len({pid for _, _, pid in lines}) == 1
    kinds = [fact.kind for fact in event_log.facts(run.pk)]
    assert (kinds.count("RunStarted"), kinds.count("RunResumed"), kinds.count("RunTakenOver")) == (1, 0, 0)


@pytest.mark.usefixtures("a_sweeper")
def test_flushall_in_the_middle_of_fifty_runs_loses_none(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(process("rqworker", "default", **FAST))
        runs = [started("counting", 4, ledger) for _ in range(50)]
        for share in (5, 25):
            eventually(lambda share=share: Run.objects.ended().count() >= share)
            django_rq.get_connection("default").flushall()
        eventually(lambda: ended(*runs))
    assert {run.status for run in Run.objects.all()} == {"succeeded"}
    nothing_doubled(ledger)
    assert len(ledger.read_text().splitlines()) == 200


def test_what_never_arrived_in_redis_is_dispatched_by_the_sweeper() -> None:
    run = started("counting")
    django_rq.get_connection("default").flushall()
    assert sweeper.sweep() == 1
    assert sweeper.sweep() == 0, "it waits in Redis now"
    (job_id,) = django_rq.get_queue("default").job_ids
    assert job_id.startswith(dispatch.Call(run.pk, run.last_seq).name)


def test_starting_works_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as away:
        away.setitem(settings.RQ_QUEUES["default"], "URL", "redis://127.0.0.1:1/0")
        run = started("counting")
    assert django_rq.get_queue("default").job_ids == [], "its call was lost"
    assert sweeper.sweep() == 1, "Redis is back"
    (job_id,) = django_rq.get_queue("default").job_ids
    assert job_id.startswith(dispatch.Call(run.pk, run.last_seq).name)


def test_the_database_refuses_to_truncate_the_log() -> None:
    for table in ("runs_event", "runs_payload", "runs_hold", "runs_tombstone", "reviews_reviewevent"):
        with pytest.raises(DatabaseError, match="TRUNCATE is refused"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {table}")
