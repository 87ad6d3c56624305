"""One HTTP connection: reads a request, meets its fault, sends the answer."""

import json
import socket  # noqa: TID251 - it is the outside
import struct
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from agentops.outside.answer import Answer, refused
from agentops.outside.faults import ANSWERED, Fault
from agentops.outside.visits import Visit

if TYPE_CHECKING:
    from agentops.outside.server import Outside

BODY_LIMIT_BYTES = 2_000_000
OWN_PATHS = ("/faults", "/seen", "/visits", "/healthz")  # never faulty and never logged: they are how one looks on


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1, so that clients may keep their connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Silent: GET /seen is the log."""

    @property
    def outside(self) -> "Outside":
        outside: Outside = self.server.outside  # type: ignore[attr-defined]
        return outside

    def _handle(self) -> None:
        path, _, query = self.path.partition("?")
        if path in OWN_PATHS:
            body = self._body()
            return self._send(body if isinstance(body, Answer) else self.outside.own(self.command, path, body, query))
        visit = self.outside.visits.came(path, self.headers.get("Idempotency-Key", ""), self.client_address[1])
        try:
            self._meet(path, visit)
        finally:
            self.outside.visits.went(visit)

    def _meet(self, path: str, visit: Visit) -> None:
        body = self._body()
        if isinstance(body, Answer):
            return self._send(body)
        fault = self.outside.faults.take(path)
        visit.fault = fault.kind if fault else ""
        answer = self._acted(path, body) if fault is None or fault.after or fault.kind in ANSWERED else None
        self._log(path, body, answer=answer, fault=fault)
        self._spoil(fault, answer) if fault else self._send(answer or refused(500, "No answer."))

    def _acted(self, path: str, body: dict[str, Any]) -> Answer:
        return self.outside.answer(self.command, path, body, self.headers.get("Idempotency-Key", ""))

    def _body(self) -> dict[str, Any] | Answer:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            self.close_connection = True
            return refused(413, f"The body may have {BODY_LIMIT_BYTES} bytes.")
        raw = self.rfile.read(int(length))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            return refused(400, "The body is not JSON.")
        return body if isinstance(body, dict) else refused(400, "The body must be a JSON object.")

    def _log(self, path: str, body: dict[str, Any], *, answer: Answer | None, fault: Fault | None) -> None:
        self.outside.seen.append(
            {
                "method": self.command,
                "path": path,
                "key": self.headers.get("Idempotency-Key", ""),
                "body": body,
                "status": answer.status if answer else None,
                "replayed": bool(answer and answer.headers.get("Idempotent-Replayed")),
                "fault": fault.kind if fault else "",
            }
        )

    def _spoil(self, fault: Fault, answer: Answer | None) -> None:
        match fault.kind:
            case "latency" if answer:
                self.outside.stopping.wait(fault.seconds)
                self._send(answer)
            case "slow" if answer:
                self._send(answer, seconds_a_byte=fault.seconds)
            case "malformed":
                self._send_raw(200, b'{"reference": "FRO-', {})
            case "html":
                self._send_raw(200, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})
            case "rejected_key":
                self._send(refused(401, "Incorrect API key provided.", code="invalid_api_key"))
            case "context_too_long":
                self._send(refused(400, "This model's maximum context is 8192 tokens.", code="context_length_exceeded"))
            case kind if kind.isdigit():
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                self._send(Answer(int(kind), {"detail": f"A fault on demand: {kind}."}, headers))
            case _:
                self.outside.stopping.wait(fault.seconds)  # of what hangs; a reset has none
                self._reset()

    def _reset(self) -> None:
        """Close with RST instead of FIN: linger on, zero seconds."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _send(self, answer: Answer, *, seconds_a_byte: float = 0.0) -> None:
        self._send_raw(answer.status, json.dumps(answer.body).encode(), answer.headers, seconds_a_byte)

    def _send_raw(self, status: int, content: bytes, headers: dict[str, str], seconds_a_byte: float = 0.0) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in (bytes([byte]) for byte in content) if seconds_a_byte else (content,):
            self.wfile.write(part)
            if self.outside.stopping.wait(seconds_a_byte):
                break
