"""Reads inputs for runs from a CSV file: each row as a value, or as a sentence that says what is wrong with it."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError


class BadFile(Exception):
    """The file cannot be read at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input: where it stands, its value, and what is wrong with it ("" when nothing is)."""

    where: str
    value: Any = None
    error: str = ""


def rows(file: Path, *, limit: int | None = None) -> Iterator[Row]:
    """Rows of a CSV file with a header, at most `limit`. Raises BadFile when it is missing, binary or has no header."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{file} is not text in UTF-8 (byte {error.start}); save it as CSV UTF-8.") from error
    lines = csv.reader(text.splitlines(keepends=True), strict=True)
    names = [name.strip() for name in next(lines, [])]
    if not any(names):
        raise BadFile(f"{file} is empty: the first line must name the columns.")
    return islice(_rows(lines, names), limit)


def sentence(error: Exception) -> str:
    """One line for what a person did wrong; pydantic's errors field by field."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'input'}: {one['msg']}" for one in error.errors(include_url=False))


def _rows(lines: Any, names: list[str]) -> Iterator[Row]:
    while True:
        where = f"line {lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(where, error=f"not a row of CSV: {error}")
            continue
        if cells:
            yield _row(where, cells, names)


def _row(where: str, cells: list[str], names: list[str]) -> Row:
    if len(cells) != len(names):
        return Row(where, error=f"{len(cells)} cells, but the header names {len(names)} columns")
    return Row(where, {name: cell for name, cell in zip(names, cells, strict=True) if cell})
