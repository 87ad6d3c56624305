"""Agents that do nothing, so that only the engine is measured; loaded by `manage.py bench` alone."""

from pydantic import BaseModel

from runs.sdk import Run, agent, worker

STEPS = 10
PAYLOAD = "x" * 1000  # 1 KB in, 1 KB out


class Nothing(BaseModel):
    payload: str = PAYLOAD


@worker
def hand_back(payload: str) -> str:
    return payload


@agent("bench-steps", title="Benchmark: steps", version="1")
def bench_steps(run: Run, given: Nothing) -> Nothing:
    """Ten steps that each take and return 1 KB."""
    payload = given.payload
    for number in range(STEPS):
        payload = run.step(f"step_{number}", hand_back, payload=payload)
    return Nothing(payload=payload)


@agent("bench-gate", title="Benchmark: gate", version="1")
def bench_gate(run: Run, given: Nothing) -> Nothing:
    """One gated step."""
    return Nothing(payload=run.step("gate", hand_back.gated("A benchmark asks."), payload=given.payload))
