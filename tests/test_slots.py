"""Slots: never more at once than there are, also of many processes; what a dead holder had comes back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from runs.reliability import entry, limiter, slots, store
from runs.reliability.slots import NoSlot
from tests import counters
from tests.actors import FORK, at_once
from tests.counters import Taken
from tests.processes import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_slot_is_held_once_by_its_holder_and_free_when_released() -> None:
    assert [counters.take("bank", "run:1", 2, key="desk") for _ in range(3)] == [Taken()] * 3
    assert counters.take("bank", "run:2", 2) == Taken()
    refused = counters.take("bank", "run:3", 2)
    assert isinstance(refused, NoSlot)
    assert [(one.name, one.key) for one in refused.holders] == [("run:1", "desk"), ("run:2", "")]
    assert all(one.since <= datetime.now(UTC) < one.until for one in refused.holders)
    counters.release("bank", "run:1")
    counters.release("bank", "run:1")
    assert counters.take("bank", "run:3", 2) == Taken()
    assert [one.name for one in slots.holders("bank")] == ["run:2", "run:3"]
    assert counters.take("cards", "run:3", 1) == Taken(), "each dependency has its own"


def test_eight_processes_are_never_more_than_three_inside() -> None:
    def caller(number: int) -> tuple[int, int]:
        peak = 0
        for call in range(12):
            holder = f"{number}:{call}"
            while isinstance(answer := counters.take("bank", holder, 3, 30), NoSlot):
                time.sleep(answer.seconds)
            peak = max(peak, store.redis().incr("inside"))
            time.sleep(0.005)
            store.redis().decr("inside")
            counters.release("bank", holder)
        return peak, call + 1

    told = at_once(caller)
    assert sum(calls for _, calls in told) == 96
    assert 2 <= max(peak for peak, _ in told) <= 3
    assert slots.holders("bank") == []


@contextmanager
def holding(*, renews: bool) -> Iterator[None]:
    """A process that holds the slot, and is killed at the end of the block."""

    def hold(told: Any) -> None:
        told.send(counters.take("bank", "a process", 1, lease_seconds=1))
        while True:
            time.sleep(0.05)
            if renews:
                slots.renew([("bank", "a process")], 1)

    mine, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=hold, args=(theirs,), daemon=True)
    child.start()
    try:
        assert mine.recv() == Taken()
        yield
    finally:
        child.kill()  # kill -9
        child.join()


@pytest.mark.parametrize("renews", [True, False])
def test_the_slot_of_a_killed_process_comes_back(renews: bool) -> None:
    with holding(renews=renews):
        assert isinstance(counters.take("bank", "another", 1), NoSlot)
    eventually(lambda: counters.take("bank", "another", 1) == Taken(), seconds=10)
    assert slots.renew([("bank", "a process"), ("bank", "another")]) == {("bank", "a process")}
    assert [one.name for one in slots.holders("bank")] == ["another"]


def test_the_slot_of_a_living_process_does_not_come_back() -> None:
    with holding(renews=True):
        time.sleep(2.2)  # more than twice its lease
        refused = counters.take("bank", "another", 1)
    assert isinstance(refused, NoSlot)
    assert [one.name for one in refused.holders] == ["a process"]


def test_leases_on_several_dependencies_are_renewed_together() -> None:
    counters.take("bank", "a", 2, 0.3)
    counters.take("cards", "b", 2, 0.3)
    assert slots.renew([("bank", "a"), ("cards", "b"), ("cards", "never")], 60) == {("cards", "never")}
    assert slots.renew([]) == set()
    left = [one.until - datetime.now(UTC) for name in ("bank", "cards") for one in slots.holders(name)]
    assert [round(one.total_seconds(), -1) for one in left] == [60, 60]


def test_who_holds_fewest_goes_first_and_those_who_wait_are_told_different_times() -> None:
    for holder in ("a1", "a2"):
        assert counters.take("bank", holder, 2, key="A") == Taken()
    told = [counters.take("bank", f"a{i}", 2, key="A") for i in range(3, 20)]
    seconds = [one.seconds for one in told if isinstance(one, NoSlot)]
    assert len(seconds) == 17
    assert seconds[-1] > seconds[0]
    first = counters.take("bank", "b1", 2, key="B")
    assert isinstance(first, NoSlot)
    assert first.seconds < seconds[-1] / 2, "it does not stand behind all of A"
    time.sleep(first.seconds)
    counters.release("bank", "a1")
    assert isinstance(counters.take("bank", "a3", 2, key="A"), NoSlot), "B is to come now, and holds none"
    assert counters.take("bank", "b1", 2, key="B") == Taken()


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
    eventually(lambda: counters.take("bank", "a", 1, 1, known_since=LONG_AGO) == Taken(), seconds=10)
    store.redis().flushall()
    assert isinstance(counters.take("bank", "b", 1, 1, known_since=LONG_AGO), NoSlot)
    assert slots.renew([("bank", "a")], 30) == {("bank", "a")}
    time.sleep(1.1)
    refused = counters.take("bank", "b", 1, 1, known_since=LONG_AGO)
    assert isinstance(refused, NoSlot)
    assert [one.name for one in refused.holders] == ["a"]
