"""Forms made from a schema: every kind of value goes in and comes out as it was, and complaints stand beside their field."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from django.template.loader import render_to_string
from pydantic import BaseModel, Field, TypeAdapter, create_model, field_validator, model_validator
from pytest_django import Settings

from runs.forms import SchemaForm, fields, model_form


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Card(BaseModel):
    number: str = Field(min_length=4)
    active: bool = True


class Tree(BaseModel):
    name: str
    branches: list["Tree"] = []


class Everything(BaseModel):
    """One field of each kind."""

    text: str
    letter: str = Field(max_length=4000, description="As it is sent.")
    maybe: str | None = None
    count: int
    ratio: float
    ratio_or_none: float | None = None
    ready: bool
    ready_or_none: bool | None = None
    colour: Literal["red", "green"]
    level: Literal[1, 2, None] = None
    size: Size = Size.SMALL
    price: Decimal = Decimal("1.50")
    day: date
    card: Card
    card_or_none: Card | None = None
    cards: list[Card]
    tags: list[str] = []
    scores: dict[str, float] = {}
    anything: Any = None
    pair: tuple[int, str] = (1, "a")
    either: int | list[int] = 0
    tree: Tree = Tree(name="root")


VALUE: dict[str, Any] = {
    "text": "one\ntwo",
    "letter": "\nDear “customer”, <b>ü</b>",
    "maybe": None,
    "count": -3,
    "ratio": 0.25,
    "ratio_or_none": None,
    "ready": False,
    "ready_or_none": None,
    "colour": "green",
    "level": 2,
    "size": "large",
    "price": "12.30",
    "day": "2026-01-31",
    "card": {"number": "1234", "active": False},
    "card_or_none": None,
    "cards": [{"number": "1111", "active": True}, {"number": "2222", "active": False}],
    "tags": ["", "b"],
    "scores": {"a": 0.5},
    "anything": {"deep": [1, None, "x"]},
    "pair": [7, "seven"],
    "either": [1, 2],
    "tree": {"name": "root", "branches": [{"name": "twig", "branches": []}]},
}


def posted(form: SchemaForm, **changed: Any) -> dict[str, Any]:
    """What a browser sends of the form as it is shown: ticked boxes only, CRLF in texts, and the hidden counts."""
    sent: dict[str, Any] = {}
    for bound in form:
        shown = bound.value()
        if shown is True:
            sent[bound.html_name] = "on"
        elif shown is not False and shown is not None:
            sent[bound.html_name] = str(shown).replace("\n", "\r\n")
    html = render_to_string("_schema_form.html", {"form": form})
    for line in html.splitlines():
        if 'type="hidden"' in line:
            name, count = line.split('name="')[1].split('"')[0], line.split('value="')[1].split('"')[0]
            sent[name] = count
    return {**sent, **{name.replace("__", "."): text for name, text in changed.items()}}


def again(model: type[BaseModel], value: Any, **changed: Any) -> SchemaForm:
    return model_form(model, posted(model_form(model, initial=value), **changed), initial=value)


def test_what_is_not_touched_comes_back_as_it_was() -> None:
    form = again(Everything, VALUE)
    assert form.is_valid(), form.errors
    assert form.value() == VALUE


@pytest.mark.parametrize(
    ("typed", "field", "becomes"),
    [
        ({"value__text": "three"}, "text", "three"),
        ({"value__maybe": "yes"}, "maybe", "yes"),
        ({"value__count": "12"}, "count", 12),
        ({"value__ratio": "1e3"}, "ratio", 1000),
        ({"value__ratio_or_none": "0.5"}, "ratio_or_none", 0.5),
        ({"value__ready": "on"}, "ready", True),
        ({"value__ready_or_none": "false"}, "ready_or_none", False),
        ({"value__colour": "red"}, "colour", "red"),
        ({"value__level": "1"}, "level", 1),
        ({"value__level": ""}, "level", None),
        ({"value__size": "small"}, "size", "small"),
        ({"value__price": "0.10"}, "price", "0.10"),
        ({"value__card__number": "4444"}, "card", {"number": "4444", "active": False}),
        (
            {"value__card_or_none__given": "on", "value__card_or_none__number": "5555"},
            "card_or_none",
            {"number": "5555", "active": True},
        ),
        ({"value__cards__0__remove": "on"}, "cards", VALUE["cards"][1:]),
        ({"value__cards__2__number": "3333"}, "cards", [*VALUE["cards"], {"number": "3333", "active": True}]),
        ({"value__tags__2": "c"}, "tags", ["", "b", "c"]),
        ({"value__scores": "{}"}, "scores", {}),
        ({"value__anything": "[1]"}, "anything", [1]),
        ({"value__either": "5"}, "either", 5),
    ],
)
def test_what_is_typed_becomes_the_value(typed: dict[str, str], field: str, becomes: Any) -> None:
    form = again(Everything, VALUE, **typed)
    assert form.is_valid(), form.errors
    assert form.value() == VALUE | {field: becomes}


@pytest.mark.parametrize(
    ("typed", "name", "complaint"),
    [
        ({"value__text": ""}, "value.text", "Fill this in."),
        ({"value__letter": "x" * 4001}, "value.letter", "At most 4,000 characters; this has 4,001."),
        ({"value__count": ""}, "value.count", "Fill this in."),
        ({"value__count": "many"}, "value.count", "Enter a whole number."),
        ({"value__count": "1.5"}, "value.count", "Enter a whole number."),
        ({"value__count": "9" * 5000}, "value.count", "Enter a number."),
        ({"value__ratio": "1,5"}, "value.ratio", "Enter a number."),
        ({"value__colour": "blue"}, "value.colour", "Choose one of the values."),
        ({"value__colour": ""}, "value.colour", "Fill this in."),
        ({"value__size": "huge"}, "value.size", "Choose one of the values."),
        ({"value__day": "yesterday"}, "value.day", "Input should be a valid date or datetime"),
        ({"value__card__number": "1"}, "value.card.number", "String should have at least 4 characters"),
        (
            {"value__cards__0__remove": "on", "value__cards__1__number": "1"},
            "value.cards.1.number",
            "String should have at least",
        ),
        ({"value__cards__2__number": "1"}, "value.cards.2.number", "String should have at least 4 characters"),
        ({"value__scores": "{"}, "value.scores", "This is not JSON"),
        ({"value__anything": "NaN"}, "value.anything", "This is not JSON: NaN is not a number"),
        ({"value__scores": '{"a": "b"}'}, "value.scores", "Enter a number."),
        ({"value__pair": "[1]"}, "value.pair", "Fill this in."),
    ],
)
def test_a_complaint_stands_beside_its_field_and_what_was_typed_is_kept(typed: dict[str, str], name: str, complaint: str) -> None:
    form = again(Everything, VALUE, **typed)
    assert not form.is_valid()
    assert list(form.errors) == [name]
    assert form.errors[name][0].startswith(complaint)
    html = render_to_string("_schema_form.html", {"form": form})
    assert f'id="id_{name}_error"' in html
    assert 'aria-invalid="true"' in html
    assert form[name].value() == typed[name.replace(".", "__")]


def test_numbers_that_no_database_keeps_are_refused() -> None:
    for typed in ({"value__ratio": "nan"}, {"value__ratio": "inf"}, {"value__text": "a\x00b"}, {"value__text": "\ud800"}):
        form = again(Everything, VALUE, **typed)
        assert not form.is_valid()
        assert form.errors


class Order(BaseModel):
    text: str
    number: int = 3
    parts: list[Card] = Field([], max_length=1)

    @field_validator("text")
    @classmethod
    def polite(cls, text: str) -> str:
        if "please" not in text:
            raise ValueError("Say please.")
        return text

    @model_validator(mode="after")
    def sensible(self) -> "Order":
        if self.number > 9:
            raise ValueError("Nine at most.")
        return self


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 4000}, "1 to 4,000 characters."),
        ({"type": "string", "maxLength": 80}, "At most 80 characters."),
        ({"type": "string", "maxLength": 1}, "At most 1 character."),
        ({"type": "string", "minLength": 2, "maxLength": 2}, "Exactly 2 characters."),
        ({"type": "string", "minLength": 3}, "At least 3 characters."),
        ({"type": "string", "minLength": 1}, ""),
        ({"type": "string"}, ""),
        ({"type": "number", "minimum": 0, "maximum": 100}, "0 to 100."),
        ({"type": "integer", "minimum": 0}, "At least 0."),
        ({"type": "boolean"}, ""),
    ],
)
def test_limits_are_said_beside_the_field(schema: dict[str, Any], said: str) -> None:
    assert fields.limits(schema) == said


def test_an_author_s_own_sentences_are_shown_as_they_are() -> None:
    form = again(Order, None, value__text="now")
    assert form.errors == {"value.text": ["Say please."]}
    form = again(Order, None, value__text="please", value__number="10")
    assert form.non_field_errors() == ["Nine at most."]


def test_a_complaint_about_a_list_names_the_list() -> None:
    form = again(Order, {"text": "please", "parts": [{"number": "1234"}]}, value__parts__1__number="5678")
    assert form.non_field_errors() == ["Parts: List should have at most 1 item after validation, not 2"]


def test_a_new_form_begins_with_the_defaults_and_empty_numbers_take_them() -> None:
    assert 'value="3"' in render_to_string("_schema_form.html", {"form": model_form(Order)})
    form = again(Order, None, value__text="please", value__number="")
    assert form.value() == {"text": "please", "number": 3, "parts": []}


def test_a_label_says_optional_only_where_nothing_need_be_typed() -> None:
    html = render_to_string("_schema_form.html", {"form": model_form(Order, initial={"text": "please"})})
    assert html.count("(optional)") == 2  # the number, and whether a card is active; not the number of a new card
    assert "Parts 1 (new)" in html
    assert html.count(" required") == 1


def test_asking_for_a_row_shows_one_more_and_complains_of_nothing() -> None:
    form = again(Order, None, value__text="", value__parts__0__number="12", more="value.parts")
    assert not form.is_valid()
    assert form.more
    assert not form.errors
    html = render_to_string("_schema_form.html", {"form": form})
    assert 'name="value.parts.1.number"' in html
    assert 'value="12"' in html


def test_a_long_list_is_edited_as_json() -> None:
    class Long(BaseModel):
        numbers: list[int]

    value = {"numbers": list(range(51))}
    form = again(Long, value)
    assert form.value() == value


Wide = create_model("Wide", **{f"field_{number}": (int, 0) for number in range(60)})
Nested = create_model("Nested", cards=(list[Card], []), tags=(list[str], []))
Lists = create_model("Lists", wide=(list[Wide], []), nested=(list[Nested], []), cards=(list[Card], []))  # type: ignore[valid-type]
WIDE = {f"field_{number}": number for number in range(60)}
CARD = {"number": "1234", "active": True}


@pytest.mark.parametrize(
    "value",
    [
        {"wide": [WIDE] * 15, "nested": [], "cards": [CARD] * 2},
        {"wide": [], "nested": [{"cards": [CARD] * 8, "tags": ["a", "b"]}] * 40, "cards": [CARD]},
        {"wide": [WIDE] * 8, "nested": [{"cards": [CARD] * 50, "tags": []}], "cards": [CARD]},
    ],
)
def test_a_form_never_has_more_fields_than_are_read(value: dict[str, Any], settings: Settings) -> None:
    sent = posted(model_form(Lists, initial=value), value__cards__0__number="5678")
    form = model_form(Lists, sent, initial=value)
    assert len(sent) < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 50
    assert form.is_valid(), form.errors
    assert form.value() == value | {"cards": [CARD | {"number": "5678"}, *value["cards"][1:]]}


def test_rows_are_added_as_long_as_they_will_be_read() -> None:
    sent = posted(model_form(Lists, initial={"wide": [WIDE] * 8, "cards": [CARD] * 20}), more="value.wide")
    last = model_form(Lists, sent | {"value.wide.rows": "12"})
    assert "value.wide.12.field_0" in last.fields
    html = render_to_string("_schema_form.html", {"form": last})
    assert html.count("No more rows fit") == 1
    assert 'name="more" value="value.cards"' in html, "there is room for a smaller one"
    assert "value.wide.13.field_0" not in model_form(Lists, sent | {"value.wide.rows": "13"}).fields


@pytest.mark.parametrize(
    ("kind", "value", "typed", "becomes"),
    [
        (str, "a", "b", "b"),
        (int, 1, "2", 2),
        (float | None, 0.5, "", None),
        (Literal["x", "y"], "x", "y", "y"),
        (dict, {}, '{"a": 1}', {"a": 1}),
    ],
)
def test_values_that_are_no_models_have_one_field(kind: Any, value: Any, typed: str, becomes: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    form = SchemaForm(adapter.json_schema(), {"value": typed}, check=adapter.validate_python, initial=value)
    assert form.is_valid(), form.errors
    assert form.value() == becomes


def test_a_list_of_plain_values_is_rows() -> None:
    adapter = TypeAdapter(list[int])
    sent = {"value.rows": "3", "value.kept": "2", "value.0": "1", "value.1": "2", "value.1.remove": "on", "value.2": "3"}
    form = SchemaForm(adapter.json_schema(), sent, check=adapter.validate_python, initial=[1, 2])
    assert form.value() == [1, 3]


def test_a_proposal_of_another_shape_does_not_break_the_form() -> None:
    for odd in (None, "text", 5, [1], {"text": 5, "parts": "no list", "number": {"a": 1}}):
        form = model_form(Order, initial=odd)
        assert "value.text" in render_to_string("_schema_form.html", {"form": form})


@pytest.mark.parametrize("count", ["", "x", "-1", "99999999999"])
def test_forged_counts_do_no_harm(count: str) -> None:
    form = model_form(Order, {"value.text": "please", "value.parts.rows": count, "value.parts.kept": count})
    assert len(form.fields) < 2000
    form.is_valid()
