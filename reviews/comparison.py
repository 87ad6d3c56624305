"""What a person changed in a proposal: field by field, word by word."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

WORDS_COMPARED = 4000  # of both texts together: beyond it the comparison would cost seconds


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
    old, new = re.findall(r"\S+\s*|\s+", before), re.findall(r"\S+\s*|\s+", after)
    if len(old) + len(new) > WORDS_COMPARED:
        return [Part("removed", before), Part("added", after)]
    parts = []
    for kind, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(Part("same", "".join(old[old_from:old_to])))
            continue
        removed, added = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        parts += [part for part in (Part("removed", removed), Part("added", added)) if part.text]
    return parts


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return "\n".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
