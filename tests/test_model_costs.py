"""What a call of a model costs: as its provider says, as it was reserved, or nothing."""

import json
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pydantic import BaseModel, Field
from pytest_django import Settings

from agentops.outside import Outside
from agentops.outside.answer import Answer as Metered
from agentops.outside.model import _answer as metered
from reviews.models import Review
from runs.engine.errors import GiveUp, TryLater
from runs.integrations import llm, prices
from runs.models import Dependency, Reservation
from runs.reliability import terms
from runs.reliability.limiter import Limits
from runs.sdk import StepContext, executing
from tests import counters
from tests.spending import advanced, counted, started

in_one_transaction = pytest.mark.django_db


class Reply(BaseModel):
    text: str


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
    first_seen = {"created_at": timezone.now()}  # not by a page that was still answered when the test before had ended
    Dependency.objects.filter(name="model").update(**first_seen, **wanted)
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


MOST = (len("Be kind.hello" + json.dumps(Reply.model_json_schema())) // 3 + 1000, 1)
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


def test_what_is_sent_along_counts_before_the_call_in_every_script() -> None:
    assert llm.tokens_in("語" * 300, Reply) - llm.tokens_in("", Reply) == 300, "a letter may be a token"
    assert llm.tokens_in("", Reply) >= 20, "the schema of what is wanted"


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
