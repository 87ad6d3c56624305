"""The database's clock, by which everything is timed: leases, deadlines, waits."""

import time
from datetime import UTC, datetime, timedelta

from django.db import Error as DatabaseError

from runs import pen

LOOK_SECONDS = 30.0


def now() -> datetime:
    """The database's time (UTC), kept between looks by this process's monotonic clock."""
    global _looked_at, _database_time, _looks_again_at
    if time.monotonic() > _looks_again_at:
        try:
            _database_time, _looked_at = looked_at_clock(), time.monotonic()
        except DatabaseError:  # it is away: what is to be written meanwhile is not lost for that
            if _looked_at < 0:
                raise
        _looks_again_at = time.monotonic() + LOOK_SECONDS
    return _database_time + timedelta(seconds=time.monotonic() - _looked_at)


def looked_at_clock() -> datetime:
    """The database's time at this very moment."""
    at: datetime = pen.execute("SELECT clock_timestamp()", {})[0][0]
    return at.astimezone(UTC)


_looked_at = _looks_again_at = float("-inf")
_database_time: datetime
