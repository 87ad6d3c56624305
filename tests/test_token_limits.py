"""Tokens a minute: a large call among many small ones comes to its turn, and starves nobody. The minute is a shorter one here."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path

import pytest

from runs.reliability import store
from runs.reliability.entry import Entered
from runs.reliability.limiter import Limits
from tests import counters

MINUTE = 1.0
LIMITS = Limits(tokens_per_minute=1000)


@pytest.fixture(autouse=True)
def short_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts themselves, with one number changed."""
    with counters.scripts_with("meters", "MINUTE = 60\n", f"MINUTE = {MINUTE}\n", tmp_path, monkeypatch):
        yield


@dataclass(order=True)
class Caller:
    """Comes back whenever it is told to."""

    at: float
    key: str
    ticket: str
    tokens: int
    asked: list[int] = field(default_factory=list, compare=False)  # how many calls had been made when it first asked


def contend(*callers: Caller, calls: int, until: str = "") -> list[tuple[Caller, int]]:
    """So many calls in one loop, or until that one, in the order in which they are let in; each with how many went before it."""
    begin, todo, made = time.monotonic(), list(callers), list[tuple[Caller, int]]()
    heapify(todo)
    while len(made) < calls:
        one = heappop(todo)
        time.sleep(max(begin + one.at - time.monotonic(), 0))
        one.asked.append(len(made))
        answer = counters.admit("model", one.key, LIMITS, one.tokens, ticket=one.ticket)
        if isinstance(answer, Entered):
            counters.settle(answer)
            made.append((one, len(made) - one.asked[0]))
            if one.ticket == until:
                break
        else:
            one.at = time.monotonic() - begin + answer.seconds
            heappush(todo, one)
    return made


def many(key: str, number: int, tokens: int, *, every: float = 0.0, begin: float = 0.0, keys: int = 1) -> list[Caller]:
    return [Caller(begin + i * every, f"{key}{i % keys or ''}", f"{key}:{i}", tokens) for i in range(number)]


@pytest.mark.parametrize(("key", "keys"), [("A", 1), ("B", 1), ("B", 50)], ids=["of its own", "of another", "of fifty others"])
def test_a_large_call_comes_to_its_turn_beside_many_small_ones(key: str, keys: int) -> None:
    """Of small ones come twice as many as there is room for: there is never room for a large one by itself."""
    small = many(key, 400, 20, every=0.01, keys=keys)
    made = contend(*small, Caller(0.7, "A", "large", 900), calls=160, until="large")
    last, before = made[-1]
    assert last.ticket == "large", "it starved"
    assert before <= 110, "the small ones of two minutes"


def test_large_calls_do_not_starve_one_that_makes_small_ones_now_and_then() -> None:
    made = contend(*many("A", 60, 400), *many("B", 20, 10, every=0.1, begin=0.5), calls=22)
    before = [waited for one, waited in made if one.key == "B"]
    assert len(before) >= 10
    assert max(before) <= 4


def test_what_is_kept_for_a_call_that_never_comes_back_is_free_again() -> None:
    admitted = [counters.admit("model", "B", LIMITS, 100, ticket=f"{i}") for i in range(6)]
    assert sum(isinstance(one, Entered) for one in admitted) >= 3
    gone = counters.admit("model", "A", LIMITS, 1000, ticket="gone")
    assert not isinstance(gone, Entered)
    assert not isinstance(counters.admit("model", "C", LIMITS, 10, ticket="small"), Entered), "it would go before it"
    store.redis().zadd(f"{store.home('model')}:due", {"A\x1fgone": time.time() - 11})
    assert isinstance(counters.admit("model", "C", LIMITS, 10, ticket="small"), Entered)


def test_a_call_that_used_nothing_leaves_the_window_like_any_other() -> None:
    """It was refused by the model, or never reached it."""
    for ticket in ("a", "b"):
        counters.settle(counters.admitted("model", "agent", LIMITS, 900, ticket=ticket), used=0)
    time.sleep(MINUTE + 0.2)
    counters.settle(counters.admitted("model", "agent", LIMITS, 900, ticket="c"), used=5)
    assert counters.used("model", LIMITS).tokens == 5
