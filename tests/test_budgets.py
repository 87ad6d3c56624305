"""Budgets: reserved before a call, counted after it; exhausted they ask one person once, and what is decided holds for all."""

import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.template.loader import render_to_string
from pydantic import BaseModel

from reviews.models import Review
from runs import budgets, cards, commands, event_log, executor
from runs.engine import budget
from runs.models import Budget, Reservation, Run
from runs.reliability import budget as reserved
from runs.reliability.budget import count_lost
from runs.sdk import Budget as Declared
from runs.sdk import Run as Handle
from runs.sdk import agent
from tests.agents import Answer, Order, consume
from tests.processes import eventually, process
from tests.spending import advanced, calls, counted, decided, started, today

FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "LOG_LEVEL": "WARNING"}
in_one_transaction = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """Which agents' seconds are limited is known for two seconds, which is longer than a test."""
    reserved.forget()
    yield
    reserved.forget()


# --- what is counted --------------------------------------------------------------------------------------------------


@in_one_transaction
def test_what_models_cost_is_counted_without_a_limit_too() -> None:
    run = advanced(started("line", 3))
    assert run.status == "succeeded"
    used = {"money": (Decimal("0.3"), 0), "tokens": (300, 0), "calls": (3, 0)}
    assert counted(f"run:{run.pk}") == used == counted(today())
    assert budgets.spent_by_run(run.pk) == ["0.30 USD", "300 tokens", "3 calls"]
    assert not Reservation.objects.exists()


@in_one_transaction
def test_children_spend_from_the_budgets_of_all_above_them() -> None:
    run = advanced(started("children", 3))
    for child in run.children.all():
        assert advanced(child).status == "succeeded"
        assert counted(f"run:{child.pk}")["calls"] == (1, 0)
    assert advanced(run).status == "succeeded"
    assert counted(f"run:{run.pk}")["calls"] == counted(today())["calls"] == (3, 0)


@in_one_transaction
def test_a_call_that_fails_without_saying_what_it_used_counts_as_reserved() -> None:
    """The worker's own note to a ledger that is no file fails within the call."""
    run = advanced(started("line", 1, "/nowhere/ledger"))
    assert run.waiting_cause == "person"
    assert counted(f"run:{run.pk}") == {"money": (Decimal("0.1"), 0), "tokens": (100, 0), "calls": (1, 0)}
    assert not Reservation.objects.exists()


class Wordy(BaseModel):
    text: str = "long " * 20_000


@agent("wordy", title="Wordy", version="1", config=Wordy, budget=Declared(calls=1))
def wordy(run: Handle[Wordy], order: Order) -> Answer:
    """Its configuration is too large for an event."""
    return Answer(said=run.step("first", consume, name="first") + run.step("second", consume, name="second"))


@in_one_transaction
def test_a_limit_holds_that_stands_beside_its_event() -> None:
    advanced(started("line", 1, agent="wordy"))
    assert Review.objects.open().get().proposal["limit"] == "1"


@committed
def test_rows_that_are_deleted_meanwhile_do_no_harm(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("hold", 1, ledger)
    carrier = threading.Thread(target=carried, args=(run.pk,))
    carrier.start()
    eventually(lambda: calls(ledger))
    Budget.objects.all().delete()
    other = advanced(started("line", 1))
    Path(f"{ledger}.open").touch()
    carrier.join(30)
    run.refresh_from_db()
    assert (run.status, other.status) == ("succeeded", "succeeded")
    assert counted(today())["calls"] == (2, 0)
    Reservation.objects.create(run_id=run.pk, fence=0, scopes=[today()], units=["calls"], amounts=[Decimal(5)])
    assert count_lost() == 1
    assert counted(today())["calls"] == (7, 0), "nobody knows what it has cost, so it was the most"


def carried(run_id: int) -> None:
    try:
        executor.advance(run_id, owner="another")
    finally:
        connections.close_all()


# --- exhausted: raise, finish, stop -----------------------------------------------------------------------------------


@in_one_transaction
def test_an_exhausted_budget_asks_before_the_call_and_goes_on_when_it_is_raised(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("line", 4, tmp_path / "ledger", run_calls=2))
    review = Review.objects.open().get()
    assert (run.waiting_cause, review.cause, review.allowed) == ("person", "budget", ["raise", "finish", "cancel"])
    assert review.why == f"The budget of run {run.pk} is 2 calls. Used or reserved: 2 calls. This call may need 1 call."
    assert run.steps.get(position=3).attempt == 0
    assert calls(tmp_path / "ledger") == 2
    (card,) = cards.cards(run, positions=[3])
    panel = render_to_string("runs/_step.html", {"card": card, "run": run})
    assert "Used or reserved" in panel
    assert "Double" not in panel
    with pytest.raises(commands.Refused, match="more than 2 calls"):
        decided("raise", value="2")
    decided("raise", value="4")
    assert advanced(run).status == "succeeded"
    assert calls(tmp_path / "ledger") == 4
    assert run.steps.get(position=3).attempt == 1
    assert budgets.spent_by_run(run.pk) == ["0.40 USD", "400 tokens", "4 of 4 calls"]


@in_one_transaction
@pytest.mark.parametrize(
    ("limit", "asked", "needs"), [({"run_tokens": 250}, "tokens", "100"), ({"run_money": "0.25"}, "money", "0.1")]
)
def test_money_and_tokens_are_reserved_at_what_the_call_may_need(
    people: dict[str, User], limit: dict[str, Any], asked: str, needs: str
) -> None:
    run = advanced(started("line", 3, **limit))
    question = Review.objects.open().get().proposal
    assert (question["unit"], question["needs"], run.step_count) == (asked, needs, 3)


@in_one_transaction
def test_a_run_may_finish_with_what_there_is(people: dict[str, User]) -> None:
    run = advanced(started("line", 4, agent="careful", run_calls=2))
    decided("finish", reason="Enough.")
    assert advanced(run).status == "partial"
    assert run.output == {"said": "0 1 and no more"}
    assert advanced(started("line", 2, agent="careful")).status == "succeeded"


@in_one_transaction
def test_who_does_not_expect_to_finish_early_fails_and_asks_again_when_it_is_retried(people: dict[str, User]) -> None:
    run = advanced(started("line", 3, run_calls=2))
    decided("finish")
    assert advanced(run).status == "failed"
    assert run.error["kind"] == "budget_exhausted"
    assert run.error["message"].startswith("reviewer had the run finish with what there is")
    commands.retry(run.pk, by="operator")
    advanced(run)
    decided("raise", value="3")
    assert advanced(run).status == "succeeded"


@in_one_transaction
def test_a_person_may_stop_the_run(people: dict[str, User]) -> None:
    run = advanced(started("line", 3, run_calls=2))
    decided("cancel", reason="Not worth it.")
    run.refresh_from_db()
    assert run.status == "cancelled"


@committed
def test_fifty_steps_side_by_side_overshoot_by_nothing_and_ask_one_question(people: dict[str, User], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = advanced(started("gather", 50, ledger, run_calls=20))
    assert calls(ledger) == 20
    assert (run.waiting_cause, Review.objects.open().count()) == ("person", 1)
    decided("raise", value="50")
    assert advanced(run).status == "succeeded"
    assert calls(ledger) == 50
    assert counted(f"run:{run.pk}")["calls"] == (50, 0)


@committed
def test_fifty_steps_side_by_side_all_hear_that_the_run_finishes(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("gather", 50, tmp_path / "ledger", run_tokens=2000))
    decided("finish")
    assert advanced(run).status == "failed"
    assert not Review.objects.open().exists()
    assert sum(step.status == "rejected" for step in run.steps.all()) == 30


# --- an agent's day ---------------------------------------------------------------------------------------------------


@in_one_transaction
def test_the_budget_of_a_day_is_one_question_for_all_and_raised_for_all(people: dict[str, User]) -> None:
    first, *others = [advanced(started("line", 1, day_calls=1)), advanced(started("line", 1)), advanced(started("line", 1))]
    assert first.status == "succeeded"
    asking, waiting = others
    assert (asking.waiting_cause, waiting.waiting_cause) == ("person", "budget")
    assert waiting.wake_at >= budget.day_end(event_log.now())
    review = Review.objects.open().get()
    assert review.run_id == asking.pk
    assert review.why == "Today's budget of consuming is 1 call. Used or reserved: 1 call. This call may need 1 call."
    assert budgets.wake() == 0
    decided("raise", value="3")
    assert advanced(asking).status == "succeeded"
    assert budgets.wake() == 1
    assert advanced(waiting).status == "succeeded"
    assert budgets.spent_today("consuming") == ["0.30 USD", "300 tokens", "3 of 3 calls"]


@in_one_transaction
@pytest.mark.parametrize("kind", ["finish", "cancel"])
def test_a_day_that_is_not_raised_asks_nobody_again_until_it_ends(people: dict[str, User], kind: str) -> None:
    advanced(started("line", 1, day_calls=1))
    asking, waiting = advanced(started("line", 2)), advanced(started("line", 1))
    decided(kind)
    asking.refresh_from_db()
    assert advanced(asking).status == {"finish": "failed", "cancel": "cancelled"}[kind]
    assert budgets.wake() == 0
    later = advanced(started("line", 1))
    assert (later.waiting_cause, Review.objects.open().count()) == ("budget", 0)
    commands.configure("consuming", by="admin", day_calls=10)
    assert budgets.wake() == 2
    assert [advanced(run).status for run in (waiting, later)] == ["succeeded", "succeeded"]


@in_one_transaction
def test_when_the_run_that_asked_is_cancelled_another_asks(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    advanced(started("line", 1, day_calls=1))
    asking, waiting, other = (advanced(started("line", 1)) for _ in range(3))
    commands.cancel(asking.pk, by="operator")
    assert budgets.wake() == 0, "who is to ask has a moment to do so"
    Budget.objects.update(asked_at=event_log.now() - timedelta(minutes=1))
    assert budgets.wake() == 1
    assert (advanced(waiting).waiting_cause, advanced(other).waiting_cause) == ("person", "budget")
    assert budgets.wake() == 0


@in_one_transaction
def test_the_next_day_has_a_budget_of_its_own(people: dict[str, User]) -> None:
    """What was counted today becomes what was counted yesterday."""
    advanced(started("line", 1, day_calls=1))
    asking, waiting = advanced(started("line", 1)), advanced(started("line", 1))
    now = event_log.now()
    Budget.objects.filter(scope=today()).update(scope=budget.day_scope("consuming", now - timedelta(days=1)))
    Run.objects.filter(pk=waiting.pk).update(wake_at=now)
    assert advanced(waiting).status == "succeeded"
    decided("raise", value="2")
    assert advanced(asking).status == "succeeded"


@in_one_transaction
def test_the_seconds_of_a_day_are_counted_where_they_are_limited_and_are_one_question_for_all(people: dict[str, User]) -> None:
    advanced(started("line", 1))
    assert "seconds" not in counted(today())
    asking = advanced(started("slow", 2, day_seconds=1))
    waiting = advanced(started("slow", 1))
    assert (asking.waiting_cause, waiting.waiting_cause) == ("person", "budget")
    assert counted(today())["seconds"][0] >= Decimal("1.1")
    review = Review.objects.open().get()
    assert (review.run_id, review.position) == (asking.pk, 2)
    assert review.why == "Today's budget of consuming is 1 s of work. Used or reserved: 1 s of work."
    assert budgets.spent_today("consuming")[-1] == "1 of 1 s of work"
    assert "seconds" not in counted(f"run:{asking.pk}")
    decided("raise", value="600")
    assert advanced(asking).status == "succeeded"
    assert event_log.RunLog.load(asking.pk).state.raised == {}, "it is the day's limit, not one of this run"
    assert budgets.wake() == 1
    assert advanced(waiting).status == "succeeded"
    assert counted(today())["seconds"][0] >= Decimal("3.3")
    assert not Reservation.objects.exists()


@in_one_transaction
def test_a_run_that_is_to_finish_without_more_seconds_begins_no_other_step(people: dict[str, User]) -> None:
    run = advanced(started("slow", 3, day_seconds=1))
    decided("finish")
    assert advanced(run).error["kind"] == "budget_exhausted"
    assert run.steps.filter(attempt__gt=0, status="succeeded").count() == 1
    commands.retry(run.pk, by="operator")
    commands.configure("consuming", by="admin", day_seconds=None)
    assert advanced(run).status == "succeeded"


# --- what the log of a run counts -------------------------------------------------------------------------------------


@in_one_transaction
def test_a_run_stops_at_its_most_steps_and_asks(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("line", 6, tmp_path / "ledger", run_steps=3))
    review = Review.objects.open().get()
    assert (review.cause, review.position, calls(tmp_path / "ledger")) == ("budget", 4, 3)
    assert review.why == "This run may do 3 steps, and has done 3 steps."
    decided("raise", value="5")
    assert advanced(run).step_count == 6
    decided("raise", value="6")
    assert advanced(run).status == "succeeded"


@committed
def test_steps_side_by_side_beyond_the_most_are_one_question(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("gather", 9, tmp_path / "ledger", run_steps=4))
    assert (calls(tmp_path / "ledger"), Review.objects.open().count(), run.step_count) == (4, 1, 5)
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())  # as if one of them had waited for a time as well
    assert (advanced(run).waiting_cause, Review.objects.open().count(), run.step_count) == ("person", 1, 5)
    decided("raise", value="9")
    assert advanced(run).status == "succeeded"


@in_one_transaction
def test_a_step_with_the_same_input_again_and_again_is_a_loop(people: dict[str, User]) -> None:
    run = advanced(started("loop", 40))
    review = Review.objects.open().get()
    assert (run.step_count, review.proposal["unit"], review.proposal["double"]) == (21, "repeats", "40")
    assert "20 times with the same input" in review.why
    decided("finish")
    assert advanced(run).error["kind"] == "budget_exhausted"


@in_one_transaction
def test_a_run_that_has_worked_for_its_seconds_asks_before_the_next_step(people: dict[str, User]) -> None:
    run = advanced(started("slow", 3, run_seconds=1))
    review = Review.objects.open().get()
    assert (run.step_count, review.proposal["unit"]) == (2, "seconds")
    assert re.fullmatch(r"This run may take 1 s, and has taken \d+ s: of work and of waits for no person\.", review.why)
    decided("raise", value="1000")
    assert advanced(run).status == "succeeded"


@in_one_transaction
def test_what_its_children_took_counts_for_their_parent_each_by_its_own_clock(people: dict[str, User]) -> None:
    child = advanced(started("slow", 1))
    parent, waits = started("line", 1), started("line", 2, run_calls=1)
    Run.objects.filter(pk=child.pk).update(parent=parent)
    Run.objects.filter(pk=waits.pk).update(parent=child)
    assert executor.advance(waits.pk, owner="test") is None
    logs = [event_log.RunLog.load(run.pk).state for run in (child, waits)]
    assert [state.status for state in logs] == ["succeeded", "waiting"], "one waits for a person, and its clock stands"
    time.sleep(0.2)
    took = [state.seconds(event_log.now()) for state in logs]
    assert took[0] >= 1.1
    assert reserved.seconds_below(parent.pk) == pytest.approx(sum(took), abs=0.1)


# --- processes --------------------------------------------------------------------------------------------------------


@committed
def test_what_a_killed_process_had_reserved_counts_in_full(people: dict[str, User], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("hold", 1, ledger, run_calls=2)
    with process("rqworker", "default", **FAST) as job:
        eventually(lambda: calls(ledger))
        assert counted(f"run:{run.pk}")["calls"] == (0, 1)
        assert count_lost() == 0, "it is alive"
        job.kill()
        job.wait()
    Path(f"{ledger}.open").touch()
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: Run.objects.filter(pk=run.pk, status="succeeded").exists())
    assert counted(f"run:{run.pk}")["calls"] == counted(today())["calls"] == (2, 0)
    assert calls(ledger) == 2


@committed
def test_two_processes_that_race_at_the_edge_do_not_overshoot(people: dict[str, User], tmp_path: Path) -> None:
    """Fifty children spend from their parent's budget, in two job processes of eight threads each."""
    ledger = tmp_path / "ledger"
    run = started("children", 50, ledger, run_calls=20)
    more = FAST | {"JOB_THREADS": "8"}
    with process("rqworker", "default", **more), process("rqworker", "default", **more), process("sweeper", **FAST):
        eventually(lambda: Run.objects.filter(parent=run, waiting_cause__in=["budget", "person"]).count() == 30)
        assert calls(ledger) == 20
        assert Review.objects.open().count() == 1
        decided("raise", value="100")
        eventually(lambda: Run.objects.filter(pk=run.pk, status="succeeded").exists())
    assert calls(ledger) == 50
    assert len({line.split()[-1] for line in ledger.read_text().splitlines()}) == 2
    assert counted(f"run:{run.pk}")["calls"] == (50, 0)
    assert not Reservation.objects.exists()
