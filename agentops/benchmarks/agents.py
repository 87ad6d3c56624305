"""Agents that do nothing, so that only the engine is measured; loaded by `manage.py bench` alone."""

import random
import time
from string import ascii_lowercase, digits
from typing import Any

from pydantic import BaseModel, Field

from agentops.benchmarks import marks
from runs.sdk import Run, agent, worker

STEPS = 10
LETTERS = "".join(random.Random(7).choice(ascii_lowercase + digits) for _ in range(985))  # noqa: S311 - nothing to compress
PAYLOAD = {"k": 0, "n": 0, "data": LETTERS}  # about 1 KB as JSON


class Errand(BaseModel):
    """How many steps, and how long each waits for the outside."""

    steps: int = STEPS
    seconds: float = 0.0
    payload: dict[str, Any] = Field(default_factory=lambda: dict(PAYLOAD))


class Done(BaseModel):
    payload: dict[str, Any]


@worker
def act(payload: dict[str, Any], number: int, seconds: float) -> dict[str, Any]:
    """Takes 1 KB and returns 1 KB."""
    marks.begun()
    if seconds:
        time.sleep(seconds)
    return {"k": number, "n": payload["n"] + 1, "data": payload["data"]}


@agent("bench-steps", title="Benchmark: steps", version="1")
def bench_steps(run: Run, errand: Errand) -> Done:
    """Steps one after the other, each on the result of the one before."""
    payload = errand.payload
    for number in range(errand.steps):
        payload = run.step(f"step_{number}", act, payload=payload, number=number, seconds=errand.seconds)
    return Done(payload=payload)


@agent("bench-gate", title="Benchmark: gate", version="1")
def bench_gate(run: Run, errand: Errand) -> Done:
    """One gated step."""
    return Done(payload=run.step("gate", act.gated("A benchmark asks."), payload=errand.payload, number=0, seconds=0.0))
