"""What the columns of a run and of its steps are, given the state that the events fold to."""

from datetime import datetime
from typing import Any

from runs.engine.state import RunState, StepState

RUN_COLUMNS = [
    "agent", "agent_version", "config_version", "input", "input_text", "status", "waiting_cause", "waiting_step",
    "wake_at", "output", "error", "cancel_requested", "step_count", "started_by", "created_at", "started_at",
    "finished_at", "last_seq", "head_hash",
]  # fmt: skip
STEP_COLUMNS = [
    "position", "name", "worker", "title", "fingerprint", "status", "effect", "input",
    "output", "confidence", "threshold", "why", "source", "alternatives", "attempt", "error",
    "cause", "proposal", "decision", "decided_by", "reason", "fallback", "started_at", "finished_at",
]  # fmt: skip


def run_columns(state: RunState) -> dict[str, Any]:
    """Column -> value, JSON columns as Python values."""
    same = {name: getattr(state, name) for name in RUN_COLUMNS if hasattr(state, name)}
    return same | {
        "config_version": state.config["version"],
        "input_text": state.summary,
        "step_count": len(state.steps),
        "created_at": state.requested_at,
        "last_seq": state.seq,
    }


def step_columns(step: StepState) -> dict[str, Any]:
    """Column -> value, ready for JSON (times as ISO 8601 text)."""
    values = {name: getattr(step, name) for name in STEP_COLUMNS}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
