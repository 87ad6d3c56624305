"""A migration must not hold up runs: what it does to a table with a long history is done while others write there."""

import importlib
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import AddField, AlterField
from django.db.migrations.operations.models import AddConstraint, AddIndex, RemoveIndex

from runs.alerts import rules
from runs.models import AlertRule, versions

GROW = {"run", "event", "payload", "step", "searchtext", "review", "decision", "reviewevent", "budget", "tombstone"}
FROM = {"runs": 23, "reviews": 23}  # what came before is in docs/operations.md


def later() -> Iterator[tuple[str, Operation]]:
    loader = MigrationLoader(None)
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if app in FROM and int(name[:4]) >= FROM[app]:
            made = {operation.name_lower for operation in migration.operations if type(operation).__name__ == "CreateModel"}
            for operation in migration.operations:
                model = getattr(operation, "model_name_lower", "")
                if model in GROW - made:
                    yield f"{app}.{name}", operation


def holds_up(operation: Operation) -> bool:
    """It reads or writes the whole table while nobody may write there."""
    if isinstance(operation, AddIndexConcurrently | RemoveIndexConcurrently):
        return False
    if isinstance(operation, AddField):
        field = operation.field
        return bool(field.unique or field.db_index) or (field.has_default() and callable(field.default))
    return isinstance(operation, AddIndex | RemoveIndex | AddConstraint | AlterField)


def test_no_later_migration_holds_up_the_tables_that_grow() -> None:
    found = list(later())
    assert found, "the pattern finds nothing"
    assert [(name, type(operation).__name__) for name, operation in found if holds_up(operation)] == []


@pytest.mark.django_db
def test_a_built_in_rule_that_nobody_has_named_gets_its_new_name() -> None:
    rules.ensure_built_in()
    shipped = AlertRule.objects.get(built_in="reviews-late")
    for built_in, name in {"reviews-late": "A review is past due", "quarantine": "Look at this step"}.items():
        AlertRule.objects.filter(built_in=built_in).update(name=name)
    importlib.import_module("runs.migrations.0037_names_of_built_in_rules").rename(apps, None)
    assert AlertRule.objects.get(built_in="reviews-late").name == shipped.name == "A review is overdue"
    assert AlertRule.objects.get(built_in="quarantine").name == "Look at this step", "an admin named it"
    assert versions.versions(shipped, most=1)[0].pgh_data["version"] == shipped.version + 1
