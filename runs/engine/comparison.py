"""How two values differ, as a proposal and its edit, or the results of two runs: field by field, word by word."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

WORDS_COMPARED = 2000  # of both texts together: beyond it the comparison would take long
WORD = re.compile(r"(\S+|^)(\s*)")  # with the space after it; that before the first follows an empty one


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text that stayed, was taken out or was put in."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; `name` is empty where the value has no fields."""

    name: str
    parts: list[Part]


def changes(before: Any, after: Any) -> list[Change]:
    """The fields that differ, each by its path ("address.street"); for values without fields, the one change there is."""
    return [Change(path, words(_text(old), _text(new))) for path, old, new in _differing(before, after, "")]


def number_of_changes(before: Any, after: Any) -> int:
    """How many fields differ; their words are not compared."""
    return sum(1 for _ in _differing(before, after, ""))


def _differing(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if before == after:
        return
    old, new = _fields(before), _fields(after)
    if old is None or new is None:
        yield path, before, after
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from _differing(old.get(name), new.get(name), f"{path}.{name}" if path else name)


def _fields(value: Any) -> dict[str, Any] | None:
    """What has parts that can be named: an object, and a list of objects by their places. A list of words is one text."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(place): item for place, item in enumerate(value)}
    return value if isinstance(value, dict) and value else None


def words(before: str, after: str) -> list[Part]:
    """The two texts as what stayed, what was removed and what was added."""
    old, new = WORD.findall(before), WORD.findall(after)
    if len(old) + len(new) > WORDS_COMPARED:
        return [Part("removed", before), Part("added", after)]
    parts = []
    for is_same, stretch in groupby(_beside(old, new), key=lambda pair: pair[0] == pair[1]):
        removed, added = map("".join, zip(*stretch, strict=True))
        found = [Part("same", removed)] if is_same else [Part("removed", removed), Part("added", added)]
        parts += [part for part in found if part.text]
    return parts


def _beside(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What was and what is, piece by piece. Words alone are compared: one that stays does so whatever space comes after it."""
    matcher = SequenceMatcher(None, [word for word, _ in old], [word for word, _ in new], autojunk=False)
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if kind == "equal":
            for (word, space), (_, space_now) in zip(old[old_from:old_to], new[new_from:new_to], strict=True):
                yield word, word
                yield space, space_now
        else:
            yield "".join(map("".join, old[old_from:old_to])), "".join(map("".join, new[new_from:new_to]))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return "\n".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
