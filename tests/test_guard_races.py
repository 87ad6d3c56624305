"""What guard promises where threads cannot be stopped, processes are, and PostgreSQL is slow: judged by the other side."""

import os
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from typing import Any

import httpx2
import pytest
from django.db import connection, transaction

from agentops.outside import Outside
from runs import commands
from runs.engine.errors import HeldBack, TryLater
from runs.models import BreakerChange, Dependency
from runs.reliability import breaker, entry, guard, renewer, slots, terms
from runs.sdk import StepContext, executing
from tests.actors import actor, heard, own_database
from tests.processes import eventually
from tests.shop import set_terms
from tests.test_outside import plan

PROCESSOR = "card-processor"


@pytest.fixture(autouse=True)
def called_before(outside: Outside, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that is older than a lease, and was never called, waits for one."""
    monkeypatch.setattr(renewer, "RENEW_SECONDS", 0.1)
    set_terms(PROCESSOR, concurrency=1)
    assert freeze(outside, "nobody's") == 200
    outside.visits.clear()


def freeze(outside: Outside, key: str, **more: Any) -> int:
    url = f"{outside.url}/v1/cards/K-10011/freeze"
    sent = {"json": {}, "headers": {"Idempotency-Key": key}, "verify": False, "trust_env": False, "timeout": 30}
    return guard.call(PROCESSOR, lambda: httpx2.post(url, **sent).status_code, **more)


def patience(seconds: float) -> None:
    """Guard's own last resort, which an admin could not set below the client's."""
    Dependency.objects.filter(name=PROCESSOR).update(attempt_timeout_seconds=seconds)
    terms.forget()


def most_at_once(outside: Outside) -> int:
    return int(outside.visits.told(path="/v1/", window=1)["most_at_once"])


@pytest.mark.django_db
def test_a_call_that_was_given_up_holds_its_slot_until_the_other_side_is_done_with_it(outside: Outside) -> None:
    patience(0.3)
    plan(outside, "hang", path="/v1/", seconds=4.0)
    with pytest.raises(TryLater, match=r"gave no answer within 0\.3 s"), executing(StepContext("7:freeze")):
        freeze(outside, "first")
    (holder,) = slots.holders(PROCESSOR)
    assert (holder.name, holder.given_up) == ("7:freeze", True)
    eventually(lambda: slots.holders(PROCESSOR)[0].until > holder.until)
    second = executing(StepContext("8:freeze"))
    with pytest.raises(HeldBack, match=r"held by run 7 \(freeze\), whose call was given up and has not ended yet"), second:
        freeze(outside, "second")
    eventually(lambda: not slots.holders(PROCESSOR))
    patience(30)
    with second:
        assert freeze(outside, "second") == 200
    assert (most_at_once(outside), slots.holders(PROCESSOR)) == (1, [])


@pytest.mark.django_db
def test_who_was_stopped_before_it_left_does_not_call_in_the_slot_of_another(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewer, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(renewer, "keep", lambda lease, is_over: None)  # as in a process that is stopped
    entering, others = entry.enter, list[Any]()

    def enter(name: str, key: str, ticket: str, **more: Any) -> Any:
        answer = entering(name, key, ticket, **more)
        eventually(lambda: others.append(entering(name, key, ticket, **more)) or isinstance(others[-1], entry.Entered))
        return answer

    monkeypatch.setattr(entry, "enter", enter)
    with pytest.raises(HeldBack, match="this job process, took too long"), executing(StepContext("7:freeze")):
        freeze(outside, "late")
    assert outside.visits.told(path="/v1/", window=1)["requests"] == 0
    assert [one.name for one in slots.holders(PROCESSOR)] == ["7:freeze"], "its successor's"


@pytest.mark.django_db(transaction=True)
def test_one_canary_calls_however_slow_postgresql_is(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes; the one that is let in waits for its budget's rows for longer than a canary's lease; reading goes on."""
    monkeypatch.setattr(renewer, "LEASE_SECONDS", 0.5)
    set_terms(PROCESSOR, concurrency=None, breaker_minimum_calls=1, breaker_failure_ratio=0.1, breaker_open_seconds=0.1)
    run_id = commands.start("buying", {"text": "buy"}, by="operator").pk
    plan(outside, "500", path="/v1/")
    with pytest.raises(TryLater):
        guard.call(PROCESSOR, lambda: httpx2.get(f"{outside.url}/v1/cards/K-10011").raise_for_status())
    plan(outside, "latency", path="/v1/", seconds=0.5)
    outside.visits.clear()
    opened = breaker.look(PROCESSOR)
    assert opened.next_try
    eventually(lambda: datetime.now(UTC) > opened.next_try)

    def carry(told: Connection) -> None:
        own_database()
        told.recv()
        step = StepContext(f"{run_id}:{os.getpid()}", run_id=run_id, agent="buying")
        status = None
        while status is None:
            try:
                with executing(step):
                    status = freeze(outside, step.key, most=guard.Spending(tokens=1))
            except HeldBack as held:
                told.send(held.cause)
                time.sleep(min(held.seconds or 0, 0.2))
        told.send(status)

    with actor(carry) as (_, one), actor(carry) as (_, other):
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE runs_budget, runs_breakerchange IN EXCLUSIVE MODE")
            for told in (one, other):
                told.send("go")
            begun, said = time.monotonic(), set()
            while "breaker" not in said or time.monotonic() - begun < 3 * renewer.LEASE_SECONDS:
                said |= {heard(told) for told in wait([one, other])}
            assert outside.visits.told(path="/v1/", window=1)["requests"] == 0
        for told in (one, other):
            while heard(told) != 200:
                pass
    assert (outside.visits.told(path="/v1/", window=1)["requests"], most_at_once(outside)) == (2, 1)
    assert sorted(change.new for change in BreakerChange.objects.all()) == ["closed", "half-open", "open"]
