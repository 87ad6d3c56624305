"""Reads inputs for runs from a CSV file: each row as a value, or as a sentence that says what is wrong with it."""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

CELL_LIMIT_LETTERS = 131_072  # Python's own; an input larger than that does not come out of a table
UNCLOSED = "unexpected end of data"  # the csv module's words for a quote that nothing closes


class BadFile(Exception):
    """The file cannot be read at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input: where it stands, its value, and what is wrong with it ("" when nothing is)."""

    where: str
    value: Any = None
    error: str = ""


def rows(file: Path, *, limit: int | None = None) -> Iterator[Row]:
    """Rows of a CSV file with a header, at most `limit`. Raises BadFile when it is missing, binary or has no good header."""
    # newline="": only the csv module knows which line ends are inside quotes. Its own limit would go on reading in the
    # middle of a quoted cell, and start runs on the pieces; ours is asked when the row is whole.
    csv.field_size_limit(sys.maxsize)
    lines = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    return islice(_rows(lines, _header(file, lines)), limit)


def sentence(error: Exception) -> str:
    """One line for what a person did wrong; pydantic's errors field by field."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'input'}: {one['msg']}" for one in error.errors(include_url=False))


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{file} is not text in UTF-8 (byte {error.start}); save it as CSV UTF-8.") from error


def _header(file: Path, lines: Any) -> list[str]:
    try:
        names = [name.strip() for name in next(lines, [])]
    except csv.Error as error:
        raise BadFile(f"{file} does not begin with a header: {_said(error)}. The first line must name the columns.") from error
    if not any(names):
        raise BadFile(f"{file} is empty: the first line must name the columns.")
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BadFile(f"{file} names the column {twice[0]!r} twice: rename or remove one of them.")
    return names


def _rows(lines: Any, names: list[str]) -> Iterator[Row]:
    while True:
        where = f"line {lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(where, error=f"not a row of CSV: {_said(error)}")
            continue
        if cells:
            yield _row(where, cells, names)


def _row(where: str, cells: list[str], names: list[str]) -> Row:
    if len(cells) != len(names):
        return Row(where, error=f"its number of cells is {len(cells)}, but of columns in the header {len(names)}")
    for name, cell in zip(names, cells, strict=True):
        if len(cell) > CELL_LIMIT_LETTERS:
            return Row(where, error=f"{name}: {len(cell):,} letters; a cell may have {CELL_LIMIT_LETTERS:,}")
    return Row(where, {name: cell for name, cell in zip(names, cells, strict=True) if cell})


def _said(error: csv.Error) -> str:
    return "a quote is opened here and never closed" if str(error) == UNCLOSED else str(error)
