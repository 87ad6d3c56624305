"""The database goes away while a run is carried: results in memory wait for it, and nothing is written or done twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection, connections

from reviews.models import Review
from runs import audit, commands, event_log, executor, keeper, pen
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.sdk import Run as Handle
from runs.sdk import agent, call, worker
from tests.agents import Answer, Order
from tests.processes import away, eventually

pytestmark = pytest.mark.django_db(transaction=True)
DOES: dict[str, Callable[[], Any]] = {}
EFFECTS: list[str] = []


@worker(effect="once")
def once(name: str) -> str:
    EFFECTS.append(name)
    return str(DOES[name]()) if name in DOES else name


@agent("outlasting", title="Outlasting", version="1")
def outlasting(run: Handle, order: Order) -> Answer:
    """Two effects that may happen once: side by side, or one after the other, the first perhaps large."""
    if order.text == "side by side":
        return Answer(said=" ".join(run.gather(*[call(name, once, name=name) for name in ("a", "b", "c")])))
    return Answer(said=f"{len(run.step('a', once, name='a'))} {run.step('b', once, name='b')}")


@agent("outlasting-child", title="Outlasting child", version="1")
def outlasting_child(run: Handle, order: Order) -> Answer:
    """An effect that may happen once, then a child."""
    run.step("a", once, name="a")
    return Answer(said=str(len(run.join(run.spawn("b", "counting", {"text": "x", "number": 0})))))


@pytest.fixture(autouse=True)
def blank() -> Iterator[None]:
    DOES.clear()
    EFFECTS.clear()
    yield
    pen.close()


def away_for(seconds: float) -> str:
    threading.Timer(seconds, away()).start()
    return "x"


@contextmanager
def away_in(name: str) -> Iterator[threading.Event]:
    """From the end of this step on, until the block ends; the event says that it has begun."""
    back: list[Callable[[], None]] = []
    gone = threading.Event()

    def work() -> str:
        back.append(away())
        gone.set()
        return name

    DOES[name] = work
    try:
        yield gone
    finally:
        for come in back:
            come()


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    connection.close()  # it was dead as well, and so are those of the pen
    pen.close()
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def started(slug: str, text: str) -> Run:
    return commands.start(slug, {"text": text}, by="operator")


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


@pytest.mark.parametrize("text", ["side by side", "one after the other"])
def test_a_result_in_memory_waits_for_a_database_that_is_away_for_a_second(text: str) -> None:
    DOES["a"] = lambda: away_for(1)
    run = advanced(started("outlasting", text))
    assert (run.status, sorted(EFFECTS)[:2], EFFECTS.count("a")) == ("succeeded", ["a", "b"], 1)
    assert not Review.objects.exists()
    assert "RunTakenOver" not in kinds(run)


def test_a_result_too_large_for_its_event_waits_as_well() -> None:
    DOES["a"] = lambda: away_for(1) * 1_000_000
    run = advanced(started("outlasting", "one after the other"))
    assert (run.output, EFFECTS) == ({"said": "1000000 b"}, ["a", "b"])


def test_a_result_before_a_child_is_started_waits_as_well() -> None:
    DOES["a"] = lambda: away_for(1)
    run = advanced(started("outlasting-child", "hello"))
    assert (run.status, EFFECTS, run.children.count()) == ("waiting", ["a"], 1)


def test_beyond_the_lease_the_run_is_left_to_others_while_the_slowest_still_works(settings: Any) -> None:
    settings.LEASE_SECONDS, settings.GATHER_THREADS = 2, 2
    due, failed = threading.Event(), list[BaseException]()

    def carry() -> None:
        try:
            executor.advance(run.pk, owner="one")
        except (OperationalError, InterfaceError) as error:
            failed.append(error)
        finally:
            connections.close_all()

    DOES["b"] = lambda: due.wait(timeout=60) and "slow"
    run = started("outlasting", "side by side")
    carrying = threading.Thread(target=carry)
    with away_in("a") as gone:
        carrying.start()
        assert gone.wait(timeout=30)
        (held,) = keeper._the_keeper().held
        eventually(lambda: held.fence == 0, seconds=30)  # it has let go
    connection.close()
    try:
        eventually(lambda: Run.objects.due().filter(pk=run.pk).exists(), seconds=30)
        assert carrying.is_alive()
    finally:
        due.set()
        carrying.join()
        pen.close()  # what its pool still has was dead before
    assert len(failed) == 1
    run = advanced(run)
    assert (run.status, Review.objects.filter(run=run).count()) == ("waiting", 2)
    assert (sorted(EFFECTS[:2]), EFFECTS[2:]) == (["a", "b"], ["c"]), "the first two side by side"


# --- what nobody knows for a moment -------------------------------------------------------------------------------


def asked(name: str) -> Draft:
    about = {"proposal": None, "why": "why", "schema": {}, "allowed": ["approve"]}
    return Draft(Kind.STEP_ESCALATED, {"cause": "failed", "subject": "output"} | about, 1) if name == "escalated" else Draft(
        Kind.STEP_SUCCEEDED, {"output": "x" * (1_000_000 if name == "large" else 1)}, 1
    )  # fmt: skip


def lost_once(write: Callable[..., Any], *, took_place: bool, then: Callable[[], object]) -> Callable[..., Any]:
    lost: list[int] = []

    def write_and_lose(*arguments: Any) -> Any:
        if lost:
            return write(*arguments)
        lost.append(1)
        if took_place:
            write(*arguments)
        then()
        raise OperationalError("the connection was lost")

    return write_and_lose


@pytest.mark.parametrize("took_place", [True, False])
@pytest.mark.parametrize("name", ["small", "large", "escalated"])
def test_an_append_whose_reply_is_lost_is_written_once(name: str, took_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = begun()
    where, what = (pen._group, "_insert") if name == "small" else (connection, "_commit")
    close = (lambda: None) if name == "small" else lambda: connection.connection.close()  # type: ignore[union-attr]
    monkeypatch.setattr(where, what, lost_once(getattr(where, what), took_place=took_place, then=close))
    log.append(asked(name), may_wait=lambda: True)
    assert event_log.rows(log.run_id).count() == log.state.seq == 4
    assert audit.first_wrong(log.run_id) == ""
    assert Review.objects.count() == (name == "escalated")


def test_an_append_that_is_not_answered_writes_nothing_where_another_has_the_run_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log = begun()
    taken = lambda: Run.objects.filter(pk=log.run_id).update(fence=7)  # noqa: E731
    monkeypatch.setattr(pen._group, "_insert", lost_once(pen._group._insert, took_place=False, then=taken))
    with pytest.raises(event_log.LeaseLost):
        log.append(asked("small"), may_wait=lambda: True)
    assert event_log.rows(log.run_id).count() == 3


def begun() -> event_log.RunLog:
    log, opening = event_log.take(started("outlasting", "x").pk, owner="test")  # type: ignore[misc]
    request = executor.Steps(log).reach("a", once, {"name": "a"}).request
    log.append(opening, Draft(Kind.STEP_STARTED, request | {"attempt": 1}, 1))
    return log
