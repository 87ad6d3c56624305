"""Quick steps that do nothing outside are called while what came before them is being written: what then goes wrong."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from runs import audit, commands, event_log, pen, steps
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.sdk import Run as Handle
from runs.sdk import worker
from tests.processes import eventually, process
from tests.scripted import SCRIPT, advanced, again, blank, kinds, pay, plain, started

__all__ = ["blank"]
pytestmark = pytest.mark.django_db(transaction=True)
FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.5"}
BEGUN = [Kind.RUN_REQUESTED, Kind.RUN_STARTED, Kind.STEP_STARTED]
DONE = [Kind.STEP_SUCCEEDED, Kind.STEP_STARTED]
ENDED = [Kind.STEP_SUCCEEDED, Kind.RUN_SUCCEEDED]
CALLED: list[int] = []
AT: dict[int, Callable[[], Any]] = {}


@pytest.fixture(autouse=True)
def all_are_quick(blank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(steps, "QUICK_MS", 60_000)
    CALLED.clear()
    AT.clear()


def elsewhere(call: Callable[[], Any]) -> Any:
    """In a thread with a connection of its own, to its end."""

    def closing() -> Any:
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(closing).result(timeout=30)


@contextmanager
def locked(run_id: int) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """The row of this run is locked by somebody else, until they are given something to do there at last."""
    holds, last = threading.Event(), threading.Event()
    told: list[Callable[[], Any]] = []

    def hold() -> None:
        with transaction.atomic():
            Run.objects.select_for_update().get(pk=run_id)
            holds.set()
            assert last.wait(30)
            told[0]()
        connection.close()

    def let_go(do: Callable[[], Any]) -> None:
        told.append(do)
        last.set()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert holds.wait(30)
        try:
            yield let_go
        finally:
            told.append(lambda: None)
            last.set()
            held.result(timeout=30)


@worker
def hurry(number: int) -> int:
    CALLED.append(number)
    AT.get(number, lambda: None)()
    return number


def steps_of(count: int, at: dict[int, Callable[[Run], Any]]) -> Run:
    """A run of so many steps, carried; the step of this number does what is in `at` for it."""
    run = started(lambda handle: [handle.step(f"step {number}", hurry, number=number) for number in range(1, count + 1)])
    AT.update({number: partial(do, run) for number, do in at.items()})
    return advanced(run)


def hanging(then: Callable[[Run], Any]) -> dict[int, Callable[[Run], Any]]:
    """What is sent while step 1 is at work waits for a lock; step 2, which runs ahead of it, has that let go."""
    open_: list[Any] = []

    def lock(run: Run) -> None:
        open_.append(locked(run.pk))
        open_.append(open_[0].__enter__())

    def let_go(run: Run) -> None:
        assert elsewhere(lambda: kinds(run)) == BEGUN, "it was called before its start is written"
        assert pen._group.flight
        open_[1](lambda: then(run))
        open_[0].__exit__(None, None, None)

    return {1: lock, 2: let_go}


def test_a_step_is_called_while_the_one_before_it_is_being_written() -> None:
    run = steps_of(4, hanging(lambda run: None))
    assert kinds(run) == [*BEGUN, *DONE * 3, *ENDED]
    assert (run.status, CALLED, audit.first_wrong(run.pk)) == ("succeeded", [1, 2, 3, 4], "")


def test_nothing_that_has_an_effect_is_called_before_its_start_is_written() -> None:
    seen: list[list[str]] = []
    SCRIPT["plain"] = lambda: "quick"

    def supervisor(handle: Handle) -> str:
        handle.step("one", plain, text="x")
        handle.step("two", plain, text="x")
        return handle.step("three", pay, text="x")

    run = started(supervisor)
    SCRIPT["pay"] = lambda: seen.append(elsewhere(lambda: kinds(run))) or "paid"
    assert advanced(run).status == "succeeded"
    assert seen == [[*BEGUN, *DONE, *DONE]]


def test_what_was_called_ahead_of_a_cancel_is_not_recorded() -> None:
    run = steps_of(4, hanging(lambda run: commands.cancel(run.pk, by="operator")))
    assert kinds(run) == [*BEGUN, Kind.RUN_CANCEL_REQUESTED, Kind.STEP_SUCCEEDED, Kind.RUN_CANCELLED]
    assert (run.status, CALLED, audit.first_wrong(run.pk)) == ("cancelled", [1, 2], "")
    AT.clear()
    assert again(run).status == "succeeded"
    assert CALLED == [1, 2, 2, 3, 4], "the result of step 1 was kept, that of step 2 was not"


def test_what_somebody_else_wrote_meanwhile_comes_before_it_and_nothing_is_called_twice() -> None:
    def wake(run: Run) -> None:
        with event_log.locked(run.pk, is_locked=True) as log:
            log.append(Draft(Kind.RUN_WOKEN, {"reason": "because"}))

    run = steps_of(4, hanging(wake))
    assert kinds(run) == [*BEGUN, Kind.RUN_WOKEN, *DONE * 3, *ENDED]
    assert (run.status, CALLED, audit.first_wrong(run.pk)) == ("succeeded", [1, 2, 3, 4], "")


def test_who_lost_the_lease_meanwhile_writes_nothing_any_more() -> None:
    run = steps_of(4, hanging(lambda run: Run.objects.filter(pk=run.pk).update(fence=7)))
    assert (kinds(run), CALLED) == (BEGUN, [1, 2])
    assert audit.first_wrong(run.pk) == ""


def test_a_connection_that_is_lost_before_the_answer_costs_nothing() -> None:
    run = steps_of(4, hanging(lambda run: end_connection()))
    assert kinds(run) == [*BEGUN, *DONE * 3, *ENDED]
    assert (run.status, CALLED, audit.first_wrong(run.pk)) == ("succeeded", [1, 2, 3, 4], "")


def test_a_connection_that_is_lost_after_the_commit_writes_nothing_twice() -> None:
    def lose(run: Run) -> None:
        eventually(lambda: elsewhere(lambda: kinds(run)) == [*BEGUN, *DONE])
        elsewhere(end_connection)

    run = steps_of(4, {2: lose})
    assert kinds(run) == [*BEGUN, *DONE * 3, *ENDED]
    assert (run.status, CALLED, audit.first_wrong(run.pk)) == ("succeeded", [1, 2, 3, 4], "")


def end_connection() -> None:
    """That by which runs are written."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pen._group._database.info.backend_pid])  # type: ignore[union-attr]


def test_another_thread_that_wants_to_write_waits_for_the_answer_and_not_for_the_worker() -> None:
    other, opening = event_log.take(commands.start("counting", {"text": "x"}, by="").pk, owner="me")  # type: ignore[misc]

    def write(run: Run) -> None:
        assert pen._group.flight
        elsewhere(lambda: other.append(opening))
        assert pen._group.flight is None

    assert steps_of(3, {2: write}).status == "succeeded"
    assert kinds(Run(pk=other.run_id)) == [Kind.RUN_REQUESTED, Kind.RUN_STARTED]


def test_pages_hear_of_it_though_the_worker_goes_on_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(event_log.live, "nudge", lambda run_id, seq: told.append(seq))

    def last_long(run: Run) -> None:
        eventually(lambda: len(BEGUN + DONE) in told)

    assert steps_of(3, {2: last_long}).status == "succeeded"


def test_a_run_that_is_not_alone_in_its_process_runs_not_ahead() -> None:
    def look(run: Run) -> None:
        assert pen._group.flight is None
        assert elsewhere(lambda: kinds(run))[-1] == Kind.STEP_STARTED

    beside, rest = threading.Event(), threading.Event()
    other = started(lambda handle: [beside.set(), rest.wait(30)] and "rested")
    with ThreadPoolExecutor(1) as pool:
        carried = pool.submit(elsewhere, lambda: advanced(other))
        assert beside.wait(30)
        try:
            assert steps_of(3, {2: look, 3: look}).status == "succeeded"
        finally:
            rest.set()
        carried.result(timeout=30)


def test_a_process_that_is_killed_again_and_again_repeats_no_recorded_step(tmp_path: Path) -> None:
    """Each call writes a number of its own; what is recorded of a step is what its last call wrote."""
    ledger, count, deaths = tmp_path / "ledger", 300, 0
    run = commands.start("hurrying", {"text": "x", "number": count, "ledger": str(ledger)}, by="operator")
    written = lambda: len(ledger.read_text().splitlines()) if ledger.exists() else 0  # noqa: E731
    with process("sweeper", **FAST):
        while not Run.objects.get(pk=run.pk).finished_at:
            with process("rqworker", "default", **FAST):
                before = written()
                if deaths < 2:
                    eventually(lambda before=before: written() > before + 40)
                    deaths += 1
                else:
                    eventually(lambda: Run.objects.get(pk=run.pk).finished_at)
    run.refresh_from_db()
    assert (run.status, run.step_count, deaths) == ("succeeded", count, 2)
    calls = [line.split() for line in ledger.read_text().splitlines()]
    last = {f"step {number}": token for number, token in calls}  # of each
    recorded = {step.name: step.output for step in event_log.with_payloads(run.pk, run.steps.all())}
    assert recorded == last
    assert len(calls) <= count + 2 * deaths, "two steps at most are in hand at a time"
    assert audit.first_wrong(run.pk) == ""
