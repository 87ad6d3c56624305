"""Makes a form from a JSON schema, so that a person can type any value that pydantic can check."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from django import forms
from django.forms.utils import ErrorDict
from pydantic import BaseModel, TypeAdapter, ValidationError

from runs.engine.canonical import Unstorable, stored
from runs.forms.complaints import plain
from runs.forms.fields import MISSING, Schema, Spot, Tick, field_for, sentence
from runs.forms.nodes import HIDDEN, Group, Leaf, Node, Place, Row, Rows, Typed, counts, leaves, lists

ROWS_SHOWN = 50  # a longer list is edited as JSON
FIELDS_SHOWN, FIELDS_MOST = 700, 900  # so is one that would need more, and no row is added: Django reads 1,000 of a form
ROWS_READ = 500


def model_form(model: type[BaseModel], data: Mapping[str, Any] | None = None, *, initial: Any = None) -> "SchemaForm":
    """A form whose valid `value()` fits the model. `initial` is a JSON value to begin with."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)

    def check(value: Any) -> Any:
        return adapter.dump_python(adapter.validate_python(value), mode="json", by_alias=True, round_trip=True)

    return SchemaForm(adapter.json_schema(), data, check=check, initial=initial)


class SchemaForm(forms.Form):
    """Show it with `{% include "_schema_form.html" %}`. A form that asks for `more` rows is shown again, unjudged.

    `check` takes the JSON value that was typed and returns it as it will be kept; pydantic's ValidationError from it is
    placed beside the fields it is about.
    """

    def __init__(
        self,
        schema: Schema,
        data: Mapping[str, Any] | None = None,
        *,
        check: Callable[[Any], Any],
        initial: Any = None,
        name: str = "value",
    ) -> None:
        super().__init__(data)
        self._check, self._definitions = check, schema.get("$defs", {})
        self._value: Any = None
        self._lists, self._growing = 0, list[tuple[Rows, Callable[[], Row]]]()
        self.more = str(self.data.get("more", ""))
        self.layout = self._node(schema, Spot(name, sentence(schema.get("title", name)), outermost=True), initial)
        self._grow()

    def value(self) -> Any:
        """The checked JSON value. Only after is_valid() said yes."""
        if not self.is_valid():
            raise ValueError("The form is not valid: there is no value.")
        return self._value

    def as_typed(self) -> dict[str, str]:
        """The initial value as somebody would send it, field by field."""
        fields = {name: "on" if isinstance(one, Tick) else one.initial for name, one in self.fields.items() if one.initial}
        return fields | {name: str(number) for name, number in counts(self.layout)}

    def is_valid(self) -> bool:
        return not self.more and super().is_valid()

    def full_clean(self) -> None:
        if self.more:
            self._errors, self.cleaned_data = ErrorDict(), {}
        else:
            super().full_clean()

    def clean(self) -> None:
        """Put the value together, have it checked, and put each complaint where it belongs."""
        typed = Typed(self.cleaned_data)
        value = self.layout.read(typed, ())
        if self.errors:
            return
        try:
            self._value = stored(self._check(None if value is MISSING else value))
        except ValidationError as error:
            for complaint in error.errors(include_url=False):
                self._complain(typed.places, complaint["loc"], plain(complaint))
        except Unstorable as error:
            self.add_error(None, str(error))

    def _complain(self, places: dict[Place, Node], place: Place, message: str) -> None:
        """Beside the deepest field that holds the place; above the form where that is a group or a list."""
        while place and place not in places:
            place = place[:-1]
        node = places[place]
        if isinstance(node, Leaf):
            self.add_error(node.name, message)
        else:
            self.add_error(None, f"{node.label}: {message}" if place else message)

    # --- from schema to nodes -------------------------------------------------------------------------------------

    def _node(self, schema: Schema, spot: Spot, value: Any) -> Node:
        schema, nullable, trail = self._resolved(schema, spot.trail, value)
        spot = replace(spot, trail=trail, nullable=nullable)
        if _is_group(schema):
            return self._group(schema, spot, value)
        if _is_list(schema) and self._rows_fit(spot, value):
            before = list(self.fields), self._lists, len(self._growing)
            rows = self._rows(schema, spot, value)
            if self._sent <= FIELDS_SHOWN or f"{spot.name}.rows" in self.data:
                return rows
            known, self._lists, growing = before
            self.fields = {one: self.fields[one] for one in known}
            del self._growing[growing:]
        return self._leaf(schema, spot, value)

    def _resolved(self, schema: Schema, trail: tuple[str, ...], value: Any) -> tuple[Schema, bool, tuple[str, ...]]:
        """Follow references and `X | None`. A reference to itself ends as {}, which is edited as JSON."""
        nullable = False
        while True:
            rest = {key: part for key, part in schema.items() if key not in ("$ref", "anyOf", "allOf")}
            options = schema.get("anyOf") or schema.get("allOf") or []
            others = [option for option in options if option.get("type") != "null"]
            nullable = nullable or len(others) < len(options)
            if "$ref" in schema:
                target = schema["$ref"].rpartition("/")[2]
                if target in trail:
                    return {}, nullable, trail
                schema, trail = self._definitions[target] | rest, (*trail, target)
            elif _is_decimal(others, value):
                schema = {"type": "string"} | rest
            elif len(others) == 1:
                schema = others[0] | rest
            else:
                return schema, nullable, trail

    def _leaf(self, schema: Schema, spot: Spot, value: Any) -> Leaf:
        made = field_for(schema, spot, value, typed=self.data.get(spot.name))
        self.fields[spot.name] = made
        is_textual, is_optional = not isinstance(made, Tick), spot.optional or spot.nullable
        return Leaf(spot.name, spot.label, self[spot.name], textual=is_textual, optional=is_optional)

    def _group(self, schema: Schema, spot: Spot, value: Any) -> Group:
        switch = None
        if spot.nullable:
            self.fields[f"{spot.name}.given"] = Tick(label=f"Give: {spot.label}", initial=value is not None)
            switch = self[f"{spot.name}.given"]
        known = value if isinstance(value, dict) else {}
        children = {}
        for key, part in schema["properties"].items():
            default = None if spot.in_row else part.get("default")
            optional = key not in schema.get("required", ())
            children[key] = self._node(part, spot.child(key, part, optional=optional), known.get(key, default))
        return Group(spot.name, spot.label, schema.get("description", ""), children, switch, outermost=spot.outermost)

    def _rows_fit(self, spot: Spot, value: Any) -> bool:
        """As rows, unless it is too long, or came back as JSON because it was; no list (None) is not an empty list."""
        if spot.nullable or spot.name in self.data:
            return False
        return value is None or (isinstance(value, list) and len(value) <= ROWS_SHOWN)

    def _rows(self, schema: Schema, spot: Spot, value: Any) -> Rows:
        values = value or []
        kept = _count(self.data.get(f"{spot.name}.kept"), len(values))
        shown = _count(self.data.get(f"{spot.name}.rows"), len(values) + 1)
        self._lists += 1
        rows = [self._row(schema, spot, at, values[at : at + 1], kept=at < kept) for at in range(shown)]
        made = Rows(spot.name, spot.label, schema.get("description", ""), rows, kept)
        if self.is_bound and (self.more == spot.name or not rows or rows[-1].is_filled()):
            self._growing.append((made, lambda: self._row(schema, spot, shown, [], kept=False)))
        return made

    def _row(self, schema: Schema, spot: Spot, at: int, values: list[Any], *, kept: bool) -> Row:
        remove = None
        if kept:
            self.fields[f"{spot.name}.{at}.remove"] = Tick(label=f"Remove {spot.label} {at + 1}")
            remove = self[f"{spot.name}.{at}.remove"]
        item = self._node(schema["items"], spot.item(at, kept=kept), values[0] if values else None)
        return Row(item, remove)

    @property
    def _sent(self) -> int:
        """How many fields whoever sends the form sends, those that are hidden among them."""
        return len(self.fields) + HIDDEN * self._lists

    def _grow(self) -> None:
        """Give each list the row that it wants, as far as the form has room."""
        for rows, one_more in self._growing:
            if self._sent + rows.each <= FIELDS_MOST:
                rows.rows.append(one_more())
            if self.more == rows.name:  # where whoever asked for the row goes on
                for leaf in islice(leaves(rows.rows[-1].item), 1):
                    leaf.bound.field.widget.attrs["autofocus"] = True
        for rows in lists(self.layout):
            rows.is_full = self._sent + rows.each > FIELDS_MOST


def _is_group(schema: Schema) -> bool:
    """An object of named fields and of no others; a free mapping is edited as JSON, so that nothing gets lost."""
    return bool(schema.get("properties")) and not schema.get("additionalProperties")


def _is_list(schema: Schema) -> bool:
    return schema.get("type") == "array" and "items" in schema and not schema.get("uniqueItems")


def _is_decimal(options: list[Schema], value: Any) -> bool:
    """pydantic describes a Decimal as a number or a text; its JSON value is a text of digits."""
    return [option.get("type") for option in options] == ["number", "string"] and not isinstance(value, int | float)


def _count(text: Any, otherwise: int) -> int:
    """A number of rows that the form carried; nonsense counts as nothing."""
    return min(int(text), ROWS_READ) if str(text).isdecimal() else otherwise
