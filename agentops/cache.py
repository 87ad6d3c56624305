"""A cache that forgets when Redis is away, so that people can still sign in and decide."""

from typing import Any

import structlog
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = structlog.get_logger()


class ForgetfulRedisCache(RedisCache):
    """Django's Redis cache; what cannot be read counts as missing, what cannot be written is not kept."""

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except (RedisError, OSError) as error:
            logger.warning("cache_away", error=str(error))
            return default

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().set(key, value, *args, **kwargs)
        except (RedisError, OSError) as error:
            logger.warning("cache_away", error=str(error))

    def add(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> bool:
        try:
            return bool(super().add(key, value, *args, **kwargs))
        except (RedisError, OSError) as error:
            logger.warning("cache_away", error=str(error))
            return True

    def delete(self, key: Any, version: int | None = None) -> bool:
        try:
            return bool(super().delete(key, version))
        except (RedisError, OSError) as error:
            logger.warning("cache_away", error=str(error))
            return False
