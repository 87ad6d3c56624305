"""Slots: never more at once than there are, also of many processes; what a dead holder had comes back."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

import pytest

from runs.reliability import entry, limiter, renewer, slots, store
from runs.reliability.entry import Entered
from runs.reliability.slots import NoSlot
from tests import counters
from tests.actors import PATIENCE_SECONDS, actor, at_once, heard
from tests.counters import taken
from tests.processes import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def released(entered: Entered) -> None:
    entry.leave(entered, ok=None, duration=0)


def test_each_call_has_a_slot_of_its_own_until_it_gives_it_back() -> None:
    first = taken("bank", "run:1", 2, key="desk")
    assert isinstance(taken("bank", "run:2", 2), Entered)
    refused = counters.take("bank", "run:1", 2, key="desk")
    assert isinstance(refused, NoSlot), "whoever comes with its ticket has none: the first may still be inside"
    assert isinstance(refused, NoSlot)
    assert [(one.name, one.key) for one in refused.holders] == [("run:1", "desk"), ("run:2", "")]
    assert all(one.since <= datetime.now(UTC) < one.until for one in refused.holders)
    released(first)
    assert taken("bank", "run:3", 2)
    released(first)
    assert [one.name for one in slots.holders("bank")] == ["run:2", "run:3"]
    assert taken("cards", "run:3", 1), "each dependency has its own"


def test_who_asks_again_because_the_answer_was_lost_is_let_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = store.ask
    monkeypatch.setattr(store, "ask", lambda *given, **question: (asking(*given, **question), asking(*given, **question))[1])
    limits = limiter.Limits(requests=5, concurrency=2)
    entered = entry.enter("bank", "desk", "run:1", limits=limits)
    assert isinstance(entered, Entered)
    assert (counters.used("bank", limits).requests, len(slots.holders("bank"))) == (1, 1)
    released(entered)
    assert slots.holders("bank") == []
    assert isinstance(entry.enter("bank", "desk", "run:1", limits=limits), Entered), "its next call is another"
    assert counters.used("bank", limits).requests == 2


def test_eight_processes_are_never_more_than_three_inside() -> None:
    def caller(number: int) -> tuple[int, int]:
        peak = 0
        for call in range(12):
            while isinstance(answer := counters.take("bank", f"{number}:{call}", 3, 30), NoSlot):
                time.sleep(answer.seconds)
            peak = max(peak, store.redis().incr("inside"))
            time.sleep(0.005)
            store.redis().decr("inside")
            released(answer)
        return peak, call + 1

    told = at_once(caller)
    assert sum(calls for _, calls in told) == 96
    assert 2 <= max(peak for peak, _ in told) <= 3
    assert slots.holders("bank") == []


@contextmanager
def holding(*, lives: float) -> Iterator[tuple[int, Connection]]:
    """A process that holds the only slot, keeps it as job processes do, and leaves when it is told to. It is killed then."""

    def hold(told: Connection) -> None:
        entered = taken("bank", "7:freeze", 1, lease_seconds=renewer.LEASE_SECONDS)
        renewer.keep(entered.lease, lambda: False)
        told.send("inside")
        told.poll(None)
        may_leave = entry.restamped(entered) is not None
        lost = slots.renew([entered.lease], renewer.LEASE_SECONDS)
        released(entered)
        told.send((may_leave, len(lost)))
        time.sleep(PATIENCE_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renewer, "LEASE_SECONDS", lives)
        patch.setattr(renewer, "RENEW_SECONDS", 0.1)
        with actor(hold) as (pid, told):
            assert heard(told) == "inside"
            yield pid, told


def test_the_slot_of_a_living_process_is_kept_and_that_of_a_killed_one_comes_back() -> None:
    with holding(lives=3):
        (first,) = slots.holders("bank")
        eventually(lambda: slots.holders("bank")[0].until > first.until)
        refused = counters.take("bank", "another", 1)
        assert isinstance(refused, NoSlot)
        assert [one.name for one in refused.holders] == ["7:freeze"]
    eventually(lambda: isinstance(counters.take("bank", "another", 1), Entered))
    assert [one.name for one in slots.holders("bank")] == ["another"]


def test_a_call_that_is_over_is_renewed_no_more_though_nobody_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller was cut off between two instructions."""
    over = threading.Event()
    monkeypatch.setattr(renewer, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(renewer, "LEASE_SECONDS", 0.5)
    entered = taken("bank", "7:freeze", 1, lease_seconds=0.5)
    renewer.keep(entered.lease, over.is_set)
    (first,) = slots.holders("bank")
    eventually(lambda: slots.holders("bank")[0].until > first.until)
    over.set()
    eventually(lambda: slots.holders("bank") == [])


def test_who_wakes_too_late_neither_leaves_nor_touches_the_slot_of_its_successor() -> None:
    """The process of a step is stopped; its run goes on elsewhere, with the same ticket; then the first goes on."""
    with holding(lives=3) as (pid, told):
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: isinstance(counters.take("bank", "7:freeze", 1, 60), Entered))
        os.kill(pid, signal.SIGCONT)
        told.send("leave")
        assert heard(told) == (False, 1), "it may not leave any more, and its slot is lost"
        (successor,) = slots.holders("bank")
        assert successor.until - datetime.now(UTC) > timedelta(seconds=30), "nobody else renewed it"
        assert isinstance(counters.take("bank", "another", 1), NoSlot)


def test_a_call_that_was_given_up_holds_its_slot_until_it_ends() -> None:
    first = taken("bank", "7:freeze", 1)
    entry.leave(first, ok=False, duration=5, runs_on=True)
    refused = counters.take("bank", "7:freeze", 1)
    assert isinstance(refused, NoSlot)
    assert [one.given_up for one in refused.holders] == [True]
    entry.free(first)
    second = taken("bank", "7:freeze", 1)
    entry.leave(first, ok=False, duration=5, runs_on=True)
    assert [(one.name, one.given_up) for one in slots.holders("bank")] == [("7:freeze", False)]
    assert slots.renew([second.lease]) == set()


def test_leases_on_several_dependencies_are_renewed_together() -> None:
    first, second = taken("bank", "a", 2, 0.3), taken("cards", "b", 2, 0.3)
    never = replace(first.lease, dependency="cards")
    assert slots.renew([first.lease, second.lease, never], 60) == {never}
    assert slots.renew([]) == set()
    left = [one.until - datetime.now(UTC) for name in ("bank", "cards") for one in slots.holders(name)]
    assert [round(one.total_seconds(), -1) for one in left] == [60, 60]


def test_who_holds_fewest_goes_first_and_those_who_wait_are_told_different_times() -> None:
    inside = [taken("bank", ticket, 2, key="A") for ticket in ("a1", "a2")]
    told = [counters.take("bank", f"a{i}", 2, key="A") for i in range(3, 20)]
    seconds = [one.seconds for one in told if isinstance(one, NoSlot)]
    assert len(seconds) == 17
    assert seconds[-1] > seconds[0]
    first = counters.take("bank", "b1", 2, key="B")
    assert isinstance(first, NoSlot)
    assert first.seconds < seconds[-1] / 2, "it does not stand behind all of A"
    time.sleep(first.seconds)
    released(inside[0])
    assert isinstance(counters.take("bank", "a3", 2, key="A"), NoSlot), "B is to come now, and holds none"
    assert taken("bank", "b1", 2, key="B")


def test_who_waits_for_a_slot_looks_less_and_less_often_and_begins_anew_with_its_next_wait() -> None:
    """Those inside take longer than any before: nobody knows when one of them ends."""
    inside = [taken("bank", f"long:{number}", 20) for number in range(20)]
    told = [refused.seconds for _ in range(9) if isinstance(refused := counters.take("bank", "waits", 20), NoSlot)]
    assert told == pytest.approx([0.05 * 1.5**times for times in range(8)] + [1.0])
    released(inside[0])
    assert taken("bank", "waits", 20)
    refused = counters.take("bank", "waits", 20)
    assert isinstance(refused, NoSlot)
    assert refused.seconds == pytest.approx(0.05)


def test_slots_that_were_lifted_wait_for_what_began_without_one() -> None:
    def enter(ticket: str, concurrency: int | None) -> entry.Entered | entry.HeldBack:
        limits = limiter.Limits(concurrency=concurrency)
        return entry.enter("bank", "agent", ticket, limits=limits, attempt_seconds=0.5)

    first = enter("a", 1)
    assert isinstance(first, entry.Entered)
    entry.leave(first, ok=True, duration=0)
    assert isinstance(enter("b", None), entry.Entered)
    assert isinstance(enter("c", 1), NoSlot), "b may be under way"
    eventually(lambda: isinstance(enter("c", 1), entry.Entered), seconds=10)
    assert isinstance(enter("d", 1), NoSlot)


def test_emptied_redis_is_told_again_who_is_inside_before_anybody_else_is_let_in() -> None:
    assert isinstance(counters.take("bank", "a", 1, 1, known_since=LONG_AGO), NoSlot), "unknown, and not new"
    found: list[Entered | NoSlot] = []
    eventually(lambda: found.append(counters.take("bank", "a", 1, 1, known_since=LONG_AGO)) or isinstance(found[-1], Entered))
    store.redis().flushall()
    assert isinstance(counters.take("bank", "b", 1, 1, known_since=LONG_AGO), NoSlot)
    lease = found[-1].lease
    assert slots.renew([lease], 30) == {lease}
    assert slots.renew([lease], 30) == set()
    time.sleep(1.1)
    refused = counters.take("bank", "b", 1, 1, known_since=LONG_AGO)
    assert isinstance(refused, NoSlot)
    assert [one.name for one in refused.holders] == ["a"]
