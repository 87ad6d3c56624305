"""Limits of budgets: what is proposed and refused, what an admin sets, and what pages say of them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.test import Client

from reviews.models import Review
from runs import commands, waiting
from runs.engine import budget
from runs.engine.errors import HeldBack
from runs.engine.events import Fact, Kind
from runs.engine.state import fold
from runs.models import AgentConfig
from runs.sdk import BadDeclaration
from runs.sdk import Budget as Declared
from tests.agents import FAILURES
from tests.spending import advanced, started

in_one_transaction = pytest.mark.django_db


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
     (TOKENS, "1e4", "10000"), (QUESTION | {"used": "2.5"}, "2.51", "2.51")],
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
        (QUESTION | {"used": "2.5"}, "2.49", "Used or reserved already: 2.50 EUR. Give more than that."),
        (QUESTION | {"used": "2.5"}, "2.5", "Used or reserved already: 2.50 EUR. Give more than that."),
        (TOKENS | {"used": "36000"}, "1000", "Used or reserved already: 36,000 tokens. Give more than that."),
    ],
)  # fmt: skip
def test_what_is_no_higher_limit_is_refused(asked: budget.Question, typed: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        budget.raised(asked, typed)


@pytest.mark.parametrize("used", ["20", "25", "25.5", "40"])
def test_what_is_suggested_may_be_given(used: str) -> None:
    asked = budget.question("day:probe", "seconds", limit=Decimal(20), used=Decimal(used), needs=Decimal(0), currency="EUR")
    assert Decimal(budget.raised(asked, asked["double"])) > Decimal(used)


@pytest.mark.parametrize(
    ("unit", "number", "text"),
    [("money", "0.42", "0.42 EUR"), ("money", "1234.5", "1,234.50 EUR"), ("money", "0.0021", "0.0021 EUR"),
     ("money", "0", "0.00 EUR"), ("tokens", "12300", "12,300 tokens"), ("calls", "1", "1 call"), ("calls", "7", "7 calls"),
     ("seconds", "1", "1 s")],
)  # fmt: skip
def test_amounts_are_said(unit: str, number: str, text: str) -> None:
    assert budget.shown(unit, Decimal(number), "EUR") == text


def parked(cause: str) -> tuple[str, dict[str, Any]]:
    return Kind.RUN_PARKED, {"cause": cause, "steps": [1]}


TAKEN: tuple[str, dict[str, Any]] = (Kind.RUN_RESUMED, {"fence": 1})
CLOCKS: list[tuple[list[tuple[str, dict[str, Any]]], int]] = [  # one event every second after the first start; it is asked at 9
    ([], 9),
    ([parked("timer"), TAKEN, parked("retry"), TAKEN, parked("limit")], 9),
    ([parked("children"), TAKEN], 8),
    ([parked("budget"), (Kind.RUN_WOKEN, {}), TAKEN, parked("reviews")], 2),
    ([(Kind.RUN_RELEASED, {}), TAKEN, (Kind.RUN_FAILED, {})], 3),
    ([(Kind.RUN_FAILED, {}), (Kind.RUN_RETRIED, {}), TAKEN], 7),
    ([parked("person")], 9),  # somebody had decided meanwhile, so it goes on
]


@pytest.mark.parametrize(("happened", "seconds"), CLOCKS)
def test_the_clock_of_a_run_stands_while_it_waits_for_people_for_its_children_or_has_ended(
    happened: list[tuple[str, dict[str, Any]]], seconds: int
) -> None:
    first = datetime(2026, 11, 23, tzinfo=UTC)
    facts = [
        Fact(number, kind, data, None, "", first + timedelta(seconds=number), "", "")
        for number, (kind, data) in enumerate([(Kind.RUN_STARTED, {"fence": 1}), *happened])
    ]
    assert fold(facts).seconds(first + timedelta(seconds=9)) == seconds
    assert fold([]).seconds(first) == 0, "it has not begun"


@pytest.mark.parametrize(
    "limits", [{"money": "0"}, {"money": "-1"}, {"money": "much"}, {"money": 0.5}, {"money": "NaN"}, {"tokens": 0}, {"calls": -3},
               {"calls": 2.5}, {"calls": True}, {"seconds": 0}],
)  # fmt: skip
def test_a_declared_budget_must_allow_something(limits: dict[str, Any]) -> None:
    with pytest.raises(BadDeclaration, match=f"{next(iter(limits))}="):
        Declared(**limits)


# --- limits that an admin sets ----------------------------------------------------------------------------------------


@in_one_transaction
@pytest.mark.parametrize(
    ("field", "value"),
    [("run_money", "0"), ("run_money", "-2"), ("day_money", "1e99"), ("run_tokens", "0"), ("run_calls", "-1"), ("day_calls", "0"),
     ("day_seconds", "0"), ("run_steps", "0"), ("run_seconds", "-60"), ("run_repeats", "0"), ("day_tokens", "many")],
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


@in_one_transaction
def test_a_budget_that_cannot_be_asked_is_no_limit_that_somebody_could_raise() -> None:
    why = "Budgets are kept in PostgreSQL, which did not answer: no model is called until it does."
    FAILURES["away"] = [HeldBack("budget", "model", 5.0, why)]
    run = advanced(commands.start("stumbling", {"text": "away"}, by="operator"))
    said = waiting.answer(run).sentence
    assert run.waiting_cause == "budget"
    assert said.startswith(f"Step 1 (Stumble) is held back. {why} It tries again at ")
    assert "raised" not in said
