"""Where the counters that all processes share live: one Redis, its scripts, and one error when it is away."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SCRIPTS = Path(__file__).parent / "lua"
Answer = dict[str, Any]


class Unavailable(Exception):
    """The shared counters cannot be asked: who asked decides what that means."""


def redis() -> "Redis[str]":
    """The connection of this process; its threads share the pool."""
    return _redis_at(settings.RQ_QUEUES["default"]["URL"])


def ask(script: str, dependency: str, question: Mapping[str, Any]) -> Answer:
    """Run one script about one dependency, in one round trip, by the server's clock."""
    raise NotImplementedError


def home(dependency: str) -> str:
    """The braces keep all keys of a dependency on one machine of a cluster."""
    return f"guard:{{{dependency}}}"


@lru_cache(maxsize=1)
def _redis_at(url: str) -> "Redis[str]":
    """One more try, for a connection that a restart of Redis has closed; redis-py's own three would wait for seconds."""
    return Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 1))
