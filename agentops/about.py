"""The page that says which versions run here, what agentops promises, and how the last chaos ended."""

import platform
import tomllib
from dataclasses import dataclass
from importlib import metadata

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from agentops.chaos import result
from runs import access

PROMISES = (
    "A run survives whatever happens to processes, queue and database: it goes on from its last recorded step.",
    "A step with a recorded result is never executed again.",
    "What may happen only once is never repeated by itself: where nobody knows whether it happened, a person is asked.",
    "A process that was thought dead writes nothing when it comes back.",
    "An approval is bound to exactly what the person saw, and one person decides.",
    "Every change is an event in a chain of hashes; manage.py verify finds whatever was changed afterwards.",
)
LIBRARIES = ("Django", "rq", "channels", "pydantic", "psycopg")


@dataclass(frozen=True, slots=True)
class Version:
    of: str
    number: str


@require_GET
@access.permits(access.may_look)
def about(request: HttpRequest) -> HttpResponse:
    last = result.latest()
    shown = {"chaos": last, "scale": result.scale(last) if last else ""}
    return render(request, "about.html", {"versions": _versions(), "promises": PROMISES} | shown)


def _versions() -> list[Version]:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    ours = [Version("agentops", project["version"]), Version("Python", platform.python_version())]
    return [*ours, Version("PostgreSQL", _server()), *(Version(name, metadata.version(name)) for name in LIBRARIES)]


def _server() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0])
