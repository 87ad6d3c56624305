"""Empties the database after a test that commits: what is empty is not touched, and what never changes stays.

Django truncates every table with all its indexes and makes every permission again, which takes longer than most such tests.
"""

from functools import cache
from typing import Any

from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.errors import DeadlockDetected

from agentops import people as accounts

STAY = ("django_content_type", "auth_permission", "auth_group", "auth_group_permissions")
TRIES = 5
LARGE_BYTES = 1_000_000  # a table that has grown so large is truncated: what is deleted takes its place until it is vacuumed


def clean(*_: Any) -> None:
    """As `flush` does: rows go, sequences go on. A page that still asks for something may stand in the way; not for long."""
    for left in reversed(range(TRIES)):
        try:
            return _clean()
        except OperationalError as error:
            if not (left and isinstance(error.__cause__, DeadlockDetected)):
                raise
    return None


def _clean() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {_named(_tables())} IN ACCESS EXCLUSIVE MODE")  # a process that was killed may still write
        filled = _asked(cursor, " UNION ALL ".join(map(_is_filled, _tables())))
        sizes = [size for name in filled for size in _asked(cursor, f"SELECT pg_relation_size('\"{name}\"')")]
        cursor.execute("SET LOCAL session_replication_role = replica")  # neither foreign keys nor what forbids to delete
        if max(sizes, default=0) > LARGE_BYTES:
            cursor.execute(f"TRUNCATE {_named(_tables())}")
        elif filled:
            cursor.execute("; ".join(f'DELETE FROM "{name}"' for name in filled))
        is_as_it_was = _asked(cursor, WHAT_STAYS) == what_stays()
    if not is_as_it_was:
        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            call_command("flush", verbosity=0, interactive=False, reset_sequences=False)
            cursor.execute("RESET session_replication_role")
        accounts.ensure_groups()


@cache
def what_stays() -> list[Any]:
    """Groups with their permissions, as every test finds them. To be asked before the first."""
    with connection.cursor() as cursor:
        return _asked(cursor, WHAT_STAYS)


WHAT_STAYS = """
SELECT row(auth_group.name, array_agg(codename ORDER BY codename),
  (SELECT count(*) FROM auth_permission), (SELECT count(*) FROM django_content_type))::text
FROM auth_group LEFT JOIN auth_group_permissions ON group_id = auth_group.id
LEFT JOIN auth_permission ON auth_permission.id = permission_id GROUP BY auth_group.name ORDER BY auth_group.name
"""


@cache
def _tables() -> list[str]:
    there = connection.introspection.django_table_names(only_existing=True, include_views=False)
    return [name for name in there if name not in STAY]


def _is_filled(table: str) -> str:
    return f"SELECT '{table}' WHERE EXISTS (SELECT FROM \"{table}\")"


def _named(tables: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in tables)


def _asked(cursor: CursorWrapper, statement: str) -> list[Any]:
    cursor.execute(statement)
    return [value for (value,) in cursor.fetchall()]
