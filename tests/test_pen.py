"""The pen: what threads append at the same moment shares a statement, fails alone, and survives a lost connection."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, DataError, OperationalError, connection, transaction

from runs import audit, commands, event_log, pen, projections
from runs.engine.events import Draft, Kind
from runs.models import Run, Step
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 20


def owned(count: int) -> list[event_log.RunLog]:
    taken = [event_log.take(commands.start("counting", {"text": "x"}, by="").pk, owner="me") for _ in range(count)]
    return [log for log, _ in taken]


def starting(log: event_log.RunLog, text: str = "fine") -> Callable[[], None]:
    request = {"name": text[:4], "worker": "w", "title": "t", "fingerprint": "f", "input": text, "effect": "none", "attempt": 1}
    return lambda: log.append(Draft(Kind.STEP_STARTED, request, 1))


def at_once(works: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[BaseException | None]]:
    """The first holds the pen until all others wait for it. Returns how many runs each statement carried, and each outcome."""
    insert, together, errors = pen._group._insert, [], [None] * len(works)

    def counted(asked: list[Any]) -> set[int]:
        together.append(len(asked))
        if len(together) == 1:
            others = threading.Event()
            while len(pen._group._waiting) < len(works) - 1:
                assert not others.wait(0.001)
        return insert(asked)

    def work(number: int) -> None:
        try:
            works[number]()
        except BaseException as error:  # noqa: BLE001 - compared by the test
            errors[number] = error
        finally:
            connection.close()

    monkeypatch.setattr(pen._group, "_insert", counted)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return together, errors


def test_threads_that_append_at_the_same_moment_share_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = owned(10)
    together, errors = at_once([starting(log) for log in logs], monkeypatch)
    assert (together, errors) == ([1, 9], [None] * 10)
    assert [audit.first_wrong(log.run_id) for log in logs] == [""] * 10
    assert set(Run.objects.values_list("status", "step_count")) == {("queued", 1)}


@pytest.mark.parametrize("most_plain", [projections.MOST_PLAIN, 0], ids=["of plain parameters", "of JSON, as many are"])
def test_both_forms_of_the_statement_write_what_the_events_fold_to(most_plain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "MOST_PLAIN", most_plain)
    (log,) = owned(1)
    hour = {"wake_at": "2026-11-23T12:30:00.000001+02:00"}
    said = {"confidence": 0.5, "threshold": 1e-07, "why": 'é "quoted"', "source": "", "alternatives": {"ja\\nein": 0.25, "z": 1}}
    starting(log, "first")()
    error = {"kind": "x", "message": "a\nb", "trace": ""}
    log.append(Draft(Kind.ATTEMPT_FAILED, {"attempt": 1, "error": error, "wait_seconds": 1} | hour, 1))
    log.append(Draft(Kind.RUN_PARKED, {"cause": "children", "runs": [7, 8]} | hour, 1))
    (run,) = Run.objects.filter(pk=log.run_id)
    assert (run.waiting_runs, str(run.wake_at)) == ([7, 8], "2026-11-23 10:30:00.000001+00:00")
    log.append(Draft(Kind.RUN_CANCEL_REQUESTED, actor="Ünal"), Draft(Kind.ATTEMPT_STARTED, {"attempt": 2, "remark": ""}, 1))
    log.append(Draft(Kind.STEP_SUCCEEDED, {"output": None} | said, 1))
    log.append(Draft(Kind.RUN_SUCCEEDED, {"output": {"letters": "é", "number": 1e-07}}), release=True)
    assert audit.first_wrong(log.run_id) == ""
    (step,) = Step.objects.filter(run_id=log.run_id)
    assert (step.confidence, step.threshold, step.why) == (0.5, 1e-07, said["why"])
    assert (step.alternatives, step.error) == (said["alternatives"], None)


def test_what_the_database_cannot_store_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = owned(5)
    together, errors = at_once([starting(log, "a\x00b" if log is logs[3] else "fine") for log in logs], monkeypatch)
    assert together[:2] == [1, 4]
    assert len(together) in (2, 6), "the four again one by one, unless the bad one came first"
    assert [type(error) for error in errors] == [type(None)] * 3 + [DataError] + [type(None)]
    assert [event_log.rows(log.run_id).count() for log in logs] == [2, 2, 2, 1, 2]


def test_text_that_the_database_cannot_keep_is_refused_and_not_cut_off() -> None:
    """An actor is a parameter of its own, where nothing marks a NUL as part of it but its length."""
    log = owned(1)[0]
    data = {"name": "n", "worker": "w", "title": "t", "fingerprint": "f", "input": 1, "effect": "none", "attempt": 1}
    with pytest.raises(DataError):
        log.append(Draft(Kind.STEP_STARTED, data, 1, actor="me\x00or you"))
    assert event_log.rows(log.run_id).count() == 1
    log.append(Draft(Kind.STEP_STARTED, data, 1, actor="me"))
    assert audit.first_wrong(log.run_id) == ""


def test_a_lease_that_is_lost_stops_one_and_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = owned(4)
    Run.objects.filter(pk=logs[2].run_id).update(fence=7)
    _, errors = at_once([starting(log) for log in logs], monkeypatch)
    assert [type(error) for error in errors] == [type(None)] * 2 + [event_log.LeaseLost, type(None)]


def test_a_run_that_somebody_locks_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = owned(4)
    with transaction.atomic():
        Run.objects.select_for_update().get(pk=logs[2].run_id)
        together, errors = at_once([starting(log) for log in logs], monkeypatch)
    assert together[:2] == [1, 3]
    assert [type(error) for error in errors] == [type(None)] * 2 + [OperationalError, type(None)]
    assert [event_log.rows(log.run_id).count() for log in logs] == [2, 2, 1, 2]


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """What it returns is in the list when it has ended."""
    returned: list[object] = []

    def call() -> None:
        returned.append(work())
        connection.close()

    thread = threading.Thread(target=call)
    thread.start()
    return thread, returned


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # which a transaction keeps
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        return cursor.fetchone() is not None


def test_a_lease_is_taken_on_the_connection_that_writes() -> None:
    """Its backend is at work anyway: nothing is asked of the pool."""
    starting(*owned(1))()
    run = commands.start("counting", {"text": "x"}, by="")
    pen._pool.close()
    try:
        assert event_log.take(run.pk, owner="me")
    finally:
        pen._pool = None


def test_who_takes_a_lease_that_somebody_locks_stops_nobody_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown while both locks last: here nobody gives up waiting for one."""
    pen.close()
    monkeypatch.setattr(pen, "POINT_LOOKUPS", pen.POINT_LOOKUPS.replace("lock_timeout=2s", "lock_timeout=0"))
    pen.warm_up()
    writer, locked = owned(1)[0], commands.start("counting", {"text": "x"}, by="").pk
    with transaction.atomic():
        Run.objects.select_for_update().get(pk=locked)
        taking, taken = in_thread(lambda: event_log.take(locked, owner="me"))
        eventually(waits_for_a_lock)
        writing, _ = in_thread(starting(writer))
        writing.join(PATIENCE)
        assert (event_log.rows(writer.run_id).count(), taken) == (2, [])
    taking.join(PATIENCE)
    assert taken[0] is not None
    pen.close()


def test_a_lease_is_taken_while_somebody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, run, goes_on = owned(1)[0], commands.start("counting", {"text": "x"}, by=""), threading.Event()
    pen.warm_up()
    insert = pen._group._insert
    monkeypatch.setattr(pen._group, "_insert", lambda asked: goes_on.wait(PATIENCE) and insert(asked))
    writing, _ = in_thread(starting(writer))
    eventually(lambda: pen._group._busy)
    assert event_log.take(run.pk, owner="me")
    assert event_log.rows(writer.run_id).count() == 1, "it has the pen all the while"
    goes_on.set()
    writing.join(PATIENCE)
    assert event_log.rows(writer.run_id).count() == 2


def test_a_lease_is_taken_although_the_connection_that_writes_is_lost() -> None:
    writer, run = owned(1)[0], commands.start("counting", {"text": "x"}, by="")
    pen.warm_up()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pen._group._database.info.backend_pid])
    assert event_log.take(run.pk, owner="me")
    starting(writer)()
    assert event_log.rows(writer.run_id).count() == 2


def test_after_a_lost_connection_one_append_fails_and_the_next_is_written() -> None:
    first, second, third = owned(3)
    starting(first)()
    with connection.cursor() as cursor:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with pytest.raises(DatabaseError):
        starting(second)()
    starting(third)()
    assert [event_log.rows(log.run_id).count() for log in (first, second, third)] == [2, 1, 2]
    assert second.state.seq == 1, "what was not written is not believed"
    pen.close()  # the others of the pool are dead as well


# --- a commit whose reply is lost --------------------------------------------------------------------------------


def losing(reply_of: Callable[[], None], *, took_place: bool) -> Callable[[], None]:
    def commit() -> None:
        if took_place:
            reply_of()
        connection.connection.close()
        raise OperationalError("the connection was lost")

    return commit


@pytest.mark.parametrize("took_place", [True, False])
def test_a_command_whose_commit_is_not_answered_says_what_is_true(took_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = commands.start("counting", {"text": "x"}, by="")
    monkeypatch.setattr(connection, "_commit", losing(connection._commit, took_place=took_place))
    if took_place:
        commands.cancel(run.pk, by="operator")
    else:
        with pytest.raises(OperationalError):
            commands.cancel(run.pk, by="operator")
    monkeypatch.undo()
    run.refresh_from_db()
    assert run.status == ("cancelled" if took_place else "queued")


def test_a_run_whose_start_is_not_answered_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    commands.configuration("counting")
    monkeypatch.setattr(connection, "_commit", losing(connection._commit, took_place=True))
    with monkeypatch.context() as soon_mended:
        soon_mended.setattr(pen, "_took_place", lambda number, ask=pen._took_place: monkeypatch.undo() or ask(number))
        run = commands.start("counting", {"text": "x"}, by="")
    assert list(Run.objects.values_list("pk", "status")) == [(run.pk, "queued")]
