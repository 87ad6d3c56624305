"""Filters as the address of a list carries them: a shared link never breaks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, time, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.dateparse import parse_date

LONGEST = 500  # letters of what somebody types into a filter: ten tags of forty fit


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter that is on; `without` is the address' query without it."""

    name: str
    word: str
    without: str


@dataclass(frozen=True, slots=True)
class AddressFilters:
    """Each field of a subclass is text, empty where it does not matter. UNNAMED ones are shown by something else than a chip."""

    FITS: ClassVar[dict[str, Callable[[str], bool]]] = {}
    NOT_CARRIED: ClassVar[tuple[str, ...]] = ()
    UNNAMED: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read_from(cls, query: QueryDict) -> dict[str, Any]:
        """What is unknown, does not fit, or holds characters that no row can hold is dropped."""
        given = {name: query.get(name, "").replace("\x00", "").strip()[:LONGEST] for name in cls.names()}
        return {name: text for name, text in given.items() if text and cls.FITS.get(name, bool)(text)}

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name not in cls.NOT_CARRIED]

    @property
    def query(self) -> str:
        """For links and form actions: "cause=gated&text=card", or ""."""
        return urlencode(self.given())

    def given(self, *without: str) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.names() if getattr(self, name) and name not in without}

    def changed(self, **others: str) -> str:
        """The query with other values."""
        wanted = {name: others.get(name, getattr(self, name)) for name in self.names()}
        return urlencode({name: value for name, value in wanted.items() if value})

    def chips(self) -> list[Chip]:
        """Those that are on, as words."""
        chosen = self.given(*self.UNNAMED)
        return [Chip(name, self.word(name, value), self.changed(**{name: ""})) for name, value in chosen.items()]

    def word(self, name: str, value: str) -> str:
        """What this filter is called on the page."""
        raise NotImplementedError


def is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19  # larger than any id of the database


def day(text: str) -> datetime | None:
    """The beginning of a day such as 2026-11-23, of UTC; None where it is none."""
    try:
        parsed = parse_date(text)
    except ValueError:
        return None
    return datetime.combine(parsed, time(), UTC) if parsed and parsed.year < 9999 else None


def day_after(text: str) -> datetime | None:
    """Its end."""
    start = day(text)
    return start + timedelta(days=1) if start else None


def is_day(text: str) -> bool:
    return day(text) is not None
