"""The versions of a row that an admin changes: what each changed, when, and who did it."""

import json
from collections.abc import Iterator
from typing import Any

from django.db.models import Model
from pghistory.models import Events

from runs.engine.canonical import clean

LETTERS = 200  # of one value


def versions(row: Model, *, most: int) -> list[Any]:
    """As pghistory kept them, the newest first."""
    tracked = Events.objects.tracks(row)  # type: ignore[no-untyped-call]
    return list(tracked.order_by("-pgh_created_at", "-pgh_id")[:most])


def changes(version: Any, names: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """What the version changed of these, each with what was before and what came; of settings only those that differ."""
    differing = version.pgh_diff or {}
    for name in filter(differing.__contains__, names):
        before, after = differing[name]
        if name == "values" and isinstance(before, dict) and isinstance(after, dict):
            for one in sorted(before.keys() | after.keys()):
                if before.get(one) != after.get(one):
                    yield one, _shown(before.get(one)), _shown(after.get(one))
        else:
            yield name, _shown(before), _shown(after)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    return clean(json.dumps(value, ensure_ascii=False), LETTERS)
