"""A cache that goes on in the process's own memory while Redis is away, so that people can still sign in and decide."""

import time
from typing import Any

import structlog
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = structlog.get_logger()
MEANWHILE = "while Redis is away"  # names the memory, which all threads of a process share
PAUSE_SECONDS = 5.0  # before Redis is asked again: a sign-in asks a dozen times, and each may cost the whole timeout
_asked_again_at: dict[str, float] = {}  # address -> monotonic time


class ForgetfulRedisCache(RedisCache):
    """Django's Redis cache; while Redis is away each process sees only what it has itself written meanwhile.

    The throttle of the sign-in goes on counting in each process. Other methods than these raise as ever.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._address = server
        self._meanwhile = LocMemCache(MEANWHILE, params)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._carry_out("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._carry_out("set", *args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self._carry_out("add", *args, **kwargs))

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self._carry_out("delete", *args, **kwargs))

    def _carry_out(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= _asked_again_at.get(self._address, 0.0):
            try:
                return getattr(super(), method)(*args, **kwargs)
            except (RedisError, OSError) as error:
                _asked_again_at[self._address] = time.monotonic() + PAUSE_SECONDS
                logger.warning("cache_away", error=str(error), asked_again_in_seconds=PAUSE_SECONDS)
        return getattr(self._meanwhile, method)(*args, **kwargs)
