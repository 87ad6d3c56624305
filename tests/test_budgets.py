"""Budgets: reserved before a call, counted after it; exhausted they ask one person once, and what is decided holds for all."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from reviews import decisions
from reviews.models import Review
from runs import audit, budgets, commands, event_log, executor
from runs.engine import budget
from runs.models import Budget, Reservation, Run
from runs.sdk import BadDeclaration
from runs.sdk import Budget as Declared

FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "LOG_LEVEL": "WARNING"}
in_one_transaction = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


def started(text: str, number: int, ledger: Path | str = "", *, agent: str = "consuming", **limits: Any) -> Run:
    if limits:
        commands.configure(agent, by="admin", **limits)
    return commands.start(agent, {"text": text, "number": number, "ledger": str(ledger)}, by="operator")


def advanced(run: Run) -> Run:
    """Carry the run, if need be after the time for which it is parked."""
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def decided(kind: str, review: Review | None = None, **more: Any) -> Review:
    asked = review or Review.objects.open().get()
    actor = User.objects.get(username="reviewer")
    decisions.decide(asked.pk, actor=actor, kind=kind, seen=asked.fingerprint, **more)
    return asked


def counted(scope: str) -> dict[str, tuple[Decimal, Decimal]]:
    return {row.unit: (row.used, row.reserved) for row in Budget.objects.filter(scope=scope)}


def calls(ledger: Path) -> int:
    return sum(line.startswith("call ") for line in ledger.read_text().splitlines()) if ledger.exists() else 0


def today(agent: str = "consuming") -> str:
    return budget.day_scope(agent, event_log.now())


# --- pure -------------------------------------------------------------------------------------------------------------

QUESTION = budget.question(
    "run:1", "money", limit=Decimal("2.00000000"), used=Decimal("1.95"), needs=Decimal("0.10"), currency="EUR"
)
TOKENS = budget.question("run:1", "tokens", limit=Decimal(500), used=Decimal(480), needs=Decimal(900), currency="EUR")


def test_a_day_is_one_of_utc_and_ends_at_midnight() -> None:
    late = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    assert budget.day_scope("desk", late) == "day:desk:2026-11-23"
    assert budget.day_scope("desk", late + timedelta(seconds=1)) == "day:desk:2026-11-24"
    assert budget.day_scope("desk", datetime.fromisoformat("2026-11-24T00:30:00+01:00")) == "day:desk:2026-11-23"
    assert budget.day_end(late) == datetime(2026, 11, 24, tzinfo=UTC)


def test_twice_the_limit_is_proposed_or_what_the_call_needs() -> None:
    assert QUESTION == {
        "scope": "run:1", "unit": "money", "currency": "EUR", "limit": "2", "used": "1.95", "needs": "0.1", "double": "4",
    }  # fmt: skip
    assert TOKENS["double"] == "1380"


@pytest.mark.parametrize(
    ("asked", "typed", "new"),
    [(QUESTION, "4", "4"), (QUESTION, " 2.50 ", "2.5"), (QUESTION, "2.000001", "2.000001"), (TOKENS, 501, "501"),
     (TOKENS, "1e4", "10000")],
)  # fmt: skip
def test_a_limit_is_raised_to(asked: budget.Question, typed: object, new: str) -> None:
    assert budget.raised(asked, typed) == new


@pytest.mark.parametrize(
    ("asked", "typed", "told"),
    [
        (QUESTION, "2", "more than 2.00 EUR"), (QUESTION, "-5", "more than 2.00 EUR"), (QUESTION, "0", "more than"),
        (QUESTION, "", "Enter a number"), (QUESTION, None, "Enter a number"), (QUESTION, "four", "Enter a number"),
        (QUESTION, "NaN", "more than"), (QUESTION, "Infinity", "more than"), (QUESTION, "1e15", "at most"),
        (QUESTION, "2.0000001", "Six decimal places"), (TOKENS, "500.5", "whole number"), (TOKENS, "1000000000001", "at most"),
    ],
)  # fmt: skip
def test_what_is_no_higher_limit_is_refused(asked: budget.Question, typed: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        budget.raised(asked, typed)


@pytest.mark.parametrize(
    ("unit", "number", "text"),
    [("money", "0.42", "0.42 EUR"), ("money", "1234.5", "1,234.50 EUR"), ("money", "0.0021", "0.0021 EUR"),
     ("money", "0", "0.00 EUR"), ("tokens", "12300", "12,300 tokens"), ("calls", "1", "1 call"), ("calls", "7", "7 calls"),
     ("seconds", "1", "1 s of work")],
)  # fmt: skip
def test_amounts_are_said(unit: str, number: str, text: str) -> None:
    assert budget.shown(unit, Decimal(number), "EUR") == text


@pytest.mark.parametrize(
    "limits", [{"money": "0"}, {"money": "-1"}, {"money": "much"}, {"money": 0.5}, {"money": "NaN"}, {"tokens": 0}, {"calls": -3},
               {"calls": 2.5}, {"calls": True}, {"seconds": 0}],
)  # fmt: skip
def test_a_declared_budget_must_allow_something(limits: dict[str, Any]) -> None:
    with pytest.raises(BadDeclaration, match=f"{next(iter(limits))}="):
        Declared(**limits)


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
def test_a_call_that_fails_gives_back_what_it_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own note to a ledger that is no file fails within the call."""
    run = advanced(started("line", 1, "/nowhere/ledger"))
    assert run.waiting_cause == "person"
    assert counted(f"run:{run.pk}") == {"money": (0, 0), "tokens": (0, 0), "calls": (0, 0)}
    assert not Reservation.objects.exists()


# --- exhausted: raise, finish, stop -----------------------------------------------------------------------------------


@in_one_transaction
def test_an_exhausted_budget_asks_before_the_call_and_goes_on_when_it_is_raised(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("line", 4, tmp_path / "ledger", run_calls=2))
    review = Review.objects.open().get()
    assert (run.waiting_cause, review.cause, review.allowed) == ("person", "budget", ["raise", "finish", "cancel"])
    assert review.why == f"The budget of run {run.pk} is 2 calls; 2 calls are used or reserved, and this call may need 1 call."
    assert run.steps.get(position=3).attempt == 0
    assert calls(tmp_path / "ledger") == 2
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
