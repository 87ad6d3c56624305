"""Changes what an admin wants of a policy, once it is checked against the code: fields that are there, values of their type."""

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ValidationError

from runs import operations, sdk
from runs.engine import policy as terms
from runs.engine.condition import NUMBER, Unclear, holds
from runs.engine.policy import Cause, Default, Subject, When
from runs.models import Policy, versions

ORDERING = (">", ">=", "<", "<=")
TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def configure(pk: int | None = None, *, by: str, **changes: Any) -> Policy:
    """Make a policy, or change one and raise its version; runs that have started keep what they started with.

    What changes nothing makes no version. Raises Policy.DoesNotExist, and django's ValidationError, which names the field.
    """
    return versions.configure(Policy, pk, by=by, changes=changes, check=check)


def check(row: Policy) -> None:
    """Make the row whole, and its value of the type of its field.

    Raises ValidationError for what could not be carried out, with all that is wrong.
    """
    if row.agent not in sdk.AGENTS:
        raise ValidationError({"agent": "There is no such agent."})
    if row.worker and row.worker not in sdk.WORKERS:
        raise ValidationError({"worker": f"The code has no worker {row.worker}."})
    if row.when != When.CONDITION:
        row.path, row.operator, row.value = "", "", None
    wrong: dict[str, Any] = {}
    for one in (_check_condition, _check_risk, _check_time, _check_default):
        try:
            one(row)
        except ValidationError as error:
            wrong = error.update_error_dict(wrong)
    if wrong:
        raise ValidationError(wrong)


def workers(row: Policy) -> list[sdk.Worker[..., Any]]:
    """Those that it is about."""
    return [sdk.WORKERS[row.worker]] if row.worker else operations.workers_of(sdk.AGENTS[row.agent])


def _check_risk(row: Policy) -> None:
    """Of a policy of the whole agent it counts for those workers of which the code says nothing."""
    if row.worker and row.risk in ("low", "normal") and sdk.risk(sdk.WORKERS[row.worker]) == "high":
        told = f"The code says that {sdk.WORKERS[row.worker].title} is of high risk, and a policy may not lower that."
        raise ValidationError({"risk": f"{told} Choose high, or leave it to the step."})


def _check_time(row: Policy) -> None:
    if row.default != Default.EXPIRE and row.within_seconds is None:
        raise ValidationError({"within_seconds": "Say how long a person may take, or let it expire."})


def _check_default(row: Policy) -> None:
    if row.default == Default.EXPIRE:
        return
    for worker in workers(row):
        if row.default == Default.SKIP and sdk.skip_of(worker) is None:
            told = f"{worker.title} cannot be skipped: its fallback is no skip(...) in the code."
            raise ValidationError({"default": f"{told} Let it expire{'' if row.worker else ', or name a worker'}."})
        if row.default == Default.APPROVE:
            _check_approval(row, worker)


def _check_approval(row: Policy, worker: sdk.Worker[..., Any]) -> None:
    if sdk.effects(worker) != {"none"}:
        told = f"{worker.title} changes something outside, so the clock may not approve it. Let it expire."
        raise ValidationError({"default": told})
    if not terms.may_approve(Cause.GATED, "none", "high" if sdk.risk(worker) == "high" else row.risk):
        raise ValidationError({"default": "What is of high risk may not be approved by the clock. Let it expire."})


# --- conditions ---------------------------------------------------------------------------------------------------


def _check_condition(row: Policy) -> None:
    if row.when != When.CONDITION:
        return
    if not row.operator:
        raise ValidationError({"operator": "Say how the field is compared."})
    found: list[dict[str, Any]] = []
    for worker in workers(row):
        found += (schemas := list(_schemas(row, worker)))
        if not schemas:
            what = f"The {'input' if row.subject == Subject.INPUT else 'result'} of {worker.title} has no {row.path}."
            hint = _known(row, worker) if row.worker else " Each of its steps would go to a person: name a worker."
            raise ValidationError({"path": what + hint})
    if row.operator == "is empty":
        row.value = None
        return
    types = {str(schema.get("type", "")) for schema in found}
    row.value = _typed(row.value, types)
    if row.operator in ORDERING:
        _check_order(row)


def _check_order(row: Policy) -> None:
    """A value that is not even in an order with itself is in none."""
    try:
        holds(row.value, "", row.operator, row.value)
    except Unclear:
        told = "Enter a number, or a date such as 2026-11-23: only these are more or less than others."
        raise ValidationError({"value": told}) from None


def _typed(value: Any, types: set[str]) -> Any:
    """What was typed, as the type of the field, or of the items of a list; where nobody knows it, as it looks."""
    if not isinstance(value, str):
        if value is None:
            raise ValidationError({"value": "Say with what it is compared."})
        return value
    text, known = value.strip(), types and "" not in types
    if NUMBER.fullmatch(text) and (not known or types & {"number", "integer"}):
        return float(text) if "." in text else int(text)
    if text.lower() in TRUTHS and (not known or "boolean" in types):
        return TRUTHS[text.lower()]
    if known and not types & {"string", "null", "object", "array"}:
        raise ValidationError({"value": f"Enter {' or '.join(sorted(A[one] for one in types if one in A))}."})
    if not text:
        raise ValidationError({"value": "Say with what it is compared."})
    return text


A = {"number": "a number", "integer": "a whole number", "boolean": "yes or no"}


def _schemas(row: Policy, worker: sdk.Worker[..., Any]) -> Iterator[dict[str, Any]]:
    """What the code says of the field: one schema for each type that it may be of."""
    whole = _whole(row, worker)
    for schema in _within([whole], row.path.split(".") if row.path else [], whole.get("$defs", {})):
        yield schema.get("items", {}) if row.operator == "contains" and schema.get("type") == "array" else schema


def _whole(row: Policy, worker: sdk.Worker[..., Any]) -> dict[str, Any]:
    return worker.input_model.model_json_schema() if row.subject == Subject.INPUT else worker.output.json_schema()


def _within(schemas: list[dict[str, Any]], path: list[str], known: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas at the path: an empty one where anything may stand there, none where nothing can."""
    plain = [one for schema in schemas for one in _plain(schema, known)]
    if not path:
        return plain
    inner = [found for schema in plain if (found := _part(schema, path[0])) is not None]
    return _within(inner, path[1:], known) if inner else []


def _part(schema: dict[str, Any], name: str) -> dict[str, Any] | None:
    if not schema:
        return {}
    if schema.get("type") == "array":
        return dict(schema.get("items", {})) if name.isdecimal() else None
    if name in schema.get("properties", {}):
        return dict(schema["properties"][name])
    more = schema.get("additionalProperties", False) if schema.get("type") == "object" else False
    return (more if isinstance(more, dict) else {}) if more else None


def _plain(schema: dict[str, Any], known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Without references and alternatives."""
    if "$ref" in schema:
        yield from _plain(known.get(schema["$ref"].rpartition("/")[2], {}), known)
    elif "anyOf" in schema or "oneOf" in schema or "allOf" in schema:
        for one in schema.get("anyOf") or schema.get("oneOf") or schema["allOf"]:
            yield from _plain(one, known)
    else:
        yield schema


def _known(row: Policy, worker: sdk.Worker[..., Any]) -> str:
    """What may be named instead."""
    whole = _whole(row, worker)
    names = [name for schema in _plain(whole, whole.get("$defs", {})) for name in schema.get("properties", {})]
    return f" It has: {', '.join(names)}." if names else " Leave it empty for the whole of it."
