"""Whether a step may call out now: held back by what all processes share, and what follows a failure."""

import ctypes
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import redis
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from runs import commands, dependencies, event_log, waiting
from runs.engine.errors import AskHuman, GiveUp, HeldBack, TryLater
from runs.keeper import Cancelled
from runs.models import BreakerChange, held
from runs.reliability import breaker, entry, guard, renewer, slots, store, terms
from runs.sdk import StepContext, executing, worker
from tests import counters
from tests.processes import eventually
from tests.shop import DOES, WORKERS, again, call, carried, fail, set_terms, told

# --- held back --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["buy", "once"])
def test_a_step_waits_for_a_dependency_that_is_switched_off_and_goes_on_afterwards(text: str, people: dict[str, User]) -> None:
    set_terms(enabled=False)
    run = carried(text)
    assert (run.status, run.waiting_cause, run.lease_until) == ("waiting", "switched_off", None)
    told = {fact.kind: fact.data for fact in event_log.facts(run.pk)}
    assert told["StepDeferred"]["cause"] == "switched_off"
    assert told["StepDeferred"]["dependency"] == told["RunParked"]["dependency"] == "shop"
    assert told["RunParked"]["why"] == told["StepDeferred"]["why"] == "shop is switched off: an admin can switch it on again."
    page, client = f"/runs/{run.pk}/", Client()
    client.force_login(people["operator"])
    sentence = "is held back. shop is switched off: an admin can switch it on again. It tries again <time data-counts"
    assert sentence in client.get(page).text
    assert "was held back for" in client.get(page).text
    assert again(run).status == "waiting"
    set_terms(enabled=True)
    run = again(run)
    assert (run.output, run.steps.get().attempt) == ({"said": "bought"}, 1), "waiting is no attempt"


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_steps_wait_for_several_dependencies_names_them() -> None:
    for name in ("shop", "post", "desk", "mail"):
        set_terms(name, enabled=False)
    run = carried("several")
    parked = told(run, "RunParked")
    first, second, third = parked["others"]
    assert {parked["dependency"], first, second, third} == {"shop", "post", "desk", "mail"}
    waits = f"switched off: an admin can switch it on again. Other steps wait for {first}, {second} and 1 more."
    assert waits in waiting.answer(run).sentence


@pytest.mark.django_db
def test_what_may_happen_only_once_is_not_begun_again_after_a_first_call() -> None:
    set_terms("post", enabled=False)
    made: list[int] = []
    run = carried("once", lambda: (guard.call("shop", lambda: made.append(1)), call("post")))
    assert (run.status, run.waiting_cause, made) == ("waiting", "person", [1])
    review = run.reviews.get()
    assert review.cause == "outcome_unknown"
    assert "Before that it had called shop, so it is not begun again by itself" in review.why


@pytest.mark.django_db
def test_a_supervisor_that_calls_outside_itself_is_told_to_use_a_worker() -> None:
    run = carried("itself")
    assert (run.status, run.error["kind"]) == ("failed", "GiveUp")
    assert run.error["message"].endswith("on every replay: nothing was sent. Call it in a @worker.")


@pytest.mark.django_db
def test_a_worker_without_the_engine_may_call_anything_and_is_told_of_a_wait() -> None:
    with executing(StepContext("1:x")):
        assert call() == "bought"
    set_terms(enabled=False)
    with pytest.raises(HeldBack, match="switched off"):
        call()


# --- held back by what all processes share ---------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_full_window_parks_the_run_until_it_has_room() -> None:
    set_terms(limit_requests=2, limit_period_seconds=600)
    terms.of("shop")
    runs = [carried("buy") for _ in range(4)]
    assert [run.status for run in runs[:2]] == ["succeeded", "succeeded"]
    assert {(run.status, run.waiting_cause) for run in runs[2:]} == {("waiting", "limit")}
    assert told(runs[3])["why"] == "shop takes 2 requests in 600 s, and 2 are used."
    assert runs[3].wake_at > runs[2].wake_at, "each is told a time of its own"
    assert held.counts() == {"shop": 2}
    assert list(held.behind("shop").order_by("pk")) == runs[2:]
    assert not held.behind("post")


@pytest.mark.django_db
def test_room_is_shared_between_the_tenants_of_an_agent_and_the_page_says_who_waits(
    signed_in: Callable[..., Client], django_capture_on_commit_callbacks: Any
) -> None:
    set_terms(limit_requests=4, limit_period_seconds=600)
    held_back = [run for run in (carried("Acme & Co", agent="serving") for _ in range(5)) if not run.ended]
    assert len(held_back) >= 2
    assert carried("Bolt", agent="serving").status == "succeeded", "who has had nothing does not wait behind who wants it all"
    assert counters.waiting("shop") == {"serving Acme & Co": len(held_back)}
    assert told(held_back[0])["tenant"] == told(held_back[0], "RunParked")["tenant"] == "Acme & Co"
    assert signed_in().get("/dependencies/shop/").text.count("for Acme &amp; Co") == len(held_back)
    with django_capture_on_commit_callbacks(execute=True):
        commands.cancel(held_back[0].pk, by="operator")
    assert counters.waiting("shop") == {"serving Acme & Co": len(held_back) - 1}


@pytest.mark.django_db
def test_a_call_that_leaves_late_counts_from_when_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    set_terms(limit_requests=1, limit_period_seconds=0.6)
    entering, slow, left = entry.enter, [0.3], list[float]()

    def enter(*arguments: Any, **more: Any) -> Any:
        answer = entering(*arguments, **more)
        if slow and isinstance(answer, entry.Entered):
            time.sleep(slow.pop())
        return answer

    monkeypatch.setattr(entry, "enter", enter)
    while len(left) < 2:
        try:
            with executing(StepContext(f"{len(left)}:buy")):  # who comes back has its place
                guard.call("shop", lambda: left.append(time.monotonic()))
        except HeldBack as held:
            time.sleep(held.seconds or 0)
    assert left[1] - left[0] >= 0.6


@pytest.mark.django_db
def test_no_slot_is_free_and_the_sentence_names_who_holds_them() -> None:
    set_terms(concurrency=1)
    entered = entry.enter("shop", "desk", "7:freeze_card", limits=terms.of("shop").limits)
    assert isinstance(entered, entry.Entered)
    run = carried("buy")
    assert run.waiting_cause == "slot"
    assert told(run)["why"] == "shop takes 1 call at once: no slot was free, then held by run 7 (freeze_card)."
    entry.leave(entered, ok=True, duration=0.1)
    assert again(run).status == "succeeded"


@pytest.mark.django_db
def test_slots_that_nobody_holds_are_not_called_taken() -> None:
    assert carried("buy").status == "succeeded"
    set_terms(concurrency=2)  # calls from before may be under way, which nobody has counted
    run = carried("buy")
    assert run.waiting_cause == "slot"
    assert told(run)["why"] == "shop takes 2 calls at once, and has no slot for this run yet."


@pytest.mark.django_db
def test_the_breaker_opens_parks_lets_one_try_and_every_change_is_a_row() -> None:
    set_terms(breaker_minimum_calls=3, breaker_open_seconds=0.5, retry_attempts=1)
    for _ in range(3):
        carried("buy", lambda: fail(ConnectionResetError("reset")))
    run = carried("buy")
    assert (run.status, run.waiting_cause) in [("waiting", "breaker"), ("succeeded", "")]
    rows = BreakerChange.objects.filter(dependency__name="shop").order_by("pk")
    assert [(row.old, row.new, row.by) for row in rows][:1] == [("closed", "open", "")]
    assert rows[0].why == "3 of 3 calls failed within 30 s."
    eventually(lambda: again(run).status == "succeeded")
    assert [row.new for row in rows.all()] == ["open", "half-open", "closed"]


@pytest.mark.django_db
def test_the_call_that_tries_an_open_breaker_is_no_attempt_of_its_step() -> None:
    set_terms(breaker_minimum_calls=1, breaker_open_seconds=0.1, retry_attempts=1)
    with pytest.raises(TryLater):
        fail(ConnectionResetError("reset"))
    run = carried("buy", lambda: fail(ConnectionResetError("reset again")))
    eventually(lambda: "this step's call tried it, and failed (shop: reset again)" in told(again(run))["why"])
    assert (run.status, run.waiting_cause) == ("waiting", "breaker"), "it has one attempt, and tried more often"
    assert "AttemptFailed" not in {fact.kind for fact in event_log.facts(run.pk)}
    DOES["buy"] = call
    eventually(lambda: again(run).status == "succeeded")
    assert run.steps.get().attempt == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("end", "state"), [(SystemExit, "open"), (Cancelled, "half-open")])
def test_a_canary_that_is_cut_off_has_failed_unless_a_person_wanted_it_so(end: type[BaseException], state: str) -> None:
    set_terms(breaker_minimum_calls=1, breaker_open_seconds=0.1)
    with pytest.raises(TryLater):
        fail(ConnectionResetError("reset"))
    set_terms(breaker_open_seconds=60)

    def is_cut_off() -> bool:
        try:
            return bool(guard.call("shop", ends))
        except HeldBack:
            return False
        except end:
            return True

    def ends() -> None:
        raise end

    eventually(is_cut_off)
    assert breaker.look("shop").state == state


@pytest.mark.django_db
def test_a_canary_whose_run_is_cancelled_is_the_only_one_until_its_call_has_ended() -> None:
    set_terms(breaker_minimum_calls=1, breaker_open_seconds=0.1)
    with pytest.raises(TryLater):
        fail(ConnectionResetError("reset"))
    caller, may_end, begun = threading.get_ident(), threading.Event(), list[int]()

    def hangs() -> None:
        begun.append(1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(Cancelled))
        may_end.wait(60)

    def is_cut_off() -> bool:
        try:
            return bool(guard.call("shop", hangs))
        except HeldBack:
            return False
        except Cancelled:
            return True

    def is_answered() -> bool:
        try:
            return bool(call() == "bought")
        except HeldBack:
            return False

    try:
        eventually(is_cut_off)
        for _ in range(3):
            with pytest.raises(HeldBack):
                call()
    finally:
        may_end.set()
    eventually(is_answered)
    assert begun == [1]


@pytest.mark.django_db
def test_what_may_happen_only_once_is_not_sent_twice_to_try_a_breaker() -> None:
    set_terms(breaker_minimum_calls=1, breaker_open_seconds=0.1)
    with pytest.raises(TryLater):
        fail(ConnectionResetError("reset"))
    run = carried("once", lambda: fail(ConnectionResetError("reset")))
    eventually(lambda: run.waiting_cause == "person" or again(run).waiting_cause == "person")
    assert run.reviews.get().cause == "outcome_unknown"


@pytest.mark.django_db
def test_what_the_other_side_refuses_does_not_open_its_breaker() -> None:
    set_terms(breaker_minimum_calls=1)
    for error in (GiveUp("no such card"), KeyError("who knows"), TryLater(30, why="not ready yet")):
        with pytest.raises((GiveUp, AskHuman, TryLater)):
            fail(error)
    assert call() == "bought"
    assert not BreakerChange.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("wanted", "opened"), [({}, ""), ({}, "open"), ({"limit_requests": 5}, ""), ({"concurrency": 5}, "")])
def test_without_redis_nothing_is_called_that_has_a_limit_or_was_opened_by_a_person(
    wanted: dict[str, int], opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_terms(**wanted)
    for state in filter(None, (opened, opened and "closed", opened)):
        dependencies.force("shop", cast(Any, state), by="operator", reason="their maintenance")
    called = not (wanted or opened)
    nobody = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(store, "redis", lambda: nobody)
    run = carried("buy")
    assert (run.status, run.waiting_cause) == (("succeeded", "") if called else ("waiting", "limit"))
    assert called or "in Redis, which cannot be reached" in told(run)["why"]


@pytest.mark.django_db
def test_a_call_that_is_larger_than_a_whole_minute_is_not_waited_for() -> None:
    set_terms(limit_tokens_per_minute=100)
    with pytest.raises(GiveUp, match="may be sent 100 tokens a minute, and this call alone asks for 101"):
        guard.call("shop", lambda: None, tokens=101)


@pytest.mark.django_db
def test_tokens_are_counted_as_they_were_used() -> None:
    set_terms(limit_tokens_per_minute=100)
    guard.call("shop", lambda: guard.used(5), tokens=90)
    assert counters.used("shop", terms.of("shop").limits).tokens == 5


@pytest.mark.django_db
def test_the_slot_of_a_long_call_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    set_terms(concurrency=1)
    monkeypatch.setattr(renewer, "LEASE_SECONDS", 120.0)
    monkeypatch.setattr(renewer, "RENEW_SECONDS", 0.1)
    asked: list[bool] = []

    def lasts() -> None:
        first = slots.holders("shop")[0].until
        eventually(lambda: slots.holders("shop")[0].until > first)
        asked.append(True)

    guard.call("shop", lasts)
    assert asked == [True]
    assert slots.holders("shop") == []


@pytest.mark.django_db
def test_the_sweeper_asks_a_small_index_for_what_is_held_back() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        plan = held.runs().explain()
    assert "run_held" in plan or "run_waits_newest" in plan, "either holds what waits, and nothing else"


@worker(uses="shop", timeout=1.5)
def buy_in_a_hurry(text: str) -> str:
    return str(DOES["buy"]())


@pytest.mark.django_db(transaction=True)
def test_a_step_is_cut_off_while_it_waits_for_an_answer_and_its_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, answers = threading.Event(), [lambda: hanging.wait(60), lambda: "bought"]
    monkeypatch.setitem(WORKERS, "buy", buy_in_a_hurry)
    try:
        run = carried("buy", lambda: guard.call("shop", answers.pop(0)))
    finally:
        hanging.set()
    assert run.output == {"said": "bought"}
    assert told(run, "AttemptCrashed")["reason"] == "because it took longer than 1.5 s"


# --- what follows a failure -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_dependency_says_how_often_and_how_late_a_step_is_tried_again() -> None:
    set_terms(retry_attempts=2, retry_first_wait_seconds=100, retry_longest_wait_seconds=100)
    run = carried("buy", lambda: fail(ConnectionResetError("reset")))
    failed = next(fact for fact in event_log.facts(run.pk) if fact.kind == "AttemptFailed")
    assert 0 <= failed.data["wait_seconds"] <= 100
    run = again(run) if run.status == "retrying" else run
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert "It still failed after 2 attempts: shop: reset" in run.reviews.get().why


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("code", "admin", "tried"),
    [(3, 1, 1), (1, 3, 1), (2, None, 2)],
    ids=["an admin wants fewer", "the code does", "the code"],
)
def test_of_two_numbers_of_attempts_the_smaller_counts(
    code: int, admin: int | None, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_terms(retry_attempts=admin, retry_first_wait_seconds=0.1, retry_longest_wait_seconds=0.1)
    monkeypatch.setitem(WORKERS, "buy", replace(WORKERS["buy"], attempts=code))
    run = carried("buy", lambda: fail(ConnectionResetError("reset")))
    assert f"It still failed after {tried} attempt{'s' if tried > 1 else ''}: shop: reset" in run.reviews.get().why


@pytest.mark.django_db
def test_no_attempt_begins_when_the_total_time_is_over() -> None:
    set_terms(retry_attempts=20, retry_total_seconds=60)
    asked = TryLater("busy", retry_after=45)
    run = carried("buy", lambda: fail(asked))
    assert run.status == "retrying"
    asked = TryLater("busy", retry_after=61)
    run = again(run)
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert re.search(r"It still failed after 2 attempts in \d+ s: busy", run.reviews.get().why)


@pytest.mark.django_db
@pytest.mark.parametrize("error", [GiveUp("no such card"), AskHuman("look"), KeyError("who knows")])
def test_what_is_no_matter_of_time_is_not_tried_again(error: Exception) -> None:
    run = carried("buy", lambda: fail(error))
    assert (run.status, run.waiting_cause, run.steps.get().attempt) == ("waiting", "person", 1)
