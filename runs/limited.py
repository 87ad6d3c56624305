"""Reading that could take long: PostgreSQL gives up after so many milliseconds."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction

CANCELLED = "57014"  # PostgreSQL's word for a statement that took too long
SET = "set_config('statement_timeout', %s, true)"


class TookTooLong(Exception):
    """Nothing is known of the answer."""


@contextmanager
def at_most(milliseconds: int) -> Iterator[None]:
    """Each statement within may take so long; raises TookTooLong."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SELECT current_setting('statement_timeout'), {SET}", [str(milliseconds)])
            before = cursor.fetchone()[0]
            yield
            cursor.execute(f"SELECT {SET}", [before])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != CANCELLED:
            raise
        raise TookTooLong from error
