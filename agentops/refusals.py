"""What is refused at the edge goes into the log: sockets, and what a browser was not allowed to do on a page of ours."""

import json
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from runs.engine.canonical import clean, digest

logger = structlog.get_logger()
REPORT_BYTES = 16_000
SAID_AGAIN_SECONDS, MOST_SAID = 60, 50  # whoever likes may write there
SPOKE = 1003  # close code: whoever opened the socket sent something


class LoggedSockets:
    """Around the sockets: one that is not opened, or is closed because somebody spoke there, is a line of the log."""

    def __init__(self, sockets: Any) -> None:
        self.sockets = sockets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        opened = told = False

        async def heard(message: Any) -> None:
            nonlocal opened, told
            opened = opened or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not told and (not opened or message.get("code") == SPOKE):
                told = True
                why = "something was sent there" if opened else "whoever asked may not listen there"
                origin = dict(scope["headers"]).get(b"origin", b"").decode(errors="replace")
                logger.warning("socket_refused", path=clean(scope["path"], 200), origin=clean(origin, 200), why=why)
            await send(message)

        await self.sockets(scope, receive, heard)


@csrf_exempt
@require_POST
def content_blocked(request: HttpRequest) -> HttpResponse:
    """A browser tells what the content security policy kept it from; a minute has the same once, and so many at most."""
    try:
        said = json.loads(request.read(REPORT_BYTES))["csp-report"]
        where = [_place(str(said.get(name, ""))) for name in ("blocked-uri", "document-uri")]
        directive, what, page = (clean(one, 300) for one in (str(said.get("effective-directive", "")), *where))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return HttpResponse(status=400)
    one_of = int(digest(directive, what, page), 16) % MOST_SAID
    if cache.add(f"agentops:blocked:{one_of}", 1, timeout=SAID_AGAIN_SECONDS):
        logger.warning("content_blocked", directive=directive, what=what, page=page)
    return HttpResponse(status=204)


def _place(address: str) -> str:
    """Without what follows the path: a search may name whom runs are about."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else parts.scheme or parts.path
