"""How values of agents, workers and customers are shown: named by their schema, in its order, with nothing hidden in them."""

from typing import Literal

import pytest
from django.template import Context, Template
from pydantic import BaseModel, Field

from runs.templatetags import content


class Card(BaseModel):
    number: str
    is_active: bool = Field(title="Works")


class Case(BaseModel):
    """Its keys are neither in the order of the alphabet nor of their length."""

    why: str
    refund_limit_eur: float = Field(title="Refund limit (EUR)")
    about: Literal["card_problem", "top_up"]
    cards: list[Card]
    first: Card | None = None


SCHEMA = Case.model_json_schema()
CARDS = [{"number": "K-1", "is_active": True}, {"number": "K-2", "is_active": False}]
VALUE = {
    "about": "card_problem", "cards": CARDS, "first": CARDS[0], "refund_limit_eur": 25, "why": "It_is lost."
}  # fmt: skip


def shown(value, schema=None):
    page = Template('{% include "_content.html" %}').render(Context({"value": value, "schema": schema, "label": ""}))
    return " ".join(page.split())


def test_fields_have_the_titles_and_the_order_of_their_schema():
    names = [piece.name for piece in content.pieces(VALUE, SCHEMA)]
    assert names == ["Why", "Refund limit (EUR)", "About", "Cards", "First"]


def test_without_a_schema_keys_become_words_in_the_order_they_are_kept():
    names = [piece.name for piece in content.pieces({"refund_limit_eur": 1, "C-1042": 2, "why": 3})]
    assert names == ["Refund limit eur", "C-1042", "Why"]


def test_keys_that_are_data_stay_what_they_are():
    schema = {"type": "object", "additionalProperties": {"type": "number"}}
    assert [piece.name for piece in content.pieces({"anna_b": 1}, schema)] == ["anna_b"]


def test_one_of_a_few_values_is_a_name_of_code_and_a_text_is_not():
    texts = {piece.name: piece.text for piece in content.pieces(VALUE, SCHEMA)}
    assert (texts["About"], texts["Why"]) == ("card problem", "It_is lost.")


def test_alike_objects_are_a_table_and_a_small_object_is_a_list_in_the_list():
    by_name = {piece.name: piece for piece in content.pieces(VALUE, SCHEMA)}
    assert by_name["Cards"].table == content.Table(["Number", "Works"], [["K-1", "yes"], ["K-2", "no"]])
    assert [(inner.name, inner.text) for inner in by_name["First"].inner] == [("Number", "K-1"), ("Works", "yes")]
    assert '<dl><dt>Number</dt><dd><span class="text">K-1</span></dd>' in shown(VALUE, SCHEMA)


def test_a_deep_or_long_value_is_json():
    (deep,) = content.pieces({"a": {"b": {"c": {"d": {"e": 1}}}}})
    assert deep.inner[0].inner[0].inner[0].inner == ()
    assert "&quot;e&quot;: 1" in shown({"a": {"b": {"c": {"d": {"e": 1}}}}})
    (long,) = content.pieces({"a": {"b": "x" * 3_000}})
    assert long.inner == ()
    assert long.folded


@pytest.mark.parametrize(("value", "words"), [("", "empty"), (None, "none"), ([], "empty"), ({}, "empty")])
def test_nothing_is_said_to_be_nothing(value, words):
    assert f'<span class="nothing">&mdash; {words}</span>' in shown({"a": value})


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (False, "no"), (1.5, "1.5"), ("0", "0")])
def test_zero_and_no_are_something(value, text):
    assert f'<span class="text">{text}</span>' in shown({"a": value})


def test_a_schema_that_refers_to_itself_ends():
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert [piece.name for piece in content.pieces({"a_b": 1}, schema)] == ["A b"]


def test_the_line_of_a_closed_step_leaves_out_what_is_empty_or_long():
    assert content.brief(VALUE, SCHEMA) == "Why: It_is lost; Refund limit (EUR): 25; About: card problem"
    assert content.brief({"a": "", "b": None, "c": "One.\nTwo."}) == "C: One. Two"
    assert content.brief("Done.") == "Done"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a\u202eb", 'a<span class="odd" title="right-to-left override">U+202E</span>b'),
        ("a\u200bb", 'a<span class="odd" title="zero width space">U+200B</span>b'),
        ("<b>\u0007", '&lt;b&gt;<span class="odd" title="control character">U+0007</span>'),
        ("pass\u200dword", 'pass<span class="odd" title="zero width joiner">U+200D</span>word'),
        ("\u200d", '<span class="odd" title="zero width joiner">U+200D</span>'),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),  # a family is one emoji of several
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),  # Persian
        ("two\nlines\tand <i>", "two\nlines\tand &lt;i&gt;"),
    ],
)
def test_hidden_letters_are_shown_as_their_numbers(text, html):
    assert content.marked(text) == html


def test_in_an_attribute_they_are_spelled_out():
    assert content.spelled("a\u202eb\u200d") == "a[U+202E]b[U+200D]"


def test_they_are_marked_wherever_content_stands():
    odd = "x\u202ey"
    for value in (odd, {"a": odd}, {"a": [{"b": odd}, {"b": odd}]}, {"a": {"b": [odd]}}, {odd: {"b": {"c": {"d": {"e": odd}}}}}):
        assert "\u202e" not in shown(value)
        assert "U+202E" in shown(value)


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("refund_limit_eur", "Refund limit (EUR)"), ("cards.1.is_active", "Cards, 2, Works"), ("first.number", "First, Number"),
        ("about", "About"), ("api.key", "api.key"), ("", ""), ("cards.99999999999999999999.x", "Cards, 99999999999999999999, X"),
    ],
)  # fmt: skip
def test_a_field_within_others_is_called_by_all_of_them(path, called):
    assert content.label(path, SCHEMA) == called


@pytest.mark.parametrize(
    ("text", "path", "read"),
    [
        ("card_problem", "about", "card problem"), ("true", "cards.0.is_active", "yes"), ("false", "first.is_active", "no"),
        ("card_problem", "why", "card_problem"), ("true", "why", "true"), ("<b>", "why", "&lt;b&gt;"), ("K_1", "gone.x", "K_1"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_its_field_says(text, path, read):
    assert content.value_at(text, path, SCHEMA) == read
    assert content.value_at(text, path) == content.marked(text)
