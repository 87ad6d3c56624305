"""Carries HTTP between callers and the parts of the outside world, and keeps a log of what it saw."""

import sys
import threading
from collections import deque
from http.server import ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

from agentops.outside import model
from agentops.outside.answer import Answer, refused
from agentops.outside.card_processor import CardProcessor
from agentops.outside.faults import BadFault, Faults
from agentops.outside.handler import Handler
from agentops.outside.visits import Visits

SEEN_LIMIT = 10_000
MODELS = Answer(200, {"object": "list", "data": [{"id": "outside", "object": "model"}]})


class Outside:
    """The server; port 0 takes a free one. Use it as a context manager, or call start and stop."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.card_processor = CardProcessor()
        self.faults = Faults()
        self.seen: deque[dict[str, Any]] = deque(maxlen=SEEN_LIMIT)
        self.visits = Visits()
        self.stopping = threading.Event()
        self._server = _Server((host, port), Handler)
        self._server.outside = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="outside", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the faults that hang, then the server."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def serve_forever(self) -> None:
        """Serve in this thread until it is interrupted."""
        try:
            self._server.serve_forever(0.5)
        finally:
            self.stopping.set()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, method: str, path: str, body: dict[str, Any], key: str) -> Answer:
        """What the card processor or the model says."""
        if method == "GET":
            return MODELS if path == "/v1/models" else self.card_processor.get(path)
        if method != "POST":
            return refused(405, f"{method} is not allowed here.")
        if path == "/v1/chat/completions":
            return model.complete(body)
        return self.card_processor.post(path, body, key)

    def own(self, method: str, path: str, body: dict[str, Any], query: str) -> Answer:
        """For whoever looks on: faults to come, what was seen, when it was."""
        if path == "/faults":
            return self._faults(method, body)
        if path == "/visits":
            return self._visits(method, {name: values[-1] for name, values in parse_qs(query).items()})
        if path == "/seen":
            return Answer(200, {"requests": list(self.seen), "effects": self.card_processor.effects})
        return Answer(200, {"ok": True})

    def _faults(self, method: str, body: dict[str, Any]) -> Answer:
        """POST adds one, PUT has it instead of all others, DELETE takes all back."""
        if method == "DELETE":
            self.faults.clear()
        elif method in ("POST", "PUT"):
            try:
                self.faults.add(body, instead=method == "PUT")
            except BadFault as error:
                return refused(422, str(error))
        return Answer(200, {"faults": self.faults.listed()})

    def _visits(self, method: str, asked: dict[str, str]) -> Answer:
        """Of the paths that begin with `path`; `window` is in seconds."""
        if method == "DELETE":
            self.visits.clear()
        try:
            window = float(asked.get("window", "1"))
        except ValueError:
            return refused(422, "window is a number of seconds.")
        return Answer(200, self.visits.told(path=asked.get("path", "/"), window=window))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a hanging fault must not hold up the end of the process
    request_queue_size = 128
    outside: Outside

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has hung up is no news here; anything else is."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)
