"""A cache that goes on in the process's own memory while Redis is away, so that people can still sign in and decide."""

from typing import Any

import structlog
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = structlog.get_logger()
MEANWHILE = "while Redis is away"  # names the memory, which all threads of a process share


class ForgetfulRedisCache(RedisCache):
    """Django's Redis cache; while Redis is away each process sees only what it has itself written meanwhile.

    The throttle of the sign-in goes on counting in each process. Other methods than these raise as ever.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._meanwhile = LocMemCache(MEANWHILE, params)

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except (RedisError, OSError) as error:
            return self._memory(error).get(key, default, version)

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().set(key, value, *args, **kwargs)
        except (RedisError, OSError) as error:
            self._memory(error).set(key, value, *args, **kwargs)

    def add(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> bool:
        try:
            return bool(super().add(key, value, *args, **kwargs))
        except (RedisError, OSError) as error:
            return bool(self._memory(error).add(key, value, *args, **kwargs))

    def delete(self, key: Any, version: int | None = None) -> bool:
        try:
            return bool(super().delete(key, version))
        except (RedisError, OSError) as error:
            return self._memory(error).delete(key, version)

    def _memory(self, error: Exception) -> LocMemCache:
        logger.warning("cache_away", error=str(error))
        return self._meanwhile
