"""What the rows of a run and its steps are, given the state that the events fold to, and the one statement that writes them."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from runs.engine.canonical import dumps
from runs.engine.events import Fact
from runs.engine.state import CHANGE_EVERY_STEP, RunState, StepState

BORN_COLUMNS = [
    "agent", "agent_version", "config_version", "input", "input_text", "started_by", "created_at", "parent_id",
    "forked_from_id", "forked_step",
]  # fmt: skip
MOVING_COLUMNS = [
    "status", "waiting_cause", "waiting_step", "wake_at", "waiting_runs", "output", "error", "cancel_requested", "step_count",
    "started_at", "finished_at", "last_seq", "head_hash",
]  # fmt: skip
RUN_COLUMNS = BORN_COLUMNS + MOVING_COLUMNS
MOVING_AS_FOLDED = [name for name in MOVING_COLUMNS if name not in ("output", "step_count", "last_seq")]
STEP_COLUMNS = [
    "position", "name", "worker", "title", "fingerprint", "status", "effect", "confidence", "threshold", "why", "source",
    "alternatives", "attempt", "error", "cause", "decision", "decided_by", "reason", "fallback", "started_at", "finished_at",
]  # fmt: skip


def run_columns(state: RunState) -> dict[str, Any]:
    """Column -> value, JSON columns as Python values."""
    return born_columns(state) | moving_columns(state)


def born_columns(state: RunState) -> dict[str, Any]:
    """What a run is from its first event on."""
    return {
        "agent": state.agent,
        "agent_version": state.agent_version,
        "config_version": state.config["version"],
        "input": _inline(state, "input"),
        "input_text": state.summary,
        "started_by": state.started_by,
        "created_at": state.requested_at,
        "parent_id": state.parent_id,
        "forked_from_id": state.forked_from,
        "forked_step": state.forked_step,
    }


def moving_columns(state: RunState) -> dict[str, Any]:
    """What its later events change."""
    said = vars(state)
    same = {name: said[name] for name in MOVING_AS_FOLDED}
    return same | {"output": _inline(state, "output"), "step_count": len(state.steps), "last_seq": state.seq}


def _inline(state: RunState, name: str) -> Any:
    """A value that was set apart from its event is not written into the row either."""
    return None if name in state.set_apart else getattr(state, name)


def step_columns(step: StepState) -> dict[str, Any]:
    """Column -> value."""
    said = vars(step)
    return {name: said[name] for name in STEP_COLUMNS}


# --- one statement writes the events, the rows and the large payloads of any number of runs ------------------------

TYPES = (
    dict.fromkeys(["run_id", "parent_id", "forked_from_id"], "bigint")
    | {"waiting_runs": "bigint[]"}
    | dict.fromkeys(["seq", "cursor", "fence", "last_seq", "step", "step_count", "waiting_step", "position", "attempt"], "int")
    | dict.fromkeys(["config_version", "forked_step"], "int")
    | dict.fromkeys(["at", "wake_at", "created_at", "started_at", "finished_at"], "timestamptz")
    | dict.fromkeys(["release", "cancel_requested"], "boolean")
    | dict.fromkeys(["confidence", "threshold"], "float8")
    | dict.fromkeys(["data", "input", "output", "alternatives", "error"], "jsonb")
)
FACT_COLUMNS = ["run_id", "seq", "kind", "step", "actor", "data", "at", "prev_hash", "hash"]


def _records(parameter: str, alias: str, names: Iterable[str]) -> str:
    columns = _list(f"{name} {TYPES.get(name, 'text')}" for name in names)
    return f"jsonb_to_recordset(%({parameter})s::jsonb) AS {alias}({columns})"


def _list(names: Iterable[str], alias: str = "") -> str:
    return ", ".join(f"{alias}{name}" for name in names)


SET_RUN = _list(f"{name} = asked.{name}" for name in MOVING_COLUMNS)
SET_STEP = _list(f"{name} = excluded.{name}" for name in STEP_COLUMNS if name != "position")
INSERT = f"""
WITH head AS (
  UPDATE runs_run AS run SET {SET_RUN},
    lease_owner = CASE WHEN asked.release THEN '' ELSE run.lease_owner END,
    lease_until = CASE WHEN asked.release THEN NULL
      WHEN asked.fence IS NOT NULL THEN clock_timestamp() + make_interval(secs => %(lease_seconds)s::float8)
      ELSE run.lease_until END
  FROM {_records("runs", "asked", ["run_id", "cursor", "fence", "release", *MOVING_COLUMNS])}
  WHERE run.id = asked.run_id AND run.last_seq = asked.cursor
    AND (asked.fence IS NULL OR (run.fence = asked.fence AND run.lease_until IS NOT NULL))
  RETURNING run.id
), written AS (
  INSERT INTO runs_event ({_list(FACT_COLUMNS)})
  SELECT {_list(FACT_COLUMNS, "e.")} FROM {_records("facts", "e", FACT_COLUMNS)} JOIN head ON head.id = e.run_id
), projected AS (
  INSERT INTO runs_step (run_id, {_list(STEP_COLUMNS)})
  SELECT s.run_id, {_list(STEP_COLUMNS, "s.")} FROM {_records("steps", "s", ["run_id", *STEP_COLUMNS])}
  JOIN head ON head.id = s.run_id
  ON CONFLICT (run_id, position) DO UPDATE SET {SET_STEP}
)
SELECT id FROM head
"""  # noqa: S608 - built from the constant column lists above
CREATE = f"""
WITH born AS (
  INSERT INTO runs_run (id, {_list(RUN_COLUMNS)}, lease_owner, lost_owner, fence)
  SELECT asked.run_id, {_list(RUN_COLUMNS, "asked.")}, '', '', 0
  FROM {_records("runs", "asked", ["run_id", *RUN_COLUMNS])}
  RETURNING id
), written AS (
  INSERT INTO runs_event ({_list(FACT_COLUMNS)})
  SELECT {_list(FACT_COLUMNS, "e.")} FROM {_records("facts", "e", FACT_COLUMNS)}
)
SELECT id FROM born
"""  # noqa: S608 - as above
KEEP = "INSERT INTO runs_payload (run_id, hash, body) VALUES (%(run_id)s, %(hash)s, %(body)s) ON CONFLICT DO NOTHING RETURNING 1"


class Write(NamedTuple):
    """What one append writes: JSON texts of the objects in INSERT's lists, and the values set apart by their hash."""

    run_id: int
    run: str
    facts: list[str]
    steps: list[str]
    payloads: dict[str, str]


def write_of(
    run_id: int, cursor: int, fence: int | None, state: RunState, written: list[tuple[Fact, str]], payloads: dict[str, str],
    *, release: bool,
) -> Write:  # fmt: skip
    """It takes effect only where the run still has `cursor` events and, if given, the lease of `fence`.

    `written` pairs each fact with the canonical text of its data; `payloads` maps hash to canonical text.
    """
    run = moving_columns(state) | {"run_id": run_id, "cursor": cursor, "fence": fence, "release": release}
    return Write(
        run_id,
        _object(run),
        [_fact(run_id, fact, text) for fact, text in written],
        [_object(step_columns(step) | {"run_id": run_id}) for step in _touched(state, written)],
        payloads,
    )


def birth_of(run_id: int, state: RunState, first: tuple[Fact, str], payloads: dict[str, str]) -> Write:
    """A run that is not there yet, with its first event."""
    run = run_columns(state) | {"run_id": run_id}
    return Write(run_id, _object(run), [_fact(run_id, *first)], [], payloads)


def statement_values(writes: list[Write], lease_seconds: float) -> dict[str, Any]:
    """The values of INSERT for all of them."""
    return {
        "runs": f"[{','.join(write.run for write in writes)}]",
        "facts": f"[{','.join(fact for write in writes for fact in write.facts)}]",
        "steps": f"[{','.join(step for write in writes for step in write.steps)}]",
        "lease_seconds": lease_seconds,
    }


def _touched(state: RunState, written: list[tuple[Fact, str]]) -> Iterable[StepState]:
    """The steps that these facts changed."""
    if any(fact.kind in CHANGE_EVERY_STEP for fact, _ in written):
        return state.steps.values()
    return [state.steps[position] for position in {fact.step for fact, _ in written if fact.step} & state.steps.keys()]


def _fact(run_id: int, fact: Fact, data: str) -> str:
    """The data is spliced in as it was hashed: it is turned into text once. Hashes, kinds and times need no escape."""
    step = "null" if fact.step is None else fact.step
    return (
        f'{{"run_id":{run_id},"seq":{fact.seq},"kind":"{fact.kind}","step":{step},"actor":{dumps(fact.actor)},'
        f'"at":"{fact.at.isoformat()}","prev_hash":"{fact.prev_hash}","hash":"{fact.hash}","data":{data}}}'
    )


def _object(columns: dict[str, Any]) -> str:
    try:
        return orjson.dumps(columns).decode()
    except TypeError:  # an output that orjson does not write (see canonical.dumps)
        return _plainly(columns)


_plainly = json.JSONEncoder(ensure_ascii=False, default=datetime.isoformat).encode
