"""Names what a step does, from the template of its worker and its input: the sentence that a person reads before they approve.

What the input says is untrusted: it stays apart from the words of the template, in one line and of a limited length.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from .canonical import dumps

VALUE_LETTERS = 60
FORMS = ("", "money")  # how a value is written: as it is, or cents as an amount


@dataclass(frozen=True, slots=True)
class Part:
    """Words of the template, or what the input gave (`given`)."""

    text: str
    given: bool = False


def problem(template: str, fields: Collection[str]) -> str:
    """Why the template cannot be used with inputs of these names, or ""."""
    try:
        found = list(Formatter().parse(template))
    except ValueError as error:
        return str(error)
    for _, field, form, conversion in found:
        if field is None:
            continue
        if field not in fields:
            return f"it has no input {field!r}"
        if form not in FORMS or conversion:
            return f"{{{field}}} can only be written as {{{field}}} or {{{field}:money}}"
    return ""


def said(template: str, given: Mapping[str, Any]) -> list[Part]:
    """The sentence about this input, as parts."""
    return list(_said(template, given))


def _said(template: str, given: Mapping[str, Any]) -> Iterator[Part]:
    for words, field, form, _ in Formatter().parse(template):
        if words:
            yield Part(words)
        if field is not None:
            value = given.get(field)
            yield Part(_money(value) if form == "money" else short(value), given=True)


def _money(value: Any) -> str:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value / 100:,.2f}" if is_whole and abs(value) < 10**15 else short(value)


def short(value: Any) -> str:
    """Any value of an input in one line."""
    match value:
        case None | "":
            text = "nothing"
        case bool():
            text = "yes" if value else "no"
        case str():
            text = " ".join(value.split())
        case _:
            text = dumps(value)
    hidden = len(text) - VALUE_LETTERS
    return text if hidden <= 0 else f"{text[:VALUE_LETTERS]}… ({hidden:,} more letters)"


def plain(parts: list[Part]) -> str:
    """As one text."""
    return "".join(part.text for part in parts)
