"""How what agents, workers and customers wrote looks on a page: named by its schema, folded when long, nothing hidden in it."""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import Truncator

from runs import describe
from runs.engine.canonical import Large
from runs.engine.outcome import how_crashed
from runs.forms.fields import Schema, label_for
from runs.models.content import Hidden, are_hidden

register = template.Library()

FOLD_LETTERS = 700  # longer text is folded, with its length named
BRIEF_LETTERS = 300
WHY_LETTERS = 140  # of an error, in the row of its run
MOST_COLUMNS, MOST_ROWS, CELL_LETTERS = 8, 200, 80  # of a list shown as a table
MOST_BULLETS = 10  # a longer list of numbers is shown in one line
MOST_LEVELS, LIST_LETTERS = 3, 2_000  # of a value shown as lists in lists; a deeper or longer one is shown as JSON
MOST_LETTERS = 50_000  # more than this would make the page itself unreadable; the raw event has it all
MOST_REFERENCES = 20  # followed in a schema, which may refer to itself
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")
WORD = re.compile(r"\S+")
LONGEST_PLACE = 10  # digits of a place in a list


@dataclass(frozen=True, slots=True)
class Table:
    """A list of alike flat objects: easier to read than JSON."""

    names: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Piece:
    """One value as plain text. `raw` is JSON, shown in a fixed-width font; `nothing` stands for an empty one."""

    name: str
    text: str
    raw: bool = False
    nothing: bool = False

    table: Table | None = None
    inner: "tuple[Piece, ...]" = ()  # the fields of a small object, or the nameless items of a small list
    outline: str = ""  # what is in it, for when it is folded
    large: Large | None = None  # it is not shown: it stands beside the log

    @property
    def folded(self) -> bool:
        return len(self.text) > FOLD_LETTERS

    @property
    def start(self) -> str:
        return self.text[: FOLD_LETTERS // 2]

    @property
    def shown(self) -> str:
        return self.text[:MOST_LETTERS]

    @property
    def cut(self) -> bool:
        return len(self.text) > MOST_LETTERS


@register.simple_tag
def pieces(value: Any, schema: Schema | None = None) -> list[Piece]:
    """An object as its named fields, anything else as one nameless piece."""
    return Reader(schema or {}).pieces(value, schema or {})


@register.filter
def brief(value: Any, schema: Schema | None = None) -> str:
    """A value in one line, for a step that is not opened."""
    told = [piece for piece in pieces(value, schema) if not (piece.raw or piece.nothing)]
    texts = ((piece.name, " ".join(piece.text.split()).rstrip(".")) for piece in told)
    return "; ".join(f"{name}: {text}" if name else text for name, text in texts)[:BRIEF_LETTERS]


@register.filter
def as_json(value: Any) -> Piece:
    """The value as indented JSON, as it is kept."""
    text = _json(value)
    return Piece("", text, raw=True, outline=f"JSON of {len(text):,} letters")


@register.filter
def label(path: str, schema: Schema | None = None) -> str:
    """A field's title where its schema gives one, else its name as words; a key that names no field is data, and stays.

    A field within others is named by its path, and called by all of them: "cards.0.is_active" is "Cards, 1, Works".
    """
    return ", ".join(name for name, _ in Reader(schema or {}).path(path, schema or {}))


@register.simple_tag
def value_at(text: str, path: str, schema: Schema | None = None) -> SafeString:
    """What stands in that field, untrusted, as people read it there: a name of code as words, and yes or no."""
    *_, (_, field) = Reader(schema or {}).path(path, schema or {})
    if field.get("type") == "boolean":
        return marked({"true": "yes", "false": "no"}.get(text, text))
    return marked(WORD.sub(lambda word: words(word[0]), text) if _names_code(field) else text)


def _names_code(field: Schema) -> bool:
    return any("enum" in one or "const" in one for one in (field, field.get("items", {})))


@register.filter
def words(value: str) -> str:
    """A name that code gave ("card_problem") as words."""
    return value.replace("_", " ") if FIELD_NAME.fullmatch(value) else value


# --- what a schema says of a value ------------------------------------------------------------------------------------


class Reader:
    """Reads values with what their schema says: titles, the order of fields, which texts are names of code."""

    def __init__(self, schema: Schema) -> None:
        self.definitions: Schema = schema.get("$defs", {})

    def pieces(self, value: Any, schema: Schema, level: int = 0) -> list[Piece]:
        schema = self.resolved(schema)
        if isinstance(value, dict) and value:
            return [self.piece(name, inner, part, level) for name, inner, part in self.fields(value, schema)]
        return [self.piece("", value, schema, level)]

    def piece(self, name: str, value: Any, schema: Schema, level: int = 0) -> Piece:
        if value is None or value == "" or value == [] or value == {}:
            return Piece(name, "none" if value is None else "empty", nothing=True)
        if isinstance(value, Hidden):
            return Piece(name, "hidden", nothing=True)
        if isinstance(value, Large):
            return Piece(name, _size(value.bytes), large=value)
        if not isinstance(value, dict | list):
            return Piece(name, self.text(value, schema))
        if isinstance(value, list) and len(value) > MOST_BULLETS and all(type(item) in (int, float) for item in value):
            return Piece(name, ", ".join(map(str, value)))
        text, table = _json(value), self.table(value, schema)
        small = not table and level < MOST_LEVELS and len(text) <= LIST_LETTERS
        inner = self.inner(value, schema, level + 1) if small else ()
        return Piece(name, text, raw=True, table=table, inner=inner, outline=self.outline(value, schema))

    def inner(self, value: Any, schema: Schema, level: int) -> tuple[Piece, ...]:
        if isinstance(value, dict):
            return tuple(self.pieces(value, schema, level))
        return tuple(self.piece("", item, self.resolved(schema.get("items", {})), level) for item in value)

    def text(self, value: Any, schema: Schema) -> str:
        """One that stands alone; what the schema allows only as one of a few values is a name of code."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str):
            return words(value) if "enum" in schema or "const" in schema else value
        return "" if value is None else _json(value)

    def fields(self, value: dict[str, Any], schema: Schema) -> Iterator[tuple[str, Any, Schema]]:
        """In the order of the schema; PostgreSQL keeps keys by their length."""
        known = schema.get("properties", {})
        for key in [*(key for key in known if key in value), *(key for key in value if key not in known)]:
            yield self.label(key, schema), value[key], self.resolved(known.get(key, {}))

    def label(self, key: str, schema: Schema) -> str:
        known = schema.get("properties", {})
        is_data = key not in known and (bool(schema.get("additionalProperties")) or not FIELD_NAME.fullmatch(key))
        return key if is_data else label_for(key, known.get(key, {}))

    def path(self, path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
        """The fields on the way, each by what it is called, with what is known of it; places in lists count from 1."""
        within, keys = self.resolved(schema), path.split(".")
        known = within.get("properties", {})
        for key in keys if path not in known and (keys[0] in known or "items" in within) else [path]:
            if "items" in within and key.isdecimal() and len(key) < LONGEST_PLACE:
                yield str(int(key) + 1), (within := self.resolved(within["items"]))
            elif key:
                yield self.label(key, within), (within := self.resolved(within.get("properties", {}).get(key, {})))
            else:
                yield "", within

    def outline(self, value: Any, schema: Schema) -> str:
        if isinstance(value, list):
            return f"{len(value):,} {'entry' if len(value) == 1 else 'entries'}"
        names = ", ".join(name for name, _, _ in self.fields(value, schema))
        return f"{len(value)} {'field' if len(value) == 1 else 'fields'}: {names}"[:BRIEF_LETTERS]

    def table(self, value: Any, schema: Schema) -> Table | None:
        if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
            return None
        alike = all(row.keys() == value[0].keys() for row in value) and 0 < len(value[0]) <= MOST_COLUMNS
        if not alike or len(value) > MOST_ROWS or not all(_fits(cell) for row in value for cell in row.values()):
            return None
        item = self.resolved(schema.get("items", {}))
        rows = [[self.text(cell, part) for _, cell, part in self.fields(row, item)] for row in value]
        return Table([name for name, _, _ in self.fields(value[0], item)], rows)

    def resolved(self, schema: Schema) -> Schema:
        """Follow references and `X | None`; of several other possibilities nothing is known."""
        for _ in range(MOST_REFERENCES):
            options = [one for one in schema.get("anyOf") or schema.get("allOf") or [] if one.get("type") != "null"]
            own = {key: part for key, part in schema.items() if key not in ("$ref", "anyOf", "allOf")}
            if "$ref" in schema:
                schema = self.definitions.get(schema["$ref"].rpartition("/")[2], {}) | own
            elif len(options) == 1:
                schema = options[0] | own
            else:
                return schema
        return {}


def _size(of_bytes: int) -> str:
    return f"{of_bytes / 1_000_000:.1f} MB" if of_bytes >= 1_000_000 else f"{of_bytes / 1000:.0f} kB"


def _fits(cell: Any) -> bool:
    return not isinstance(cell, dict | list) and len(str(cell)) <= CELL_LETTERS


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


# --- letters that hide, or turn round what stands beside them -----------------------------------------------------------

HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
JOINERS = "\u200c\u200d"  # they belong into emoji, and into words of scripts that come after the Hebrew in Unicode
FIRST_JOINED = "\u0590"


LOOKALIKES = "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅαορντυκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
AMONG_LATIN = re.compile(f"(?<=[A-Za-z])[{LOOKALIKES}]|[{LOOKALIKES}](?=[A-Za-z])")
ODD = re.compile(f"{HIDDEN.pattern}|{AMONG_LATIN.pattern}")


@register.filter
def marked(text: Any) -> SafeString:
    """Untrusted text, escaped, with the number of each letter that could make it read as another: hidden, or foreign."""
    text, parts, end = str(text), [], 0
    for found in ODD.finditer(text):
        if _joins(text, found.start()):
            continue
        name = unicodedata.name(found[0], "control character").lower()
        parts.append(escape(text[end : found.start()]))
        parts.append(format_html('<span class="odd" title="{}">{}</span>', name, _number(found[0])))
        end = found.end()
    return mark_safe("".join([*parts, escape(text[end:])]))  # noqa: S308 - every part of it is escaped


@register.filter
def spelled(text: Any) -> str:
    """The same for an attribute, where no element can stand."""
    text = str(text)
    return ODD.sub(lambda found: found[0] if _joins(text, found.start()) else f"[{_number(found[0])}]", text)


def _joins(text: str, at: int) -> bool:
    before = text[at - 1 : at]
    return text[at] in JOINERS and before >= FIRST_JOINED and not HIDDEN.match(before)


def _number(letter: str) -> str:
    return f"U+{ord(letter):04X}"


# --- errors -----------------------------------------------------------------------------------------------------------

register.filter("said", describe.said)
register.filter("how_crashed", how_crashed)


@register.filter
def is_foreign(error: dict[str, Any]) -> bool:
    """Whether the kind of an error is the name of a class that neither the engine nor the sdk knows: for an engineer."""
    return error["kind"] not in describe.KINDS_OF_ERROR


@register.filter
def why_failed(error: dict[str, Any]) -> str:
    """For the row of a run: the first words, and before them the kind where these are hidden, or of a class of its own."""
    words = Truncator(" ".join(describe.said(error["message"]).split())).chars(WHY_LETTERS)
    kind = str(error.get("kind", "")).replace("_", " ")
    return f"{kind}: {words}" if kind and (is_foreign(error) or are_hidden()) else words
