"""Says whether the process lives, and whether the services it needs answer."""

from collections.abc import Callable

import django_rq
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from redis.exceptions import RedisError
from rq import Worker

from runs.alerts import rules
from runs.models import Round
from runs.sweeper import BEAT


@require_GET
@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """The process lives; nothing else is asked."""
    return JsonResponse({"status": "ok"})


@require_GET
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Each part that runs need, with what is wrong; 503 when one of them is."""
    parts = {name: said(check) for name, check in CHECKS.items()}
    ready = all(said == "ok" for said in parts.values())
    return JsonResponse({"status": "ok" if ready else "not ready", "parts": parts}, status=200 if ready else 503)


def database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


def redis() -> str:
    django_rq.get_connection("default").ping()
    return "ok"


def job_processes() -> str:
    """Those whose key has not expired: RQ counts the names, and keeps that of one that was killed."""
    return "ok" if Worker.all(connection=django_rq.get_connection("default")) else "no job process is alive"


def sweeper() -> str:
    return "ok" if cache.get(BEAT) else "the sweeper has not swept for 15 seconds"


def monitoring() -> str:
    return rules.unwatched(Round.objects.first()) or "ok"


CHECKS: dict[str, Callable[[], str]] = {
    "database": database,
    "redis": redis,
    "job_processes": job_processes,
    "sweeper": sweeper,
    "monitoring": monitoring,
}


def said(check: Callable[[], str]) -> str:
    try:
        return check()
    except (DatabaseError, RedisError, OSError) as error:
        return f"not reached: {type(error).__name__}"
