"""Budgets: reserved before a call, counted after it; exhausted they ask one person once, and what is decided holds for all."""

import threading
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction
from django.test import Client
from pydantic import BaseModel, Field
from pytest_django import Settings

from agentops.outside import Outside
from agentops.outside.answer import Answer as Metered
from agentops.outside.model import _answer as metered
from reviews import decisions
from reviews.models import Review
from runs import audit, budgets, commands, event_log, executor
from runs.engine import budget
from runs.engine.errors import GiveUp, TryLater
from runs.integrations import llm, prices
from runs.models import AgentConfig, Budget, Dependency, Reservation, Run
from runs.reliability import terms
from runs.reliability.budget import give_back
from runs.reliability.limiter import Limits
from runs.sdk import BadDeclaration, StepContext, agent, executing
from runs.sdk import Budget as Declared
from runs.sdk import Run as Handle
from tests import counters
from tests.agents import Answer, Order, consume
from tests.processes import eventually, process

FAST = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1", "SWEEP_SECONDS": "0.2", "LOG_LEVEL": "WARNING"}
in_one_transaction = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


class Reply(BaseModel):
    text: str


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
    """The call that is under way then counts from nothing."""
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
    assert give_back() == 1
    assert counted(today())["calls"] == (2, 0)


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


# --- what the log of a run counts -------------------------------------------------------------------------------------


@in_one_transaction
def test_a_run_stops_at_its_most_steps_and_asks(people: dict[str, User], tmp_path: Path) -> None:
    run = advanced(started("line", 6, tmp_path / "ledger", run_steps=3))
    review = Review.objects.open().get()
    assert (review.cause, review.position, calls(tmp_path / "ledger")) == ("budget", 4, 3)
    assert review.why == "This run may do 3 steps by itself, and has done 3 steps."
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
    assert (run.step_count, Review.objects.open().get().proposal["unit"]) == (2, "seconds")
    decided("raise", value="1000")
    assert advanced(run).status == "succeeded"


# --- processes --------------------------------------------------------------------------------------------------------


@committed
def test_what_a_killed_process_had_reserved_is_given_back(people: dict[str, User], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = started("hold", 1, ledger, run_calls=1)
    with process("rqworker", "default", **FAST) as job:
        eventually(lambda: calls(ledger))
        assert counted(f"run:{run.pk}")["calls"] == (0, 1)
        assert give_back() == 0, "it is alive"
        job.kill()
        job.wait()
    Path(f"{ledger}.open").touch()
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: Run.objects.filter(pk=run.pk, status="succeeded").exists())
    assert counted(f"run:{run.pk}")["calls"] == counted(today())["calls"] == (1, 0)
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


# --- limits that an admin sets ----------------------------------------------------------------------------------------


@in_one_transaction
@pytest.mark.parametrize(
    ("field", "value"),
    [("run_money", "0"), ("run_money", "-2"), ("day_money", "1e99"), ("run_tokens", "0"), ("run_calls", "-1"), ("day_calls", "0"),
     ("run_steps", "0"), ("run_seconds", "-60"), ("run_repeats", "0"), ("day_tokens", "many")],
)  # fmt: skip
def test_a_limit_that_allows_nothing_is_refused_at_its_field(
    people: dict[str, User], client: Client, field: str, value: str
) -> None:
    config = commands.configuration("consuming")
    client.force_login(people["admin"])
    sent = {"enabled": "on", "threshold": "0.8", "attempts": "3", "values": "{}", "run_steps": "1000", "run_repeats": "20"}
    page = client.post(f"/admin/runs/agentconfig/{config.pk}/change/", sent | {field: value})
    assert page.status_code == 200
    assert set(page.context["adminform"].form.errors) == {field}
    config.refresh_from_db()
    assert config.version == 1


@in_one_transaction
def test_the_database_refuses_what_the_form_refuses(people: dict[str, User]) -> None:
    commands.configuration("consuming")
    with pytest.raises(ValidationError), transaction.atomic():
        commands.configure("consuming", by="admin", run_money=Decimal("-1"))
    for limit in ("run_money", "day_calls"):
        with pytest.raises(IntegrityError), transaction.atomic():
            AgentConfig.objects.update(**{limit: 0})


# --- pages ------------------------------------------------------------------------------------------------------------


@in_one_transaction
def test_pages_say_what_was_spent_and_a_person_raises_the_limit_in_a_form(people: dict[str, User], client: Client) -> None:
    client.force_login(people["operator"])
    run = advanced(started("line", 3, run_money="0.20", day_calls=50))
    page = client.get(run.get_absolute_url()).content.decode()
    assert "0.20 of 0.20 USD, 200 tokens, 2 calls" in page
    agent = client.get("/agents/consuming/").content.decode()
    assert "0.20 USD, 200 tokens, 2 of 50 calls" in agent
    review = Review.objects.open().get()
    shown = client.get(review.get_absolute_url()).content.decode()
    assert 'value="0.4"' in shown
    assert "New limit (USD)" in shown
    answer = {"decision": "raise", "seen": review.fingerprint}
    refused = client.post(f"/reviews/{review.pk}/decision/", answer | {"limit": "0.1"})
    assert refused.status_code == 422
    assert "The new limit must be more than 0.20 USD." in refused.content.decode()
    assert client.post(f"/reviews/{review.pk}/decision/", answer | {"limit": "0.30"}).status_code == 302
    assert "The new limit is 0.30 USD." in client.get(review.get_absolute_url()).content.decode()
    assert advanced(run).status == "succeeded"


@in_one_transaction
def test_a_run_that_is_held_back_says_so(people: dict[str, User], client: Client) -> None:
    client.force_login(people["operator"])
    for _ in range(3):
        run = advanced(started("line", 1, day_calls=1))
    page = client.get(run.get_absolute_url()).content.decode()
    assert "Today&#x27;s budget of consuming is 1 call" in page
    assert "It goes on when the limit is raised, and looks again" in page


# --- a model's own figures --------------------------------------------------------------------------------------------


@in_one_transaction
def test_what_the_provider_says_was_used_is_what_counts(model: Outside, settings: Settings) -> None:
    settings.MODEL_PRICES = "other=1/1, outside=1000/2000"
    run = started("line", 1)
    step = StepContext(f"{run.pk}:write", run_id=run.pk, position=1, agent="consuming")
    with executing(step):
        llm.write(Reply, instructions="Be kind.", prompt="hello")
    used = counted(f"run:{run.pk}")
    assert 1000 in model.seen[0]["body"].values(), "an answer cannot be longer than was reserved"
    tokens_in = len("Be kind.") // 4 + len("hello") // 4
    tokens_out = used["tokens"][0] - tokens_in
    assert tokens_out > 0
    assert used["money"] == ((tokens_in * 1000 + tokens_out * 2000) / Decimal(1_000_000), 0)
    assert not Reservation.objects.exists()


class Numbered(BaseModel):
    number: str = Field(pattern="^[0-9]+$")


def model_terms(**wanted: Any) -> None:
    terms.of("model")
    Dependency.objects.filter(name="model").update(**wanted)
    terms.forget()


@in_one_transaction
def test_a_call_without_budget_uses_nothing_of_the_limit(people: dict[str, User]) -> None:
    model_terms(limit_requests=100)
    advanced(started("line", 3, run_calls=1))
    assert Review.objects.open().get().cause == "budget"
    assert counters.used("model", Limits(requests=100)).requests == 1


def free_of_charge(*given: Any, **more: Any) -> Metered:
    """As a server does that counts nothing."""
    answer = metered(*given, **more)
    answer.body["usage"] = dict.fromkeys(answer.body["usage"], 0)
    return answer


MOST = (len("Be kind.hello") // 3 + 1000, 1)
USED: list[tuple[str, type[BaseModel], tuple[int | None, int]]] = [
    ("", Numbered, (None, 1)), ("hang", Reply, MOST), ("malformed", Reply, MOST), ("reset", Reply, MOST), ("free", Reply, MOST),
    ("503", Reply, (0, 0)), ("rejected_key", Reply, (0, 0)), ("away", Reply, (0, 0)),
]  # fmt: skip


@in_one_transaction
@pytest.mark.parametrize(("fault", "wanted", "tokens_and_calls"), USED, ids=[fault or "misfit" for fault, *_ in USED])
def test_a_call_that_fails_costs_what_was_said_or_all_unless_nobody_took_it(
    model: Outside, settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: str, wanted: type[BaseModel],
    tokens_and_calls: tuple[int | None, int],
) -> None:  # fmt: skip
    model_terms(read_timeout_seconds=0.5)
    if fault == "away":
        settings.AGENTOPS_MODEL_BASE_URL = "http://127.0.0.1:1/v1"
    elif fault == "free":
        monkeypatch.setattr("agentops.outside.model._answer", free_of_charge)
    elif fault:
        httpx2.post(f"{model.url}/faults", json={"kind": fault, "path": "/v1/"}).raise_for_status()
    run = started("line", 1)
    step = StepContext(f"{run.pk}:write", run_id=run.pk, position=1, agent="consuming")
    with executing(step), nullcontext() if fault == "free" else pytest.raises((GiveUp, TryLater)):
        llm.write(wanted, instructions="Be kind.", prompt="hello")
    used = counted(f"run:{run.pk}")
    tokens, calls = tokens_and_calls
    assert used["calls"] == (calls, 0)
    assert 0 < used["tokens"][0] < 1000 if tokens is None else used["tokens"] == (tokens, 0)


@pytest.mark.parametrize(
    ("named", "currency", "base_url", "cost"),
    [
        ("openai:gpt-4o", "USD", "", Decimal("0.0125")), ("openai-responses:gpt-4o", "USD", "", Decimal("0.0125")),
        ("openai:gpt-4o", "EUR", "", None), ("gpt-4o", "USD", "http://own/v1", None),
        ("openai:no-such-model", "USD", "", None), ("own", "EUR", "", Decimal("0.003")), ("free", "EUR", "", Decimal(0)),
    ],
)  # fmt: skip
def test_the_price_of_a_call(settings: Settings, named: str, currency: str, base_url: str, cost: Decimal | None) -> None:
    settings.CURRENCY, settings.AGENTOPS_MODEL_BASE_URL, settings.MODEL_PRICES = currency, base_url, "own=1/2,free=0/0"
    assert prices.cost(named, 1000, 1000) == cost


@pytest.mark.parametrize("text", ["gpt-5", "gpt-5=1", "gpt-5=1/x", "gpt-5=-1/2", "=1/2", "gpt-5=NaN/1"])
def test_prices_that_cannot_be_read_are_said(settings: Settings, text: str) -> None:
    settings.AGENTOPS_MODEL, settings.MODEL_PRICES = "openai:gpt-5", text
    assert "write model=in/out" in llm.complaint()
