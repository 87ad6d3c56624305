"""One form field per kind of JSON value."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms

Schema = dict[str, Any]
MISSING = object()  # left empty: the key is left out, and pydantic says whether that will do
LONG_TEXT = 200  # letters above which a text gets a text area
SHORT_TEXT = 80
YES_AND_NO = {"true": "Yes", "false": "No"}


@dataclass(frozen=True)
class Spot:
    """Where in the form a node stands, and what its surroundings say about it."""

    name: str
    label: str
    required: bool = True
    optional: bool = False  # for its label: a field of a new row is not required, but not optional either
    nullable: bool = False
    in_row: bool = False
    outermost: bool = False
    trail: tuple[str, ...] = ()

    def child(self, key: str, schema: Schema, *, optional: bool) -> "Spot":
        required = self.required and not self.nullable and not optional
        name, label = f"{self.name}.{key}", label_for(key, schema)
        return Spot(name, label, required, optional, in_row=self.in_row, trail=self.trail)

    def item(self, at: int, *, kept: bool) -> "Spot":
        label = f"{self.label} {at + 1}" if kept else f"{self.label} {at + 1} (new)"
        return Spot(f"{self.name}.{at}", label, kept, in_row=True, trail=self.trail)


class Line(forms.Field):
    """A line of text that `read` turns into a JSON value; what it cannot read goes to pydantic as it was typed."""

    def __init__(self, *, read: Callable[[str], Any], empty: Any = MISSING, **options: Any) -> None:
        super().__init__(required=False, **options)
        self.read, self.empty = read, empty

    def clean(self, value: Any) -> Any:
        text = "" if value is None else str(value).replace("\r\n", "\n")
        return self.read(text) if text else self.empty


class Tick(forms.BooleanField):
    """A checkbox."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, widget=forms.CheckboxInput({"class": "form-check-input"}), **options)


def field_for(schema: Schema, spot: Spot, value: Any, *, typed: Any) -> forms.Field:
    kind = schema.get("type")
    options = {"label": spot.label, "help_text": " ".join(filter(None, [schema.get("description", ""), limits(schema)]))}
    if "enum" in schema or "const" in schema:
        return _choice(schema.get("enum", [schema.get("const")]), spot, value, options)
    if kind == "boolean" and not (spot.nullable or spot.in_row):
        return Tick(initial=value is True, **options)
    if kind == "boolean":
        return _choice([True, False], spot, value, options)
    options["initial"] = _text(value)
    if kind in ("integer", "number"):
        attributes = _attributes(spot, inputmode="numeric" if kind == "integer" else "decimal")
        return Line(read=_number, empty=_empty(spot), widget=forms.TextInput(attributes), **options)
    if kind == "string":
        empty = "" if value == "" or not spot.required else MISSING
        widget = _text_widget(schema, spot, str(typed or options["initial"]))
        return Line(read=str, empty=None if spot.nullable else empty, widget=widget, **options)
    options["initial"] = "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
    options["help_text"] = f"{options['help_text']} Written as JSON.".strip()
    widget = forms.Textarea(_attributes(spot, rows=6, spellcheck="false"))
    return Line(read=_json, empty=_empty(spot), widget=widget, **options)


def _choice(values: list[Any], spot: Spot, value: Any, options: Schema) -> forms.Field:
    by_text = {_text(one): one for one in values if one is not None}
    nullable = spot.nullable or None in values
    choices = [(text, YES_AND_NO.get(text, text.replace("_", " "))) for text in by_text]
    if nullable or not spot.required or value not in values:
        choices = [("", "(none)" if nullable else "(choose)"), *choices]
    widget = forms.Select(_attributes(spot, kind="form-select"), choices=choices)
    empty = None if nullable else MISSING
    return Line(read=lambda text: by_text.get(text, text), empty=empty, widget=widget, initial=_text(value), **options)


def _text_widget(schema: Schema, spot: Spot, text: str) -> forms.Widget:
    limit = schema.get("maxLength")
    short = limit <= LONG_TEXT if limit else bool(text) or not spot.required
    if schema.get("format") == "date":
        return forms.TextInput(_attributes(spot, placeholder="2026-12-31"))
    if short and len(text) <= SHORT_TEXT and "\n" not in text:
        return forms.TextInput(_attributes(spot))
    rows = min(16, max(3 if limit else 2, sum(1 + len(line) // 90 for line in text.split("\n"))))
    return forms.Textarea(_attributes(spot, rows=rows))


def _attributes(spot: Spot, *, kind: str = "form-control", **attributes: Any) -> Schema:
    return {"class": kind, "autocomplete": "off", "required": spot.required and not spot.nullable} | attributes


def _empty(spot: Spot) -> Any:
    return None if spot.nullable else MISSING


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise forms.ValidationError(f"This is not JSON: {error}.") from error


def _no_json(word: str) -> None:
    """Python reads NaN and Infinity, which no other reader of JSON does."""
    raise ValueError(f"{word} is not a number")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def limits(schema: Schema) -> str:
    """What a text or a number may be, as a sentence: "1 to 4,000 characters."; "" where nothing is said."""
    if schema.get("type") == "string":
        least, most = schema.get("minLength"), schema.get("maxLength")
        return _range(least if most or least != 1 else None, most, unit=" characters")  # "not empty" goes without saying
    return _range(schema.get("minimum"), schema.get("maximum"), unit="")


def _range(least: float | None, most: float | None, *, unit: str) -> str:
    if unit and (most or least) == 1:
        unit = unit.removesuffix("s")
    if least is not None and most is not None:
        return f"{least:,} to {most:,}{unit}." if least != most else f"Exactly {least:,}{unit}."
    if least is not None:
        return f"At least {least:,}{unit}."
    return "" if most is None else f"At most {most:,}{unit}."


def label_for(key: str, schema: Schema) -> str:
    """The author's own title, or the field's name as words."""
    words = key.replace("_", " ")
    title = schema.get("title", "")
    return title if title and title.casefold() != words.casefold() else sentence(words)


def sentence(words: str) -> str:
    return words[:1].upper() + words[1:].replace("_", " ")
