"""Django's PostgreSQL for the web process: where one of its shared connections is found dead, all of them are looked at.

After a restart of the server all are. By itself the pool tries one after the other, waits longer after each, and says that it
"couldn't get a connection" before it has come to one that lives.
"""

from functools import partial
from typing import Any

from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool  # noqa: TID251 - to our own database


class DatabaseWrapper(base.DatabaseWrapper):
    @property
    def pool(self) -> "ConnectionPool[Any] | None":
        pool: ConnectionPool[Any] | None = super().pool
        if pool:
            pool._check = partial(_check, pool)  # Django gives it no other than the pool's own
        return pool


def _check(pool: "ConnectionPool[Any]", connection: Any) -> None:
    try:
        pool.check_connection(connection)
    except DatabaseWrapper.Database.Error:
        pool.check()
        raise
