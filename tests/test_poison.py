"""Steps that end their process, or never end, among good ones: each goes to a person after three tries, the others finish."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from reviews.models import Review
from runs import alone, audit, commands, event_log, executor, sdk
from runs.engine.events import Kind
from runs.engine.outcome import Ending
from runs.models import Run
from runs.sdk import agent, worker
from tests.agents import Answer, Order
from tests.processes import eventually, process

pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "LOG_LEVEL": "ERROR", "JOB_THREADS": "8"}
GOOD = 20


def started(slug: str, text: str, number: int = 1, ledger: Path | None = None) -> Run:
    return commands.start(slug, {"text": text, "number": number, "ledger": str(ledger or "")}, by="operator")


def crashes(run: Run) -> list[dict[str, object]]:
    return [fact.data for fact in event_log.facts(run.pk) if fact.kind == Kind.ATTEMPT_CRASHED]


@contextmanager
def job_processes(count: int) -> Iterator[None]:
    """As many as that, each started again when it ends."""
    ending = threading.Event()
    with ExitStack() as stack:
        keepers = [threading.Thread(target=_kept_alive, args=(stack, ending)) for _ in range(count)]
        for keeper in keepers:
            keeper.start()
        try:
            yield
        finally:
            ending.set()
            for keeper in keepers:
                keeper.join()


def _kept_alive(stack: ExitStack, ending: threading.Event) -> None:
    while not ending.is_set():
        child = stack.enter_context(process("rqworker", "default", **FAST))
        while child.poll() is None and not ending.wait(0.05):
            pass


def test_poison_is_quarantined_with_its_reason_while_good_runs_finish(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    poison = {kind: started("poisonous", kind, ledger=ledger) for kind in ("exit", "segfault", "loop", "sleep")}
    good = [started("counting", "hello", number=5) for _ in range(GOOD)]
    with job_processes(2), process("sweeper", **FAST):
        eventually(lambda: Review.objects.filter(run__in=poison.values()).count() == len(poison), seconds=240)
        eventually(lambda: Run.objects.filter(pk__in=[run.pk for run in good], status="succeeded").count() == GOOD)
    why = {kind: Review.objects.get(run=run).why for kind, run in poison.items()}
    assert all(said.startswith("This step did not come to its end ") for said in why.values())
    assert "by signal 11 (SIGSEGV) " in why["segfault"]
    assert "with exit code 3 " in why["exit"]
    assert "because it took longer than 1 s" in why["loop"]
    assert "because it took longer than 1 s" in why["sleep"]
    last = {kind: crashes(run)[-1] for kind, run in poison.items()}
    attempts = [len(crashes(run)) for run in poison.values()]
    assert all(3 <= count <= 6 for count in attempts), "more only where another ended the process that watched it"
    assert (last["segfault"]["signal"], last["exit"]["exit_code"]) == (11, 3)
    assert all(last[kind]["memory_mb"] for kind in ("segfault", "exit")), "the witness saw how large it was"
    effects = [line.split()[:2] for line in ledger.read_text().splitlines()]
    assert len({(key, attempt) for key, attempt in effects}) == len(effects) <= sum(attempts), "no attempt was made twice"
    assert all(audit.first_wrong(run.pk) == "" for run in [*poison.values(), *good])


class Killed(BaseException):
    """As if the process had ended."""


@worker
def deadly() -> str:
    raise Killed


@agent("deadly", title="Deadly", version="1")
def deadly_agent(run: sdk.Run, order: Order) -> Answer:
    return Answer(said=run.step("deadly", deadly))


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ([sys.executable, "-S", "-c", "raise SystemExit(1)"], "waiting", "before it came to the step, with exit code 1 after"),
        (["/nowhere/python"], "retrying", ""),
    ],
    ids=["ends before it writes", "cannot be started"],
)
def test_a_process_that_does_not_come_to_its_step_is_not_started_for_ever(
    program: list[str], status: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, began = started("deadly", "hello"), list[int]()
    for _ in range(2):
        with pytest.raises(Killed):
            executor.advance(run.pk, owner="test")
        Run.objects.filter(pk=run.pk).update(lease_until=event_log.now() - timedelta(seconds=1))

    def carry(run_id: int, fence: int) -> Ending | None:
        began.append(run_id)
        assert len(began) < 3
        return alone._witnessed(program)

    monkeypatch.setattr(executor, "alone", carry)
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert (run.status, len(began), audit.first_wrong(run.pk)) == (status, 1, "")
    assert [said in review.why for review in Review.objects.open().filter(run=run)] == [True] * (status == "waiting")
