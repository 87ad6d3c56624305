"""Where the counters that all processes share live: one Redis, its scripts, and one error when it is away."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.exceptions import RedisError
from redis.retry import Retry

SCRIPTS = Path(__file__).parent / "lua"
LIBRARY = ("common", "waiting", "slots", "meters", "breaker")  # each may use those before it
Answer = dict[str, Any]


class Unavailable(Exception):
    """The shared counters cannot be asked: who asked decides what that means."""


def redis() -> "Redis":
    """The connection of this process; its threads share the pool."""
    return _redis_at(settings.RQ_QUEUES["default"]["URL"])


def ask(script: str, dependency: str, **question: Any) -> Answer:
    """Run one script, in one round trip and by the server's clock. What is None is left out of the question."""
    try:
        answer = _script(script, redis())(keys=[home(dependency)], args=[_told(question)])
    except (RedisError, OSError) as error:
        raise _away(error) from error
    found: Answer = json.loads(answer)
    return found


def ask_each(script: str, questions: Mapping[str, dict[str, Any]]) -> dict[str, Answer]:
    """Run one script for each of these dependencies, all at once."""
    try:
        with redis().pipeline(transaction=False) as pipeline:
            for name, question in questions.items():
                _script(script, redis())(keys=[home(name)], args=[_told(question)], client=pipeline)
            answers = pipeline.execute()
    except (RedisError, OSError) as error:
        raise _away(error) from error
    return {name: json.loads(answer) for name, answer in zip(questions, answers, strict=True)}


def home(dependency: str) -> str:
    """What the keys of a dependency begin with."""
    return f"guard:{dependency}"


def seconds(moment: datetime | None) -> float | None:
    """As the scripts count time."""
    return None if moment is None else moment.timestamp()


def moment(seconds: object) -> datetime | None:
    """The other way round, from a number or from its letters."""
    return None if seconds is None else datetime.fromtimestamp(float(str(seconds)), UTC)


def _told(question: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in question.items() if value is not None})


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"The counters that all processes share cannot be asked: {error}")


@lru_cache(maxsize=1)
def _redis_at(url: str) -> "Redis":
    """One more try, for a connection that a restart of Redis has closed; redis-py's own three would wait for seconds."""
    return Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 1))


@lru_cache(maxsize=16)
def _script(name: str, client: "Redis") -> Script:
    return client.register_script("\n".join((SCRIPTS / f"{part}.lua").read_text() for part in (*LIBRARY, name)))
