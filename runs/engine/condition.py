"""A condition on the input or the result of a step: whether it holds, or why nobody can say."""

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any

from .canonical import clean, dumps
from .masking import MASK

SHOWN_LETTERS = 60  # of a value in a sentence
NUMBER = re.compile(r"-?\d{1,30}(\.\d{1,30})?")


class Unclear(Exception):
    """The condition cannot be evaluated; the message continues "it could not be evaluated:"."""


def holds(value: Any, path: str, operator: str, wanted: Any) -> bool:
    """Whether what stands at the path (names and places in lists, with dots; "" is the value itself) fits. Raises Unclear."""
    if operator not in OPERATORS:
        raise Unclear(f"nobody knows the operator {shown(operator)}")
    found = at(value, path)
    if found == MASK:
        raise Unclear(f"{path} is masked")
    return OPERATORS[operator](found, wanted)


def at(value: Any, path: str) -> Any:
    """What stands there. Raises Unclear where nothing does."""
    for part in path.split(".") if path else ():
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10 and (place := int(part)) < len(value):
            value = value[place]
        else:
            raise Unclear(f"there is no {path}")
    return value


def shown(value: Any) -> str:
    """A value in a sentence: as JSON, on one line, shortened."""
    return clean(dumps(value), SHOWN_LETTERS)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, wanted: Any) -> bool:
        one, other = _comparable(found, wanted)
        try:
            return compare(one, other)
        except TypeError as error:  # a time with a zone and one without
            raise _unlike(found, wanted) from error

    return holds


def _comparable(found: Any, wanted: Any) -> tuple[Any, Any]:
    """Numbers (amounts are recorded as text), or times."""
    for read in (_number, _time):
        one, other = read(found), read(wanted)
        if one is not None and other is not None:
            return one, other
    raise _unlike(found, wanted)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = Decimal(str(value))
        return number if number.is_finite() else None
    return Decimal(value) if isinstance(value, str) and NUMBER.fullmatch(value) else None


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return found == wanted
    one, other = _number(found), _number(wanted)
    if one is not None and other is not None:
        return one == other
    if found is not None and wanted is not None and type(found) is not type(wanted):
        raise _unlike(found, wanted)
    return bool(found == wanted)


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return wanted.casefold() in found.casefold()
    if isinstance(found, list):
        return any(type(one) is type(wanted) and one == wanted for one in found)
    raise Unclear(f"{shown(found)} is neither text nor a list that could contain {shown(wanted)}")


def _is_empty(found: Any, wanted: Any) -> bool:
    return found is None or found in ([], {}) or (isinstance(found, str) and not found.strip())


def _unlike(found: Any, wanted: Any) -> Unclear:
    return Unclear(f"{shown(found)} cannot be compared with {shown(wanted)}")


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": _ordered(gt),
    ">=": _ordered(ge),
    "<": _ordered(lt),
    "<=": _ordered(le),
    "=": _equal,
    "!=": lambda found, wanted: not _equal(found, wanted),
    "contains": _contains,
    "is empty": _is_empty,
}
