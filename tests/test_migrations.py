"""A migration must not hold up runs: what it does to a table with a long history is done while others write there."""

from collections.abc import Iterator

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import AddField, AlterField
from django.db.migrations.operations.models import AddConstraint, AddIndex, RemoveIndex

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
