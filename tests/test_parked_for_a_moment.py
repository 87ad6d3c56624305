"""A step that is held back for a moment: its run holds no process meanwhile, and goes on at its time."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import django_rq
import pytest

from runs import clock, dispatch, event_log, executor, sweeper, waiting
from runs.attempts import OneStep
from runs.engine.errors import HeldBack, TryLater
from runs.models import Run
from runs.nexts import Open
from runs.reliability import entry, guard
from runs.reliability.guard import MOST_LATE
from tests import counters, shop
from tests.processes import eventually
from tests.shop import again, carried, set_terms, told


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a job process."""
    monkeypatch.setattr(dispatch, "_timers", [])
    dispatch.keep_time(lambda run_id: False)
    loop, thread = dispatch._timers[0].loop, next(one for one in threading.enumerate() if one.name == "timers")
    yield
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.django_db
def test_a_run_that_is_held_back_for_a_moment_is_parked_and_its_job_process_rings_at_its_time(
    timers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "soon_seconds", lambda: 60.0)  # on a busy machine its turn may be told later
    set_terms(concurrency=1)
    inside = counters.taken("shop", "7:long", 1, 300)
    run = carried("buy")
    assert (run.status, run.waiting_cause, run.lease_until) == ("waiting", "slot", None)
    assert told(run)["seconds"] > 0
    sentence = "Step 1 (Buy) is held back. shop takes 1 call at once: no slot was free, then held by run 7 (long)."
    assert waiting.answer(run).sentence.startswith(sentence)
    entry.leave(inside, ok=None, duration=0)
    queue = django_rq.get_queue()
    eventually(lambda: any(name.startswith(f"advance-{run.pk}-{run.last_seq}-") for name in queue.get_job_ids()))
    assert event_log.now() >= run.wake_at, "else the process that it calls finds that it is not due"
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert (run.status, run.steps.get().attempt) == ("succeeded", 1)


@pytest.mark.django_db(transaction=True)
def test_of_steps_side_by_side_one_that_is_held_back_is_taken_up_while_another_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_terms("shop", limit_requests=1, limit_period_seconds=1)
    set_terms("post", read_timeout_seconds=90, attempt_timeout_seconds=100)
    twice, called = threading.Event(), list[str]()

    def call(name: str) -> str:
        def answer() -> str:
            called.append(name)
            if called.count("shop") == 2:
                twice.set()
            if name == "post":
                assert twice.wait(80), "the second call of the shop did not come while this one lasted"
            return name

        return guard.call(name, answer)

    monkeypatch.setattr(shop, "call", call)
    run = carried("several")
    assert (run.status, sorted(called)) == ("succeeded", ["desk", "mail", "post", "shop", "shop"])
    assert "RunParked" not in [fact.kind for fact in event_log.facts(run.pk)]


@pytest.mark.django_db(transaction=True)
def test_of_steps_side_by_side_one_whose_wait_ends_before_it_is_written_has_not_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    following, called, again = OneStep.follow, list[str](), threading.Event()

    def slow(step: OneStep, answer: Any) -> Any:
        next_ = following(step, answer)
        if isinstance(next_, Open):
            time.sleep(0.05)
        return next_

    def call(name: str) -> str:
        called.append(name)
        if name == "post":
            assert again.wait(60), "the shop was not asked again while this one lasted"
        elif name == "shop" and called.count("shop") == 1:
            raise HeldBack("limit", "shop", 0.005, "shop has no room.")
        elif called.count("shop") == 3:
            again.set()
        return name

    monkeypatch.setattr(OneStep, "follow", slow)
    monkeypatch.setattr(shop, "call", call)
    run = carried("several")
    kinds = [fact.kind for fact in event_log.facts(run.pk)]
    assert (run.status, kinds.count("StepDeferred"), kinds.count("AttemptCrashed")) == ("succeeded", 1, 0)


def test_a_redis_that_hangs_holds_up_no_timer_and_those_without_a_thread_stand_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs, taken_up, queued = threading.Event(), list[int](), list[list[int]]()

    def enqueue_now(calls: list[dispatch.Call], *, first: bool) -> None:
        assert first
        queued.append([call.run_id for call in calls])
        assert hangs.wait(60)

    monkeypatch.setattr(dispatch, "enqueue_now", enqueue_now)
    timers = dispatch._Timers(lambda run_id: run_id > 10 and not taken_up.append(run_id))
    threading.Thread(target=timers.enqueue_for_ever, daemon=True).start()
    timers.call(dispatch.Call(1, 1))
    eventually(lambda: queued)
    for run_id in (2, 3, 11):
        timers.call(dispatch.Call(run_id, 1))
    assert taken_up == [11]
    hangs.set()
    eventually(lambda: len(queued) == 2)
    assert queued == [[1], [3, 2]], "each is put before the others: what came first is put last"


def test_who_waits_in_turn_is_reached_however_many_come_back_before(timers: None) -> None:
    queue, names = django_rq.get_queue(), list[str]()
    queue.empty()
    dispatch.enqueue_now([dispatch.Call(1, 1)])
    while len(names) < 3 * dispatch.MOST_AHEAD and "advance-1-1" not in names:
        back = dispatch.Call(100 + len(names), 1)
        dispatch._timers[0].call(back)  # one comes back for each that is taken
        eventually(lambda back=back: any(name.startswith(f"{back.name}-") for name in queue.get_job_ids()))
        job = queue.fetch_job(queue.pop_job_id())
        names.append(job.id.rpartition("-")[0])
        dispatch.taken(was_first=job.meta.get(dispatch.FIRST, False))
    assert names[0] == "advance-100-1", "they go first"
    assert "advance-1-1" in names, "but not for ever"
    assert [name for name in names if name != "advance-1-1"] == [f"advance-{100 + n}-1" for n in range(len(names) - 1)]


@pytest.mark.django_db
def test_the_sweeper_calls_at_its_time_only_for_who_has_not_been_taken_up() -> None:
    set_terms(enabled=False)
    begun, runs = clock.now(), [carried("buy") for _ in range(2)]
    Run.objects.update(wake_at=clock.now() + timedelta(seconds=0.1))
    Run.objects.filter(pk=runs[0].pk).update(lease_until=clock.now() + timedelta(seconds=60))
    sweeper.wake_on_time(0.2, since=begun)
    calls = [dispatch.Call(run.pk, run.last_seq) for run in runs]
    assert dispatch.missing(calls) == calls[:1], "the process that parked it has it in hand"


@pytest.mark.django_db(transaction=True)
def test_what_holds_steps_back_is_still_known_when_their_run_is_parked_anew_before_their_time() -> None:
    everywhere = {"shop", "post", "desk", "mail"}
    for name in everywhere:
        set_terms(name, enabled=False)
    run = again(carried("several"))
    assert run.waiting_cause == "switched_off"
    assert len([fact for fact in event_log.facts(run.pk) if fact.kind == "RunParked"]) == 2
    assert {(parked := told(run, "RunParked"))["dependency"], *parked["others"]} == everywhere
    assert parked["why"].endswith(" is switched off: an admin can switch it on again.")


@pytest.mark.django_db
def test_a_running_run_whose_worker_says_not_yet_for_a_moment_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def slept(seconds: float) -> None:
        said.extend(waiting.answer(run).sentence for run in Run.objects.filter(status="running"))

    def not_yet() -> str:
        if not said:
            raise TryLater(0.01, why="The file is not there.")
        return "there"

    monkeypatch.setattr("runs.steps.time", SimpleNamespace(sleep=slept, monotonic=time.monotonic))
    assert carried("buy", not_yet).status == "succeeded"
    assert said == ["Step 1 (Buy) is held back for a moment. The file is not there."]


@pytest.mark.django_db
def test_a_step_that_is_let_in_and_never_leaves_in_time_has_its_attempts_and_comes_to_a_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_terms(limit_requests=100, limit_period_seconds=1, retry_attempts=2, retry_first_wait_seconds=0.1)
    entering = entry.enter

    def enter(*arguments: Any, **more: Any) -> Any:
        return replace(cast("entry.Entered", entering(*arguments, **more)), asked_at=time.monotonic() - 9)

    monkeypatch.setattr(entry, "enter", enter)
    monkeypatch.setattr(entry, "restamped", lambda entered: None)
    run = carried("buy")
    while run.waiting_cause == "limit":
        run = again(run)
    said = [fact.kind for fact in event_log.facts(run.pk)]
    assert (run.waiting_cause, said.count("AttemptFailed"), said.count("StepDeferred")) == ("person", 2, 2 * (MOST_LATE - 1))
    error = told(run, "AttemptFailed")["error"]
    assert error["message"].startswith("shop was not called: a call that is let in must leave before its place is another's, and")
    with pytest.raises(TryLater, match="was not called") as raised:
        guard.call("shop", lambda: None)
    assert raised.value.seconds is None, "a message of the monitoring, too, has its attempts"
