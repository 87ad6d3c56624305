"""What tests ask of the outside world: a fault, what it has seen, and a reply of its model."""

import httpx2
import pytest
from pydantic import BaseModel, Field

from agentops.outside import Outside
from runs.reliability import terms


@pytest.fixture(autouse=True)
def known_dependencies(db: None) -> None:
    """Threads of a test see no row that its own transaction has not committed."""
    terms.of("card-processor")
    terms.of("model")


class Reply(BaseModel):
    reply: str = Field(min_length=1)
    tone: str


def plan(outside: Outside, kind: str, **more: object) -> None:
    httpx2.post(f"{outside.url}/faults", json={"kind": kind, **more}).raise_for_status()


def seen(outside: Outside) -> dict[str, object]:
    answer: dict[str, object] = httpx2.get(f"{outside.url}/seen").json()
    return answer
