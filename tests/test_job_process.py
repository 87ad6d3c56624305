"""How a job process ends: asked to stop, over its time, or killed with its step in hand."""

import signal
from pathlib import Path

import pytest
from django.conf import settings

from runs import commands, event_log
from runs.models import Run
from tests.processes import eventually, process

pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2"}


def started(number: int, ledger: Path) -> Run:
    return commands.start("counting", {"text": "hello", "number": number, "ledger": str(ledger)}, by="operator")


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def steps_done(run: Run) -> int:
    return Run.objects.get(pk=run.pk).step_count


def test_a_process_that_is_asked_to_stop_hands_its_run_over(tmp_path: Path) -> None:
    run = started(40, tmp_path / "ledger")
    with process("rqworker", "default", **FAST) as first:
        eventually(lambda: steps_done(run) > 5)
        first.send_signal(signal.SIGTERM)
        eventually(lambda: first.poll() is not None, seconds=15)
        assert steps_done(run) < 40
        assert kinds(run)[-1] == "RunReleased"
    with process("rqworker", "default", **FAST):
        eventually(lambda: Run.objects.get(pk=run.pk).ended)
    assert Run.objects.get(pk=run.pk).output == {"said": "40"}
    assert "RunTakenOver" not in kinds(run)
    keys = [line.split()[0] for line in (tmp_path / "ledger").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 40, "no step was executed twice"


def test_agents_are_loaded_once_before_the_process_forks(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    runs = [commands.start("warm", {"text": "hello"}, by="") for _ in range(3)]
    with process("rqworker", "default", WARM_UP_LEDGER=str(ledger), **FAST):
        eventually(lambda: Run.objects.ended().count() == len(runs))
    (line,) = ledger.read_text().splitlines()
    assert [run.output for run in Run.objects.order_by("pk")] == [{"said": line.removeprefix("warm ")}] * 3


def test_a_run_that_takes_longer_than_a_job_may_goes_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.RQ_QUEUES["default"], "DEFAULT_TIMEOUT", 2)
    run = started(60, tmp_path / "ledger")
    with process("rqworker", "default", JOB_TIMEOUT_SECONDS="2", **FAST), process("sweeper", JOB_TIMEOUT_SECONDS="2", **FAST):
        eventually(lambda: Run.objects.get(pk=run.pk).ended)
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", {"said": "60"})
    assert "RunTakenOver" in kinds(run)
