"""The versions of a row that an admin changes: what each changed, when, and who did it."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model
from django.forms import model_to_dict
from pghistory.models import Events

from runs.engine.canonical import clean

LETTERS = 200  # of one value
Row = TypeVar("Row", bound=Any)  # with `version` and `changed_by`


def configure(model: type[Row], pk: int | None, *, by: str, changes: dict[str, Any], check: Callable[[Row], None]) -> Row:
    """Make a row, or change one and raise its version; what changes nothing makes no version.

    Raises model.DoesNotExist, and django's ValidationError, which names the field; so does `check`.
    """
    with transaction.atomic():
        row: Row = model.objects.select_for_update().get(pk=pk) if pk else model()
        before = model_to_dict(row) if pk else {}
        for name, value in changes.items():
            setattr(row, name, value)
        check(row)
        row.full_clean()
        if model_to_dict(row) != before:
            row.version, row.changed_by = row.version + bool(pk), by
            row.save()
    return row


def versions(row: Model, *, most: int) -> list[Any]:
    """As pghistory kept them, the newest first."""
    tracked = Events.objects.tracks(row)  # type: ignore[no-untyped-call]
    return list(tracked.order_by("-pgh_created_at", "-pgh_id")[:most])


def in_force(row: Row, since: datetime, until: datetime) -> list[tuple[Row, datetime, datetime]]:
    """The versions in force at some time between, the oldest first, each with its begin and end; before the first, that one."""
    model = type(row)
    names = [field.attname for field in model._meta.concrete_fields]
    kept = model.pgh_event_model.objects.filter(pgh_obj=row.pk, pgh_created_at__lt=until).order_by("-pgh_created_at", "-pgh_id")
    found: list[tuple[Row, datetime, datetime]] = []
    for one in kept:
        begin = max(since, one.pgh_created_at)
        found.insert(0, (model(**{name: getattr(one, name) for name in names}), begin, until))
        until = begin
        if begin == since:
            return found
    return [(row, since, end) if row is found[0][0] else (row, begin, end) for row, begin, end in found]


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
