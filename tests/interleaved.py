"""Two at one moment, in the order that a test says: one waits for a lock that the other holds."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction

from tests.processes import eventually

WAITING = "pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"  # others test on this server too


class Behind:
    """Somebody else's act, begun by `waits` and over when the block is."""

    result: Any

    def __init__(self, act: Callable[[], Any], pool: ThreadPoolExecutor) -> None:
        self._act, self._pool = act, pool
        self.begun: Future[Any] | None = None

    def waits(self) -> None:
        """Begin it; return as soon as it waits for a lock of the block."""
        self.begun = self._pool.submit(_on_its_own, self._act)
        eventually(lambda: somebody_waits() or (self.begun and self.begun.done()))


@contextmanager
def behind(act: Callable[[], Any]) -> Iterator[Behind]:
    """What the block does is one transaction, and committed before the act goes on; `result` is what that returned."""
    with ThreadPoolExecutor(1) as pool:
        other = Behind(act, pool)
        with transaction.atomic():
            yield other
        assert other.begun
        other.result = other.begun.result(30)


def somebody_waits() -> bool:
    """For a lock of ours."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM {WAITING}")
        return bool(cursor.fetchall())


def ends_who_waits() -> None:
    """For a lock of ours: as PostgreSQL does by itself when it finds that nobody listens any more."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM {WAITING}")


def _on_its_own(act: Callable[[], Any]) -> Any:
    try:
        return act()
    finally:
        connections.close_all()
