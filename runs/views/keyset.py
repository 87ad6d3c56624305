"""Pages of a list that stay right and fast while rows arrive: each begins where the last one ended."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core import signing
from django.db.models import F, Model, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleLessThan
from django.http import Http404, QueryDict

SALT = "keyset"
Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """`newest` and `older` are links, "" where there is nothing to go to."""

    rows: list[Row]
    newest: str
    older: str


def page(rows: QuerySet[Row], fields: tuple[str, ...], query: QueryDict, *, size: int = 50) -> Page[Row]:
    """Newest first by the fields, which must not be null and end in the primary key; `query` holds filters and cursor.

    Raises Http404 for a cursor that this site did not make.
    """
    cursor = query.get("cursor", "")
    if cursor:
        rows = rows.filter(TupleLessThan(Tuple(*map(F, fields)), tuple(_values(rows.model, fields, cursor))))
    found = list(rows.order_by(*(f"-{name}" for name in fields))[: size + 1])
    older = _link(query, _cursor(found[size - 1], fields)) if len(found) > size else ""
    return Page(found[:size], _link(query, "") if cursor else "", older)


def _values(model: type[Model], fields: tuple[str, ...], cursor: str) -> list[Any]:
    try:
        values = signing.loads(cursor, salt=SALT)
    except signing.BadSignature as error:
        raise Http404("This page of the list no longer exists: go to its newest page.") from error
    columns = {column.name: column for column in model._meta.concrete_fields}
    return [columns[name].to_python(value) for name, value in zip(fields, values, strict=True)]


def _cursor(row: Model, fields: tuple[str, ...]) -> str:
    return signing.dumps([str(getattr(row, name)) for name in fields], salt=SALT)


def _link(query: QueryDict, cursor: str) -> str:
    wanted = query.copy()
    wanted.pop("cursor", None)
    if cursor:
        wanted["cursor"] = cursor
    return f"?{wanted.urlencode()}"
