"""What one part of the outside world answers to a request."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status with a JSON body."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def refused(status: int, detail: str, *, code: str | None = None) -> Answer:
    """An error the caller can read, in the words of the card processor and of a model provider at once."""
    error = {"message": detail, "type": "invalid_request_error", "param": None, "code": code}
    return Answer(status, {"detail": detail} | ({"error": error} if code else {}))
