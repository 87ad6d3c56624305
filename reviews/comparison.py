"""What a person changed in a proposal: field by field, word by word."""

import json
import re
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
    """The fields that differ; for values without fields, the one change there is."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [Change("", words(_text(before), _text(after)))]
    names = [*before, *(name for name in after if name not in before)]
    differing = [name for name in names if before.get(name) != after.get(name)]
    return [Change(name, words(_text(before.get(name)), _text(after.get(name)))) for name in differing]


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
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
