"""A job process: many runs at once, its place in RQ, and how it ends: asked to stop, killed, with a step in hand."""

import signal
import socket
import threading
from pathlib import Path

import django_rq
import pytest
from django.conf import settings
from django.db import connection
from pytest_django import Settings
from rq import Queue, Worker
from rq.job import Job
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from runs import commands, dispatch, event_log, pen
from runs.jobs import AllowedJob, JobProcess
from runs.models import Run
from tests.processes import eventually, kill, process

pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "LOG_LEVEL": "WARNING"}


def started(slug: str, number: int = 3, ledger: Path | None = None) -> Run:
    return commands.start(slug, {"text": "hello", "number": number, "ledger": str(ledger or "")}, by="operator")


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def steps_done(run: Run) -> int:
    return Run.objects.get(pk=run.pk).step_count


def ended(*runs: Run) -> bool:
    return Run.objects.filter(pk__in=[run.pk for run in runs]).ended().count() == len(runs)


def lines(ledger: Path) -> list[list[str]]:
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


def let_go(ledger: Path) -> None:
    Path(f"{ledger}.open").touch()


def in_hand() -> list[str]:
    """Jobs that RQ believes to be carried by somebody, also by one who is dead."""
    return StartedJobRegistry("default", connection=redis()).get_job_ids(cleanup=False)


def redis() -> "django_rq.queues.Redis":
    return django_rq.get_connection("default")


# --- many at once ---------------------------------------------------------------------------------------------------


def test_each_thread_carries_a_run_and_the_next_waits_for_a_free_one(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    runs = [started("holding", ledger=ledger) for _ in range(10)]
    with process("rqworker", "default", JOB_THREADS="8", **FAST):
        eventually(lambda: len(lines(ledger)) == 8)
        assert len(in_hand()) == 8
        assert len(django_rq.get_queue("default").job_ids) == 2, "a job is fetched only when a thread is free"
        let_go(ledger)
        eventually(lambda: ended(*runs))
        eventually(lambda: in_hand() == [])
    assert {run.status for run in Run.objects.all()} == {"succeeded"}
    assert len({pid for _, _, pid in lines(ledger)}) == 1


def test_a_process_takes_up_what_it_parked_where_a_thread_is_free_and_nobody_asked_it_to_stop(
    tmp_path: Path, settings: Settings
) -> None:
    settings.JOB_THREADS = 1
    ledger = tmp_path / "ledger"
    first, second = started("holding", ledger=ledger), started("holding", ledger=ledger)
    worker = JobProcess([django_rq.get_queue("default")], connection=redis())
    assert worker.take_up(first.pk)
    eventually(lambda: len(lines(ledger)) == 1)
    assert worker.has_work, "who asks it to stop waits for that step"
    assert not worker.take_up(second.pk), "its one thread has work: the queue is for this one"
    let_go(ledger)
    eventually(lambda: ended(first) and not worker.has_work)
    assert worker.take_up(second.pk)
    eventually(lambda: ended(second) and not worker.has_work)
    worker._stop_requested = True
    assert not worker.take_up(second.pk)


def test_a_thread_that_cannot_begin_leaves_no_place_taken(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    settings.JOB_THREADS = 1
    run, queue = started("counting"), django_rq.get_queue("default")
    worker = JobProcess([queue], connection=redis())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert not worker.take_up(run.pk)
        job, _ = worker.dequeue_job_and_maintain_ttl(None)
        worker.execute_job(job, queue)
    assert not worker.has_work, "else the process would wait for it when it is asked to stop"
    assert worker.take_up(run.pk)
    eventually(lambda: ended(run) and not worker.has_work)


def test_forty_runs_that_wait_outside_share_a_few_connections(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    runs = [started("holding", ledger=ledger) for _ in range(40)]
    pen.close()
    before = connected()  # by earlier tests, in other threads of this process
    with process("rqworker", "default", JOB_THREADS="64", **FAST):
        eventually(lambda: len(lines(ledger)) == 40)
        eventually(lambda: all(steps_done(run) == 1 for run in runs))
        eventually(lambda: len(connected() - before) <= 10)  # the last of them has just given its own back
        let_go(ledger)
        eventually(lambda: ended(*runs))


def connected() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        return {row[0] for row in cursor.fetchall()}


def test_agents_are_loaded_once_for_all_threads(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    runs = [commands.start("warm", {"text": "hello"}, by="") for _ in range(3)]
    with process("rqworker", "default", WARM_UP_LEDGER=str(ledger), **FAST):
        eventually(lambda: ended(*runs))
    (line,) = ledger.read_text().splitlines()
    assert [run.output for run in Run.objects.order_by("pk")] == [{"said": line.removeprefix("warm ")}] * 3


def test_the_plain_worker_of_rq_carries_runs_from_the_same_queue(tmp_path: Path) -> None:
    plain = ("--worker-class", "rq.Worker", "--serializer", "rq.serializers.JSONSerializer")
    ledger = tmp_path / "ledger"
    with process("rqworker", "default", *plain, **FAST):
        run = started("counting", 3, ledger)
        eventually(lambda: ended(run))
    assert Run.objects.get(pk=run.pk).output == {"said": "3"}
    assert len(lines(ledger)) == 3


# --- what somebody else writes into Redis ---------------------------------------------------------------------------


def hostile(**parts: object) -> Job:
    """A job as one would write it who can reach Redis."""
    job = Job.create("runs.jobs.advance", args=[1], connection=redis(), serializer=JSONSerializer, origin="default")
    for name, value in parts.items():
        setattr(job, name, value)
    Queue("default", connection=redis(), serializer=JSONSerializer).enqueue_job(job)
    return job


def test_a_function_that_is_not_on_the_list_is_neither_imported_nor_called(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    callbacks = dict.fromkeys(["_success_callback_name", "_failure_callback_name"], "tests.hostile.fires")
    refused = [hostile(func_name="tests.hostile.fires", **callbacks), hostile(func_name="upper", instance="runs.jobs.advance")]
    harmless = hostile(**callbacks)
    with process("rqworker", "default", HOSTILE_LEDGER=str(trace), **FAST):
        failed = FailedJobRegistry("default", connection=redis())
        eventually(lambda: set(failed.get_job_ids()) >= {job.id for job in refused})
        eventually(lambda: harmless.get_status() == "finished")
    assert not trace.exists()
    told = [AllowedJob.fetch(job.id, connection=redis(), serializer=JSONSerializer).latest_result() for job in refused]
    assert all("is not a job of agentops" in result.exc_string for result in told)


def test_a_redis_that_hangs_costs_the_caller_seconds_and_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = settings.RQ_QUEUES["default"]["URL"].partition("?")[2]
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as hanging:
        hanging.setitem(settings.RQ_QUEUES["default"], "URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0?{limits}")
        assert not dispatch.enqueue_now([dispatch.Call(1, 1)])


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_a_process_that_is_asked_to_stop_hands_its_runs_over(tmp_path: Path) -> None:
    ledgers = [tmp_path / str(number) for number in range(3)]
    runs = [started("counting", 40, ledger) for ledger in ledgers]
    with process("rqworker", "default", **FAST) as first:
        eventually(lambda: all(steps_done(run) > 5 for run in runs))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=15) == 0
        assert all(steps_done(run) < 40 and kinds(run)[-1] == "RunReleased" for run in runs)
        assert Worker.count(connection=redis()) == 0, "it took its name off the list"
        assert in_hand() == []
    with process("rqworker", "default", **FAST):
        eventually(lambda: ended(*runs))
    for run, ledger in zip(runs, ledgers, strict=True):
        assert Run.objects.get(pk=run.pk).output == {"said": "40"}
        assert "RunTakenOver" not in kinds(run)
        keys = [key for key, _, _ in lines(ledger)]
        assert len(keys) == len(set(keys)) == 40, "no step was executed twice"


def test_a_step_that_outlasts_the_grace_goes_on_elsewhere(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with process("rqworker", "default", JOB_GRACE_SECONDS="0.5", **FAST) as first:
        run = started("holding", ledger=ledger)
        eventually(lambda: lines(ledger))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=15) == 0
    (cut,) = [fact.data for fact in event_log.facts(run.pk) if fact.kind == "AttemptCrashed"]
    assert (cut["reason"], cut["counts"], kinds(run)[-1]) == ("because its job process was asked to stop", False, "RunReleased")
    let_go(ledger)
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: ended(run))
    assert [attempt for _, attempt, _ in lines(ledger)] == ["1", "2"]
    assert kinds(run).count("AttemptCrashed") == 1
    assert "RunTakenOver" not in kinds(run)


def test_five_requests_to_stop_in_a_row_are_one(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with process("rqworker", "default", **FAST) as asked:
        run = started("holding", ledger=ledger)
        eventually(lambda: lines(ledger))
        for _ in range(5):
            asked.send_signal(signal.SIGTERM)
        eventually(lambda: Worker.all(connection=redis())[0].shutdown_requested_date)
        let_go(ledger)
        assert asked.wait(timeout=15) == 0
    assert kinds(run)[-1] == "RunReleased", "it waited for the step"
    assert Worker.count(connection=redis()) == 0


def test_a_killed_process_leaves_its_runs_to_the_other(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    eight = FAST | {"JOB_THREADS": "8"}
    with process("rqworker", "default", **eight) as victim:
        runs = [started("holding", ledger=ledger) for _ in range(8)]
        eventually(lambda: len(lines(ledger)) == 8)
        with process("rqworker", "default", **eight), process("sweeper", **eight):
            kill(victim)
            names = [one.name for one in Worker.all(connection=redis())]
            assert len(names) == len(set(names))
            let_go(ledger)
            eventually(lambda: ended(*runs))
            eventually(lambda: len(in_hand()) == 8)  # those of the dead process: nobody has told RQ of them yet
    assert {run.status for run in Run.objects.all()} == {"succeeded"}
    assert all(kinds(run).count("RunTakenOver") == 1 for run in runs)
    left = in_hand()
    StartedJobRegistry("default", connection=redis(), job_class=AllowedJob, serializer=JSONSerializer).cleanup(2**40)
    assert in_hand() == []
    assert set(left) <= set(FailedJobRegistry("default", connection=redis()).get_job_ids())
