"""One request of our own HTTP clients: its answer has an end, in seconds and in bytes, however the other side sends it."""

from collections.abc import Callable
from typing import Any

import httpx2

from runs.engine.errors import GiveUp
from runs.integrations import deadline
from runs.reliability import guard

MOST_BYTES = 1_000_000
MOST_REDIRECTS = 5
SENDING = "send_request_headers.started"
OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")  # as it was sent


def post(
    client: httpx2.Client, url: str, *, own_headers: dict[str, str], redirects: bool = False, **sent: Any
) -> httpx2.Response:
    """The answer, read. Within a guarded call, and for no longer than an attempt may take.

    Redirects are followed to the same origin with `own_headers`, to another without them, and never from https to http.
    """
    with deadline.kept(httpx2.TransportError):
        request = client.build_request("POST", url, headers=own_headers, extensions={"trace": _trace()}, **sent)
        for _ in range(MOST_REDIRECTS + 1):
            response = client.send(request, stream=True, follow_redirects=False)
            try:
                if not (redirects and response.next_request):
                    return _read(response)
            finally:
                response.close()
            request = _next(request, response.next_request, own_headers)
    raise GiveUp(f"{request.url.host} sends us on more than {MOST_REDIRECTS} times.")


def _read(response: httpx2.Response) -> httpx2.Response:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise GiveUp(f"The answer of {response.url.host} has more than {MOST_BYTES:,} bytes, so it was not read.")
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in OF_THE_BODY]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _next(last: httpx2.Request, request: httpx2.Request, own_headers: dict[str, str]) -> httpx2.Request:
    if (last.url.scheme, request.url.scheme) == ("https", "http"):
        raise GiveUp(f"{last.url.host} sends us on to http://{request.url.host}, which is not encrypted: nothing was sent there.")
    if (last.url.scheme, last.url.host, last.url.port) != (request.url.scheme, request.url.host, request.url.port):
        for name in own_headers:
            request.headers.pop(name, None)
    return request


def _trace() -> Callable[[str, dict[str, Any]], None]:
    """Hears what happens to a request, and to those it is sent on by: only the first of them counts as a call."""
    left: list[str] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            deadline.watch(info["return_value"].get_extra_info("socket").fileno())
        elif event.endswith(SENDING) and not left:
            left.append(event)
            guard.connected()

    return trace
