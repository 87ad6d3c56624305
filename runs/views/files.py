"""Rows as files: piece by piece, so that memory does not grow with their number."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.db.models import QuerySet
from django.http import Http404, StreamingHttpResponse
from django.utils import timezone

from runs.models.content import are_hidden, hidden

PIECE = 500  # rows read and sent at a time
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # text that begins so is carried out by a spreadsheet
Columns = Mapping[str, Callable[[Any], Any]]


def as_file(form: str, name: str, rows: "QuerySet[Any]", columns: Columns) -> StreamingHttpResponse:
    """Every row, the newest first, in a file such as "reviews-2026-11-23.csv". Raises Http404 for an unknown form."""
    if form not in FORMS:
        raise Http404(f"There is no export as {form}: choose csv or json.")
    kind, written = FORMS[form]
    answer = StreamingHttpResponse(sent(written(_pieces(rows), columns)), content_type=kind)
    answer["Content-Disposition"] = f'attachment; filename="{name}-{timezone.now():%Y-%m-%d}.{form}"'
    return answer


def sent(pieces: Iterator[str]) -> AsyncIterator[str]:
    """For an answer in pieces: Django would first collect an iterator that is not asynchronous."""
    return _sent(pieces, hide=are_hidden())  # they are read when the request has been answered


async def _sent(pieces: Iterator[str], *, hide: bool) -> AsyncIterator[str]:
    while (piece := await sync_to_async(_next)(pieces, hide=hide)) is not None:
        yield piece


def _next(pieces: Iterator[str], *, hide: bool) -> str | None:
    """Until the next one is asked for, others may have the connection: a download can be slow."""
    try:
        with hidden(hide):
            return next(pieces, None)
    finally:
        if not connection.in_atomic_block:
            connection.close()


def _pieces(rows: "QuerySet[Any]") -> Iterator[list[Any]]:
    """Each is a question of its own: no cursor and no transaction stays open."""
    rows = rows.order_by("-pk")
    piece = list(rows[:PIECE])
    while piece:
        yield piece
        piece = list(rows.filter(pk__lt=piece[-1].pk)[:PIECE])


def _csv(pieces: Iterator[list[Any]], columns: Columns) -> Iterator[str]:
    """With a mark at the beginning, by which spreadsheets know that it is UTF-8."""
    yield "\ufeff" + _lines([list(columns)])
    for piece in pieces:
        yield _lines([[_cell(value(row)) for value in columns.values()] for row in piece])


def _lines(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """As text; an apostrophe before what a spreadsheet would take for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _json(pieces: Iterator[list[Any]], columns: Columns) -> Iterator[str]:
    """One list; a line for each row."""
    before = "[\n"
    for piece in pieces:
        records = [{name: value(row) for name, value in columns.items()} for row in piece]
        yield before + ",\n".join(json.dumps(record, ensure_ascii=False, cls=DjangoJSONEncoder) for record in records)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


Written = Callable[[Iterator[list[Any]], Columns], Iterator[str]]
FORMS: dict[str, tuple[str, Written]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "json": ("application/json", _json),
}
