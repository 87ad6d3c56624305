"""The breaker that all processes share: when it opens, one canary, growing cohorts afterwards; and the way in and out."""

import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from runs.reliability import breaker, entry, slots, store
from runs.reliability.breaker import BreakerTerms, Change, Open
from runs.reliability.entry import Entered
from runs.reliability.limiter import Limits, NoRoom
from runs.reliability.reading import readings
from runs.reliability.slots import NoSlot
from tests import counters
from tests.actors import at_once
from tests.counters import Canary, Closed
from tests.processes import eventually

TERMS = BreakerTerms(failure_ratio=0.5, minimum=4, window_seconds=60, open_seconds=0.6)
LIMITS = Limits(requests=50, period_seconds=60, concurrency=2)


def report(ok: bool, canary: object = None, terms: BreakerTerms = TERMS) -> Change | None:
    assert canary is None or isinstance(canary, Canary)
    return counters.report("cards", terms, canary, ok, 0.02)


def opened(terms: BreakerTerms = TERMS) -> Change:
    return next(change for _ in range(20) if (change := report(False, terms=terms)))


@pytest.mark.parametrize(
    ("reports", "state"),
    [
        ("FFF", "closed"), ("FFFF", "open"), ("SSSF", "closed"), ("SSFF", "open"), ("SSSSFFF", "closed"), ("SSSSFFFF", "open"),
        ("FFSS", "closed"), ("FFSSF", "open"),
    ],
)  # fmt: skip
def test_it_opens_at_its_share_of_at_least_so_many_calls_and_only_on_a_failure(reports: str, state: str) -> None:
    changes = [change for one in reports if (change := report(one == "S"))]
    assert breaker.look("cards").state == state
    failed = reports.count("F")
    why = f"{failed} of {len(reports)} calls failed within 60 s."
    assert changes == ([Change("closed", "open", why)] if state == "open" else [])


def test_failures_that_left_the_window_are_forgotten() -> None:
    terms = BreakerTerms(failure_ratio=0.5, minimum=4, window_seconds=0.4)
    for _ in range(3):
        report(False, terms=terms)
    time.sleep(0.5)
    assert report(False, terms=terms) is None
    assert breaker.look("cards").failures == 1


def test_of_eight_processes_exactly_one_is_the_canary_and_one_is_told_of_each_change() -> None:
    assert opened() == Change("closed", "open", "4 of 4 calls failed within 60 s.")
    time.sleep(0.65)
    answers = at_once(lambda number: [counters.ask("cards", TERMS, f"run:{number}") for _ in range(20)])
    (canary,) = [one for asked in answers for one in asked if isinstance(one, Canary)]
    assert canary.change is not None
    assert (canary.change.old, canary.change.new) == ("open", "half-open")

    reports = at_once(lambda number: report(True, canary if number == 5 else None))
    assert [one for one in reports if one] == [Change("half-open", "closed", "The call that tried it succeeded.")]


def test_a_canary_that_fails_opens_it_again_and_late_reports_of_others_change_nothing() -> None:
    opened()
    assert report(True) is None, "begun before it opened"
    assert isinstance(counters.ask("cards", TERMS, "a"), Open)
    time.sleep(0.65)
    canary = counters.ask("cards", TERMS, "a")
    assert isinstance(canary, Canary)
    assert report(True) is None
    assert report(False) is None
    assert breaker.look("cards").state == "half-open"
    assert report(False, canary) == Change("half-open", "open", "The call that tried it failed.")
    refused = counters.ask("cards", TERMS, "b")
    assert isinstance(refused, Open)
    assert refused.state == "open"


def test_who_asks_us_to_wait_is_not_tried_before_but_once_an_hour() -> None:
    for asked, least, most in [(120, 100, 120), (86_400, 3_500, 3_600)]:
        for number in range(4):
            entered = entry.enter(f"cards {asked}", "", f"{number}", limits=Limits(), terms=TERMS)
            assert isinstance(entered, Entered)
            entry.leave(entered, ok=False, duration=0.1, retry_after=asked)
        answer = counters.ask(f"cards {asked}", TERMS, "another")
        assert isinstance(answer, Open)
        assert least < (answer.next_try_seconds or 0) <= most


def test_a_canary_is_the_only_one_for_as_long_as_its_process_renews_it() -> None:
    """Then another is, also of the same step; the first may not leave any more, and what it reports says nothing."""
    terms, later = BreakerTerms(failure_ratio=0.5, minimum=1, open_seconds=0.1), list[Any]()
    opened(terms)
    time.sleep(0.15)
    first = counters.ask("cards", terms, "7:freeze", lease_seconds=0.3)
    assert isinstance(first, Canary)
    assert first.entered.lease
    assert first.entered.within_seconds == 0.15
    assert slots.renew([first.entered.lease], 30) == set()
    time.sleep(0.4)
    assert isinstance(counters.ask("cards", terms, "7:freeze"), Open)
    slots.renew([first.entered.lease], 0.1)
    eventually(lambda: isinstance(later.append(counters.ask("cards", terms, "7:freeze")) or later[-1], Canary))
    assert later[-1].change is None
    assert entry.restamped(first.entered) is None
    assert report(True, first, terms) is None
    assert entry.restamped(later[-1].entered) is not None
    assert report(True, later[-1], terms) is not None
    assert entry.restamped(first.entered) is not None, "it is closed: everybody may"


def test_after_an_outage_those_who_waited_are_let_in_by_growing_cohorts() -> None:
    opened(replace(TERMS, open_seconds=30))
    told = [counters.ask("cards", TERMS, f"run:{i}") for i in range(64)]
    assert all(isinstance(one, Open) for one in told)
    seconds = [one.seconds - 30 for one in told if isinstance(one, Open)]
    assert all(sum(one <= after for one in seconds) >= 2**after for after in (0, 1, 2, 3))
    assert all(sum(one <= after - 1 for one in seconds) <= 2**after for after in (0, 1, 2, 3, 4, 5))
    store.redis().hset(f"{store.home('cards')}:breaker", "until", 1)
    canary = counters.ask("cards", TERMS, "run:0")
    closed = time.monotonic()
    assert report(True, canary) is not None
    begun = [isinstance(counters.ask("cards", TERMS, f"run:{i}"), Closed) for i in range(1, 64)]
    most = 2 ** (time.monotonic() - closed + 1) + 1
    assert 1 <= sum(begun) <= most
    assert breaker.look("cards").ramp


def test_the_longer_an_outage_the_less_often_most_of_those_who_wait_ask() -> None:
    terms = BreakerTerms(failure_ratio=0.5, minimum=1, open_seconds=100)
    opened(terms)
    store.redis().hincrbyfloat(f"{store.home('cards')}:breaker", "broken_since", -600)
    told = [counters.ask("cards", terms, f"run:{i}") for i in range(12)]
    seconds = [one.seconds for one in told if isinstance(one, Open)]
    assert seconds[7] < 103.1, "those in front ask when the next canary may go"
    assert min(seconds[8:]) > 125


def test_nobody_waits_after_recovery_where_nobody_waited() -> None:
    opened()
    time.sleep(0.65)
    report(True, counters.ask("cards", TERMS, "a"))
    assert [counters.ask("cards", TERMS, f"{i}") for i in range(20)] == [Closed()] * 20


def test_by_hand() -> None:
    assert breaker.force("cards", "open", "They told us they are moving.", "ada") == Change(
        "closed", "open", "They told us they are moving."
    )
    look = breaker.look("cards")
    assert (look.state, look.by, look.why, look.next_try) == ("open", "ada", "They told us they are moving.", None)
    refused = counters.ask("cards", TERMS, "a")
    assert isinstance(refused, Open)
    assert refused.next_try_seconds is None
    assert breaker.force("cards", "closed", "They are back.", "ada") == Change("open", "closed", "They are back.")
    assert breaker.force("cards", "closed", "Once more.", "ada") is None


def test_minutes_have_calls_failures_and_latencies() -> None:
    for milliseconds in range(1, 101):
        counters.report("cards", TERMS, None, milliseconds != 50, milliseconds / 1000)
    breaker.force("cards", "open", "why", "ada")
    counters.ask("cards", TERMS, "b")
    minutes = counters.minutes("cards")
    assert len(minutes) == 60
    assert [later.at - one.at for one, later in pairwise(minutes)] == [timedelta(minutes=1)] * 59
    last = [one for one in minutes if one.calls]
    assert sum(one.calls for one in last) == 100
    assert sum(one.failures for one in last) == 1
    assert sum(one.held_back for one in minutes) == 1
    assert last[-1].p95_seconds is not None
    assert 0.095 <= last[-1].p95_seconds <= 0.095 * 2**0.5
    assert minutes[0].p50_seconds is None


# --- all at once ------------------------------------------------------------------------------------------------------


def enter(ticket: str, limits: Limits = LIMITS) -> Entered | entry.HeldBack:
    return entry.enter("cards", "agent", ticket, limits=limits, terms=TERMS)


def used() -> tuple[int, int]:
    return counters.used("cards", LIMITS).requests, len(slots.holders("cards"))


def test_in_and_out_are_one_round_trip_each() -> None:
    first = enter("warm up")
    assert isinstance(first, Entered)
    entry.leave(first, ok=True, duration=0.1)
    before = store.redis().info("commandstats")["cmdstat_evalsha"]["calls"]
    entered = enter("a")
    assert isinstance(entered, Entered)
    assert used() == (2, 1)
    assert entry.leave(entered, ok=True, duration=0.1) is None
    assert used() == (2, 0)
    asked = store.redis().info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert asked == 2 + 4, "and two for each look"


def test_a_page_reads_several_dependencies_at_once_each_with_one_script() -> None:
    first = enter("7:freeze")
    assert isinstance(first, Entered)
    readings({"cards": LIMITS})
    before = store.redis().info("commandstats")["cmdstat_evalsha"]["calls"]
    read = readings({"cards": LIMITS, "bank": Limits()})
    assert store.redis().info("commandstats")["cmdstat_evalsha"]["calls"] - before == 2
    cards, bank = read["cards"], read["bank"]
    assert (cards.use.requests, cards.slots_held, [one.name for one in cards.holders]) == (1, 1, ["7:freeze"])
    assert (bank.use.requests, bank.slots_held, bank.holders, bank.look.state) == (0, 0, (), "closed")
    assert len(cards.minutes) == len(bank.minutes) == 60


def test_who_is_refused_by_one_has_taken_nothing_of_the_others() -> None:
    inside = [enter("a"), enter("b")]
    assert all(isinstance(one, Entered) for one in inside)
    refused = enter("c")
    assert isinstance(refused, NoSlot)
    assert {one.name for one in refused.holders} == {"a", "b"}
    assert used() == (2, 2)
    for one in inside:
        assert isinstance(one, Entered)
        entry.leave(one, ok=True, duration=0.1)
    assert isinstance(enter("c", Limits(requests=2, period_seconds=60, concurrency=2)), NoRoom)
    assert used() == (2, 0)
    opened()
    assert isinstance(enter("d"), Open)
    assert used() == (2, 0)
    time.sleep(0.65)
    assert isinstance(enter("e", Limits(requests=2, period_seconds=60, concurrency=2)), NoRoom)
    assert breaker.look("cards").state == "open", "a canary that finds no room has not gone"
    canary = enter("f")
    assert isinstance(canary, Entered)
    assert canary.canary
    assert canary.change is not None


def test_a_canary_that_was_not_sent_lets_another_try() -> None:
    opened()
    time.sleep(0.65)
    canary = enter("a")
    assert isinstance(canary, Entered)
    assert isinstance(enter("b"), Open)
    assert entry.leave(canary, ok=None, duration=0) is None
    again = enter("b")
    assert isinstance(again, Entered)
    assert again.canary


def test_who_asks_again_because_the_answer_was_lost_hears_the_same_with_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    opened()
    asking, found = store.ask, list[Entered]()

    def lost_once(script: str, dependency: str, **question: Any) -> store.Answer:
        asking(script, dependency, **question)
        return asking(script, dependency, **question)

    def is_in() -> bool:
        answer = entry.enter("cards", "desk", "1:pay", limits=LIMITS, terms=TERMS)
        return isinstance(answer, Entered) and not found.append(answer)

    monkeypatch.setattr(store, "ask", lost_once)
    eventually(is_in)
    assert found[0].canary
    assert found[0].change == Change("open", "half-open", "One call tries whether it works again.")
