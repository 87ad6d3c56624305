"""What an admin wants of each dependency, as this process last read it."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from runs.engine.backoff import RetryTerms
from runs.models.dependency import DEFAULTS, BreakerChange, Dependency, DependencyKind
from runs.reliability.breaker import BreakerTerms, Change
from runs.reliability.limiter import Limits

T = TypeVar("T")
logger = structlog.get_logger()
FRESH_SECONDS = 2.0  # so long a change may take to be heard by every process
DECLARED: dict[str, str] = {}  # name -> kind, as the adapters say it


@dataclass(frozen=True, slots=True)
class Terms:
    """One dependency. `connect` and `read` are for the client of its adapter, `attempt` is guard's own last resort."""

    pk: int | None
    name: str
    version: int
    enabled: bool
    connect_timeout_seconds: float
    read_timeout_seconds: float
    attempt_timeout_seconds: float
    retry: RetryTerms
    limits: Limits
    breaker: BreakerTerms
    changed_at: datetime | None
    known_since: datetime | None
    held_open: dict[str, str] | None = None  # by whom and why, where a person opened its breaker and nobody has closed it

    @property
    def has_limits(self) -> bool:
        """Something that must never be exceeded."""
        return any((self.limits.requests, self.limits.tokens_per_minute, self.limits.concurrency))


def declare(name: str, kind: str) -> str:
    """Say at the top of an adapter what kind of system it reaches; returns the name."""
    DECLARED[name] = kind
    return name


def of(name: str) -> Terms:
    """What is wanted of the dependency, at most FRESH_SECONDS ago. At first sight it gets a row with safe defaults.

    While the database is away, what was last read counts, and before that the defaults.
    """
    return _known.of(name)


def rows() -> list[Dependency]:
    """All that were seen, and, not yet saved, those that an adapter declares and nobody has called."""
    found = {row.name: row for row in Dependency.objects.all()}
    return [found.get(name) or _new(name) for name in sorted(found.keys() | DECLARED)]


def row(name: str) -> Dependency | None:
    """One of them."""
    return Dependency.objects.filter(name=name).first() or (_new(name) if name in DECLARED else None)


def see() -> None:
    """Make the rows of those that an adapter declares, so that an admin can change them before the first call."""
    if missing := DECLARED.keys() - set(Dependency.objects.values_list("name", flat=True)):
        _insert(*missing)


def forget() -> None:
    """Read anew: somebody has changed something in this process."""
    _known.forget()


def record(wanted: Terms, change: Change) -> None:
    """Keep that the breaker changed by itself; the calls count, also where it cannot be written."""
    if wanted.pk is None:
        return
    kept = BreakerChange(dependency_id=wanted.pk, old=change.old, new=change.new, why=change.why)
    try:
        _with_connection(kept.save)
    except DatabaseError as error:
        logger.warning("breaker_change_not_kept", dependency=wanted.name, error=str(error))


def is_held_open(wanted: Terms) -> bool:
    """A person opened its breaker and nobody has closed it, as PostgreSQL has it; true where that cannot be asked either."""
    try:
        held = _with_connection(BreakerChange.objects.held_open)
    except DatabaseError:
        return True
    return any(change.dependency_id == wanted.pk for change in held)


class _Known:
    """The rows by name, read by one thread for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._terms: dict[str, Terms] = {}
        self._read_at = float("-inf")

    def forget(self) -> None:
        self._read_at = float("-inf")

    def of(self, name: str) -> Terms:
        if self._is_fresh() and (found := self._terms.get(name)):
            return found
        with self._lock:
            if not (self._is_fresh() and name in self._terms):
                self._look(name)
            return self._terms[name]

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at <= FRESH_SECONDS

    def _look(self, name: str) -> None:
        try:
            found = _with_connection(_read)
            if name not in found:
                _with_connection(lambda: _insert(name))
                found = _with_connection(_read)
            self._terms = found
        except DatabaseError as error:
            logger.warning("dependencies_not_read", error=str(error))
            self._terms = self._terms | ({} if name in self._terms else {name: read(_new(name))})
        self._read_at = time.monotonic()


def _read() -> dict[str, Terms]:
    held_open = {change.dependency_id: {"by": change.by, "why": change.why} for change in BreakerChange.objects.held_open()}
    return {row.name: read(row, held_open.get(row.pk)) for row in Dependency.objects.all()}


def _insert(*names: str) -> None:
    """Processes that see it first at the same moment make one row."""
    Dependency.objects.bulk_create([_new(name) for name in names], ignore_conflicts=True)


def _new(name: str) -> Dependency:
    kind = DECLARED.get(name, DependencyKind.API)
    return Dependency(name=name, kind=kind, **DEFAULTS[kind])


def read(row: Dependency, held_open: dict[str, str] | None = None) -> Terms:
    """The row, as guard goes by it."""
    return Terms(
        pk=row.pk,
        name=row.name,
        version=row.version,
        enabled=row.enabled,
        connect_timeout_seconds=row.connect_timeout_seconds,
        read_timeout_seconds=row.read_timeout_seconds,
        attempt_timeout_seconds=row.attempt_timeout_seconds,
        retry=RetryTerms(
            attempts=row.retry_attempts,
            first_wait_seconds=row.retry_first_wait_seconds,
            longest_wait_seconds=row.retry_longest_wait_seconds,
            total_seconds=row.retry_total_seconds,
        ),
        limits=Limits(
            requests=row.limit_requests,
            period_seconds=row.limit_period_seconds,
            tokens_per_minute=row.limit_tokens_per_minute,
            concurrency=row.concurrency,
        ),
        breaker=BreakerTerms(
            failure_ratio=row.breaker_failure_ratio,
            minimum=row.breaker_minimum_calls,
            window_seconds=row.breaker_window_seconds,
            open_seconds=row.breaker_open_seconds,
        ),
        changed_at=row.changed_at,
        known_since=row.created_at,
        held_open=held_open,
    )


def _with_connection(ask: Callable[[], T]) -> T:
    """A thread that held no connection holds none afterwards: the call that follows may take long."""
    held = connection.connection is not None
    try:
        return ask()
    finally:
        if not held and not connection.in_atomic_block:
            connection.close()


_known = _Known()


def _after_fork() -> None:
    """A lock that another thread held at the fork would never be released here."""
    global _known
    _known = _Known()


os.register_at_fork(after_in_child=_after_fork)
