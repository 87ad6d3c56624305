"""The JSON schema of what agents and workers take and give, where the code still has them: it names the fields of a value."""

from decimal import Decimal
from functools import cache
from typing import Any

from django import template
from pydantic import BaseModel, TypeAdapter

from runs import sdk
from runs.engine import budget
from runs.engine.policy import Cause
from runs.forms.fields import Schema
from runs.models import Step

register = template.Library()


@register.filter
def input_schema(step: Step) -> Schema:
    worker = sdk.find_worker(step.worker)
    return _of_model(worker.input_model) if worker else {}


@register.filter
def output_schema(step: Step) -> Schema:
    worker = sdk.find_worker(step.worker)
    return _of_type(worker.output) if worker else {}


@register.filter
def proposed(step: Step) -> Any:
    """What a person is asked about; of a budget in words, which its raw JSON names as the engine does."""
    asked = step.proposal
    return budget_in_words(asked) if step.cause == Cause.BUDGET and isinstance(asked, dict) and "unit" in asked else asked


def budget_in_words(asked: budget.Question) -> dict[str, str]:
    numbers = {"Limit": "limit", "Used or reserved": "used", "Needed next": "needs"}
    told = {word: budget.shown(asked["unit"], Decimal(asked[name]), asked["currency"]) for word, name in numbers.items()}
    return {"Budget of": _whose(asked["scope"])} | told


def _whose(scope: str) -> str:
    if scope.startswith(budget.DAY):
        return f"all runs of {budget.agent_of(scope)} on {scope.rpartition(':')[2]}"
    return f"run {scope.removeprefix(budget.RUN)}" if scope.startswith(budget.RUN) else "this run"


@register.filter
def proposal_schema(step: Step) -> Schema:
    """A gate asks about the input, everything else about the output."""
    if step.cause == Cause.BUDGET:
        return {}
    return input_schema(step) if step.cause == Cause.GATED else output_schema(step)


@register.filter
def agent_input_schema(slug: str) -> Schema:
    return _of_model(sdk.AGENTS[slug].input_model) if slug in sdk.AGENTS else {}


@register.filter
def agent_output_schema(slug: str) -> Schema:
    return _of_model(sdk.AGENTS[slug].output_model) if slug in sdk.AGENTS else {}


@register.filter
def config_schema(slug: str) -> Schema:
    return _of_model(sdk.AGENTS[slug].config_model) if slug in sdk.AGENTS else {}


@cache
def _of_model(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


@cache
def _of_type(adapter: TypeAdapter[Any]) -> Schema:
    return adapter.json_schema()
