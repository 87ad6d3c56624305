"""What the rows of a run and its steps are, given the state that the events fold to, and the one statement that writes them."""

from datetime import datetime
from typing import Any

from runs.engine.canonical import dumps
from runs.engine.events import Fact, Kind
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


# --- one statement writes events, the run and its steps ----------------------------------------------------------

JSON_RUN_COLUMNS = {"input", "output", "error"}
STEP_TYPES = {
    "position": "int",
    "attempt": "int",
    "confidence": "float8",
    "threshold": "float8",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
} | dict.fromkeys(["input", "output", "alternatives", "error", "proposal"], "jsonb")
SET_RUN = ", ".join(f"{name} = %({name})s{'::jsonb' if name in JSON_RUN_COLUMNS else ''}" for name in RUN_COLUMNS)
STEP_LIST = ", ".join(STEP_COLUMNS)
STEP_RECORD = ", ".join(f"{name} {STEP_TYPES.get(name, 'text')}" for name in STEP_COLUMNS)
SET_STEP = ", ".join(f"{name} = excluded.{name}" for name in STEP_COLUMNS if name != "position")
INSERT = f"""
WITH head AS (
  UPDATE runs_run SET {SET_RUN},
    lease_owner = CASE WHEN %(release)s THEN '' ELSE lease_owner END,
    lease_until = CASE WHEN %(release)s THEN NULL ELSE lease_until END
  WHERE id = %(run_id)s AND last_seq = %(cursor)s
    AND (%(fence)s::int IS NULL OR (fence = %(fence)s::int AND lease_until IS NOT NULL))
  RETURNING id
), written AS (
  INSERT INTO runs_event (run_id, seq, kind, step, actor, data, at, prev_hash, hash)
  SELECT head.id, e.seq, e.kind, e.step, e.actor, e.data, e.at, e.prev_hash, e.hash
  FROM head, jsonb_to_recordset(%(facts)s::jsonb)
    AS e(seq int, kind text, step int, actor text, data jsonb, at timestamptz, prev_hash text, hash text)
), projected AS (
  INSERT INTO runs_step (run_id, {STEP_LIST})
  SELECT head.id, {", ".join("s." + name for name in STEP_COLUMNS)}
  FROM head, jsonb_to_recordset(%(steps)s::jsonb) AS s({STEP_RECORD})
  ON CONFLICT (run_id, position) DO UPDATE SET {SET_STEP}
)
SELECT count(*) FROM head
"""  # noqa: S608 - built from the constant column lists above


def statement_values(
    run_id: int, cursor: int, fence: int | None, state: RunState, written: list[Fact], *, release: bool
) -> dict[str, Any]:
    """The values of INSERT: it writes only where the run still has `cursor` events and, if given, the lease of `fence`."""
    columns = run_columns(state)
    values = columns | {name: _json(columns[name]) for name in JSON_RUN_COLUMNS}
    values |= {"run_id": run_id, "cursor": cursor, "fence": fence, "release": release}
    values["facts"] = dumps([_fact_columns(fact) for fact in written])
    values["steps"] = dumps([step_columns(step) for step in _touched(state, written)])
    return values


def _touched(state: RunState, written: list[Fact]) -> list[StepState]:
    """The steps that these facts changed; a cancel or a retry of the run may change any of them."""
    if any(fact.kind in (Kind.RUN_CANCELLED, Kind.RUN_RETRIED) for fact in written):
        return list(state.steps.values())
    return [state.steps[position] for position in {fact.step for fact in written if fact.step} & state.steps.keys()]


def _fact_columns(fact: Fact) -> dict[str, Any]:
    names = ("seq", "kind", "step", "actor", "data", "prev_hash", "hash")
    return {name: getattr(fact, name) for name in names} | {"at": fact.at.isoformat()}


def _json(value: Any) -> str | None:
    return None if value is None else dumps(value)
