"""Limits that many processes share: kept in every window, also when the memory is lost; fair between keys."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

import pytest
from pytest_django import Settings

from agentops.services.valkey import Valkey, valkey
from runs.reliability import breaker, entry, slots, store
from runs.reliability.breaker import BreakerTerms
from runs.reliability.entry import Entered
from runs.reliability.limiter import Limits, NoRoom, TooLarge
from runs.reliability.reading import readings
from tests import counters
from tests.actors import at_once

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def granted_at(admitted: Entered) -> float:
    """By the clock of Redis."""
    return int(admitted.grant.partition("-")[0]) / 1_000_000


def most_in_a_window(moments: list[float], seconds: float) -> int:
    ordered = sorted(moments)
    return max(sum(1 for other in ordered[i:] if other - one < seconds) for i, one in enumerate(ordered))


def wait_for(dependency: str, key: str, limits: Limits, ticket: str, **more: object) -> tuple[int]:
    """Come back whenever told, until admitted; also how often it was refused."""
    refused = 0
    while isinstance(answer := counters.admit(dependency, key, limits, ticket=ticket, **more), NoRoom):
        refused += 1
        time.sleep(answer.seconds)
    return answer, refused


def test_eight_processes_never_exceed_a_window_also_when_redis_is_emptied() -> None:
    limits = Limits(requests=20, period_seconds=0.5)

    def caller(number: int) -> tuple[list[float], int]:
        moments, refusals = [], 0
        for call in range(20):
            if number == 0 and call == 10:
                store.redis().flushall()
            admitted, refused = wait_for("cards", f"agent-{number % 2}", limits, f"{number}:{call}", known_since=LONG_AGO)
            moments.append(granted_at(admitted))
            refusals += refused
            counters.settle(admitted)
        return moments, refusals

    told = at_once(caller)
    moments = [moment for grants, _ in told for moment in grants]
    assert len(moments) == 160
    assert most_in_a_window(moments, 0.5) <= 20
    assert sum(refusals for _, refusals in told) < 8 * len(moments), "the refused come back when there is room, not all the time"


def test_what_leaves_late_is_counted_from_when_it_left() -> None:
    """Each process is slow between the answer and the call: the other side must not see it."""
    limits = Limits(requests=20, period_seconds=0.5)

    def caller(number: int) -> list[float]:
        chance, left = random.Random(number), []
        for call in range(10):
            entered, _ = wait_for("cards", "agent", limits, f"{number}:{call}")
            time.sleep(chance.choice([0.0, 0.0, 0.2, 0.4]))
            while entered and entered.is_late:
                entered = entry.restamped(entered)
            left += [time.time()] if entered else []
        return left

    moments = [moment for left in at_once(caller) for moment in left]
    assert len(moments) > 60
    assert most_in_a_window(moments, 0.5) <= 20


def test_a_call_whose_window_has_passed_does_not_leave() -> None:
    limits = Limits(requests=1, period_seconds=0.2)
    entered, _ = wait_for("cards", "agent", limits, "a")
    assert not entered.is_late
    wait_for("cards", "agent", limits, "b")
    assert entered.is_late
    assert entry.restamped(entered) is None
    entered, _ = wait_for("cards", "agent", limits, "c")
    store.redis().flushall()
    assert entry.restamped(entered) is None, "nobody knows what was called"
    unlimited = entry.enter("bank", "agent", "d", limits=Limits(concurrency=1))
    assert isinstance(unlimited, Entered)
    assert not unlimited.is_late


def test_the_refused_come_back_one_after_the_other() -> None:
    limits = Limits(requests=10, period_seconds=60)
    answers = [counters.admit("cards", "agent", limits, ticket=f"run:{i}") for i in range(100)]
    begun = sum(isinstance(one, Entered) for one in answers)
    told = [one.seconds for one in answers if isinstance(one, NoRoom)]
    assert begun + len(told) == 100
    assert 5 <= begun <= 7, "the rest of the window is paced"
    assert all(later > one - 0.1 for one, later in pairwise(told))
    assert most_in_a_window(told, 55.0) <= 12, "about as many as there will be room for"


def test_half_of_a_window_may_be_used_at_once_and_all_of_it_within_its_period() -> None:
    limits = Limits(requests=30, period_seconds=60)
    answers = [counters.admit("cards", "agent", limits, ticket=f"{i}") for i in range(29)]
    assert all(isinstance(one, Entered) for one in answers[:15])
    told = [one.seconds for one in answers if isinstance(one, NoRoom)]
    assert len(told) >= 12
    assert max(told) < 62


def test_whoever_waits_keeps_its_place() -> None:
    limits = Limits(requests=1, period_seconds=0.8)
    assert isinstance(counters.admit("cards", "agent", limits, ticket="a"), Entered)
    refused = [counters.admit("cards", "agent", limits, ticket=ticket) for ticket in ("b", "c")]
    assert all(isinstance(one, NoRoom) for one in refused)
    assert refused[0].seconds < refused[1].seconds
    time.sleep(refused[0].seconds)
    late = counters.admit("cards", "agent", limits, ticket="d")
    assert isinstance(late, NoRoom), "there is room, but b is to come now"
    assert isinstance(counters.admit("cards", "agent", limits, ticket="b"), Entered)
    again = counters.admit("cards", "agent", limits, ticket="c")
    assert isinstance(again, NoRoom)
    assert again.seconds < late.seconds
    assert (counters.used("cards", limits).requests, counters.waiting("cards")) == (1, {"agent": 2})


def test_nobody_is_sent_away_for_hours_and_a_limit_that_is_raised_lets_them_in() -> None:
    limits = Limits(requests=10, period_seconds=60)
    answers = [counters.admit("cards", "agent", limits, ticket=f"{i}") for i in range(400)]
    told = [one.seconds for one in answers if isinstance(one, NoRoom)]
    assert 450 < max(told) <= 900
    late = told[250:]
    assert most_in_a_window(late, 45) < len(late) / 4, "and they do not come all at once"
    assert isinstance(counters.admit("cards", "agent", Limits(1000, 60), ticket="399"), Entered)


def test_who_never_comes_back_does_not_hold_up_the_others() -> None:
    limits = Limits(requests=2, period_seconds=0.2)
    for ticket in ("a", "b", "gone", "gone too"):
        counters.admit("cards", "agent", limits, ticket=ticket)
    assert [wait_for("cards", "agent", limits, ticket)[0] for ticket in ("e", "f")]


def test_who_has_given_up_a_late_turn_is_out_of_the_line_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ninety wait for up to 90 s, are told to look within half a second, and are cancelled."""
    limits = Limits(requests=1, period_seconds=1)
    with counters.scripts_with("waiting", "60, 3, 10, 0.02, 0.005, 900", "0.2, 3, 10, 0.02, 0.005, 0.5", tmp_path, monkeypatch):
        told = [counters.admit("cards", "agent", limits, ticket=f"{i}") for i in range(90)]
        assert max(one.seconds for one in told if isinstance(one, NoRoom)) <= 0.5
        time.sleep(0.9)
        counters.admit("cards", "agent", limits, ticket="new")
        assert counters.waiting("cards").get("agent", 0) <= 1


def contend(limits: Limits, demand: dict[str, list[float]], grants: int) -> tuple[list[str], list[int]]:
    """Callers that ask at these seconds from now on, in one loop: whose turn it was; how many came before each of B, sorted."""
    begin = time.monotonic()
    todo = [(begin + after, key, f"{key}:{i}") for key, times in demand.items() for i, after in enumerate(times)]
    todo.sort()
    turns: list[str] = []
    asked_at: dict[str, int] = {}
    before: list[int] = []
    while len(turns) < grants:
        when, key, ticket = heappop(todo)
        time.sleep(max(when - time.monotonic(), 0))
        asked_at.setdefault(ticket, len(turns))
        answer = counters.admit("cards", key, limits, ticket=ticket)
        if isinstance(answer, Entered):
            counters.settle(answer)
            if key == "B":
                before.append(len(turns) - asked_at[ticket])
            turns.append(key)
            continue
        heappush(todo, (time.monotonic() + answer.seconds, key, ticket))
    return turns, sorted(before)


def test_one_with_hundreds_waiting_does_not_starve_one_that_asks_now_and_then() -> None:
    limits = Limits(requests=40, period_seconds=0.8)
    demand = {"A": [0.0] * 300, "B": [0.8 + i * 0.1 for i in range(40)]}
    turns, before = contend(limits, demand, grants=160)
    assert turns.count("B") >= 12
    assert before[len(before) // 2] <= 4, "half of them hardly wait"
    assert before[-1] <= 80, "two windows at the most, where those of A wait for ten"


def test_keys_that_want_all_get_the_same_and_who_wants_less_gets_it() -> None:
    limits = Limits(requests=30, period_seconds=0.9)
    demand = {"A": [0.0] * 90, "C": [0.1] * 90, "B": [0.1 + i * 0.3 for i in range(10)]}
    turns, before = contend(limits, demand, grants=120)
    later = turns[45:]
    assert abs(later.count("A") - later.count("C")) <= 14, later
    assert before[len(before) // 2] <= 4


def test_a_part_of_a_large_window_is_left_to_keys_that_use_little() -> None:
    limits = Limits(requests=40, period_seconds=0.4)
    most = 0
    for i in range(120):
        counters.settle(wait_for("cards", "A", limits, f"a:{i}")[0])
        most = max(most, counters.used("cards", limits).requests)
    assert most <= 39
    assert isinstance(counters.admit("cards", "B", limits, ticket="b"), Entered)


def test_tokens_are_reserved_and_then_counted_as_used() -> None:
    limits = Limits(tokens_per_minute=1000)
    first = counters.admit("model", "agent", limits, 400, ticket="a")
    second = counters.admit("model", "other", limits, 400, ticket="b")
    assert isinstance(first, Entered)
    assert isinstance(second, Entered)
    refused = counters.admit("model", "third", limits, 400, ticket="c")
    assert isinstance(refused, NoRoom)
    assert (refused.what, refused.used, refused.limit) == ("tokens", 800, 1000)
    counters.settle(first, 100)
    assert counters.used("model", limits).tokens == 500
    assert isinstance(counters.admit("model", "third", limits, 400, ticket="c"), Entered)
    counters.settle(second, 700)
    assert counters.used("model", limits).tokens == 1200, "a call that used more than it said is counted as it was"
    with pytest.raises(TooLarge, match=r"1000 tokens a minute.*1001"):
        counters.admit("model", "agent", limits, 1001, ticket="d")


def test_a_request_counts_from_when_it_was_there_at_the_latest() -> None:
    """On its way to the other side it grows older; the answer says that it has arrived."""
    limits = Limits(requests=1, period_seconds=30)
    told = {}
    for name in ("under way", "answered"):
        admitted = counters.admit(name, "agent", limits, ticket="a")
        assert isinstance(admitted, Entered)
        if name == "answered":
            counters.settle(admitted)
        refused = counters.admit(name, "agent", limits, ticket="b")
        assert isinstance(refused, NoRoom)
        told[name] = refused.seconds
    assert told["answered"] < told["under way"]


def test_who_is_unknown_has_lost_its_memory_unless_it_is_new() -> None:
    limits = Limits(requests=5, period_seconds=30)
    assert isinstance(counters.admit("new", "agent", limits, ticket="a", known_since=datetime.now(UTC)), Entered)
    old = datetime.now(UTC) - timedelta(seconds=31)
    answers = [counters.admit("old", "agent", limits, ticket=f"{i}", known_since=old) for i in range(10)]
    assert all(isinstance(one, NoRoom) for one in answers)
    seconds = [one.seconds for one in answers if isinstance(one, NoRoom)]
    assert 29 < seconds[0] < 32
    assert seconds == sorted(set(seconds)), "each at a time of its own"
    assert counters.used("old", limits).full_for_seconds > 29


def test_a_longer_period_looks_back_further_than_was_kept() -> None:
    assert isinstance(counters.admit("cards", "agent", Limits(5, 1), ticket="a"), Entered)
    assert isinstance(counters.admit("cards", "agent", Limits(6, 1), ticket="b"), Entered)
    assert isinstance(counters.admit("cards", "agent", Limits(6, 60), ticket="c"), NoRoom)


def test_a_period_that_was_shortened_for_a_while_has_forgotten_the_window() -> None:
    long, short = Limits(requests=4, period_seconds=12), Limits(requests=4, period_seconds=0.1)
    began = [counters.admit("cards", "agent", long, ticket=f"long {i}") for i in range(4)]
    assert any(isinstance(one, Entered) for one in began)
    wait_for("cards", "agent", short, "short")
    assert counters.used("cards", short).full_for_seconds == 0, "a shorter one is known"
    assert isinstance(counters.admit("cards", "agent", long, ticket="again"), NoRoom)
    assert counters.used("cards", long).full_for_seconds > 8
    wait_for("cards", "agent", short, "short again")


def test_who_looks_with_a_shorter_period_forgets_nothing() -> None:
    limits = Limits(requests=1, period_seconds=60)
    wait_for("cards", "agent", limits, "a")
    time.sleep(0.2)
    counters.used("cards", Limits(requests=1, period_seconds=0.05))
    assert isinstance(counters.admit("cards", "agent", limits, ticket="b"), NoRoom)


def test_what_did_not_leave_is_not_counted() -> None:
    limits = Limits(requests=2, period_seconds=60, tokens_per_minute=1000)
    for number in range(5):
        entered, _ = wait_for("cards", "agent", limits, f"{number}", tokens=900)
        entry.leave(entered, ok=None, duration=0.0, unsent=True)
    found = counters.used("cards", limits)
    assert (found.requests, found.tokens) == (0, 0)


def test_a_limit_that_was_lifted_is_unknown_when_it_is_set_again() -> None:
    limits = Limits(requests=5, period_seconds=1)
    assert isinstance(counters.admit("cards", "agent", limits, ticket="a", known_since=LONG_AGO), NoRoom)
    assert isinstance(counters.admit("cards", "agent", Limits(), ticket="b", known_since=LONG_AGO), Entered)
    assert counters.used("cards", limits).full_for_seconds == 0
    assert isinstance(counters.admit("cards", "agent", limits, ticket="c", known_since=LONG_AGO), NoRoom)


@pytest.fixture
def own_redis(tmp_path: Path, settings: Settings) -> Iterator[Valkey]:
    """One that this test may kill."""
    server = valkey(tmp_path)
    server.start()
    settings.RQ_QUEUES = {"default": {"URL": server.url}}
    yield server
    server.stop()


def test_a_restart_of_redis_may_have_lost_the_last_seconds(own_redis: Valkey) -> None:
    limits = Limits(requests=5, period_seconds=30)
    assert isinstance(counters.admit("cards", "agent", limits, ticket="a"), Entered)
    own_redis.stop()
    own_redis.start()
    assert isinstance(counters.admit("cards", "agent", limits, ticket="b"), NoRoom)


def test_without_redis_every_question_is_answered_by_one_error(settings: Settings, tmp_path: Path) -> None:
    settings.RQ_QUEUES = {"default": {"URL": f"unix://{tmp_path}/nobody"}}
    entered = entry.Entered("cards", "a", BreakerTerms(), "", 0, holds_slot=True, canary=False, change=None)
    questions = [
        lambda: entry.enter("cards", "agent", "a", limits=Limits(1)), lambda: entry.restamped(entered),
        lambda: entry.leave(entered, ok=True, duration=1), lambda: entry.free(entered), lambda: slots.renew([entered.lease]),
        lambda: slots.holders("cards"), lambda: breaker.look("cards"), lambda: readings({"cards": Limits(1)}),
        lambda: breaker.force("cards", "open", "why", "who"),
    ]  # fmt: skip
    for question in questions:
        with pytest.raises(store.Unavailable):
            question()


def test_a_call_is_late_by_the_shortest_of_its_limits() -> None:
    """A window of half a second is wrong long before one of a minute is."""
    limits = Limits(requests=5, period_seconds=0.5, tokens_per_minute=1000, concurrency=2)
    entered, _ = wait_for("cards", "agent", limits, "a", tokens=10)
    assert entered.within_seconds == pytest.approx(0.115)
    entered = counters.taken("bank", "a", 1, 30)
    assert entered.within_seconds == 15, "half of its lease"
