"""What the rows of a run and its steps are, given the state that the events fold to, and the one statement that writes them."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, lru_cache
from itertools import count
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from runs.engine.canonical import dumps
from runs.engine.events import Fact
from runs.engine.state import CHANGE_EVERY_STEP, RunState, StepState

BORN_COLUMNS = [
    "agent", "agent_version", "config_version", "input", "input_text", "tags", "started_by", "created_at", "parent_id",
    "forked_from_id", "forked_step",
]  # fmt: skip
AS_FOLDED = [
    "status", "waiting_cause", "waiting_step", "wake_at", "waiting_runs", "error", "cancel_requested", "started_at",
    "finished_at", "head_hash",
]  # fmt: skip
MOVING_COLUMNS = [*AS_FOLDED, "output", "step_count", "last_seq"]
RUN_COLUMNS = BORN_COLUMNS + MOVING_COLUMNS
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
        "tags": state.tags,
        "started_by": state.started_by,
        "created_at": state.requested_at,
        "parent_id": state.parent_id,
        "forked_from_id": state.forked_from,
        "forked_step": state.forked_step,
    }


def moving_columns(state: RunState) -> dict[str, Any]:
    """What its later events change."""
    return dict(zip(MOVING_COLUMNS, _moving(state), strict=True))


_as_folded: Callable[[RunState], tuple[Any, ...]] = attrgetter(*AS_FOLDED)
_of_step: Callable[[StepState], tuple[Any, ...]] = attrgetter(*STEP_COLUMNS)


def _moving(state: RunState) -> tuple[Any, ...]:
    """In the order of MOVING_COLUMNS."""
    return (*_as_folded(state), _inline(state, "output"), len(state.steps), state.seq)


def _inline(state: RunState, name: str) -> Any:
    """A value that was set apart from its event is not written into the row either."""
    return None if name in state.set_apart else getattr(state, name)


def step_columns(step: StepState) -> dict[str, Any]:
    """Column -> value."""
    return dict(zip(STEP_COLUMNS, _of_step(step), strict=True))


# --- one statement writes the events, the rows and the large payloads of any number of runs ------------------------

TYPES = (
    dict.fromkeys(["run_id", "parent_id", "forked_from_id"], "bigint")
    | {"waiting_runs": "bigint[]", "tags": "text[]"}
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


def _values(alias: str, names: list[str], rows: int, places: Iterator[int]) -> str:
    """The same of plain parameters."""
    typed = [[f"${next(places)}::{TYPES.get(name, 'text')}" for name in names] for _ in range(rows)]
    return f"(VALUES {', '.join(f'({_list(row)})' for row in typed)}) AS {alias}({_list(names)})"


def _list(names: Iterable[str], alias: str = "") -> str:
    return ", ".join(f"{alias}{name}" for name in names)


SET_RUN = _list(f"{name} = asked.{name}" for name in MOVING_COLUMNS)
SET_STEP = _list(f"{name} = excluded.{name}" for name in STEP_COLUMNS if name != "position")
ASKED_COLUMNS = ["run_id", "cursor", "fence", "release", *MOVING_COLUMNS]
STEP_ROW = ["run_id", *STEP_COLUMNS]


def _insert(asked: str, facts: str, steps: str, lease_seconds: str) -> str:
    """From these sources of rows."""
    return f"""
WITH head AS (
  UPDATE runs_run AS run SET {SET_RUN},
    lease_owner = CASE WHEN asked.release THEN '' ELSE run.lease_owner END,
    lease_until = CASE WHEN asked.release THEN NULL
      WHEN asked.fence IS NOT NULL THEN clock_timestamp() + make_interval(secs => {lease_seconds}::float8)
      ELSE run.lease_until END
  FROM {asked}
  WHERE run.id = asked.run_id AND run.last_seq = asked.cursor
    AND (asked.fence IS NULL OR (run.fence = asked.fence AND run.lease_until IS NOT NULL))
  RETURNING run.id
), written AS (
  INSERT INTO runs_event ({_list(FACT_COLUMNS)})
  SELECT {_list(FACT_COLUMNS, "e.")} FROM {facts} JOIN head ON head.id = e.run_id
), projected AS (
  INSERT INTO runs_step (run_id, {_list(STEP_COLUMNS)})
  SELECT s.run_id, {_list(STEP_COLUMNS, "s.")} FROM {steps}
  JOIN head ON head.id = s.run_id
  ON CONFLICT (run_id, position) DO UPDATE SET {SET_STEP}
)
SELECT id FROM head
"""  # noqa: S608 - built from the constant column lists above


INSERT = _insert(
    _records("runs", "asked", ASKED_COLUMNS), _records("facts", "e", FACT_COLUMNS),
    _records("steps", "s", STEP_ROW), "%(lease_seconds)s",
)  # fmt: skip
MOST_PLAIN = 3  # events, or steps, of what nearly every append writes


class Statement(NamedTuple):
    """As it is prepared, and which of its parameters are given in binary (1)."""

    name: bytes
    text: bytes
    formats: list[int]


PARAMETERS = ("runs", "facts", "steps", "lease_seconds")
INSERT_MANY = Statement(
    b"insert", (INSERT % {name: f"${place}" for place, name in enumerate(PARAMETERS, start=1)}).encode(), [0] * len(PARAMETERS)
)


@cache
def insert_one(facts: int, steps: int) -> Statement:
    """For one run, so many events and steps, of plain parameters: a fifth less CPU of the server than to read them from JSON."""
    places = count(1)
    asked, written = _values("asked", ASKED_COLUMNS, 1, places), _values("e", FACT_COLUMNS, facts, places)
    statement = _insert(asked, written, _values("s", STEP_ROW, steps, places), f"${next(places)}")
    names = [*ASKED_COLUMNS, *FACT_COLUMNS * facts, *STEP_ROW * steps, "lease_seconds"]
    formats = [int(name not in TYPES and name != "lease_seconds") for name in names]  # text in binary: with its length
    return Statement(f"insert_{facts}_{steps}".encode(), statement.encode(), formats)


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
    """What one append writes: the values of rows, facts with their data as text, and the values set apart by their hash."""

    run_id: int
    run: tuple[Any, ...]  # in the order of ASKED_COLUMNS
    facts: list[tuple[Fact, str]]
    steps: list[tuple[Any, ...]]  # each in the order of STEP_ROW
    payloads: dict[str, str]

    @property
    def is_small(self) -> bool:
        return len(self.facts) <= MOST_PLAIN and 0 < len(self.steps) <= MOST_PLAIN


class Birth(NamedTuple):
    """A run that is not there yet: its columns, and its first event."""

    run_id: int
    run: dict[str, Any]
    first: tuple[Fact, str]
    payloads: dict[str, str]


def write_of(
    run_id: int, cursor: int, fence: int | None, state: RunState, written: list[tuple[Fact, str]], payloads: dict[str, str],
    *, release: bool,
) -> Write:  # fmt: skip
    """It takes effect only where the run still has `cursor` events and, if given, the lease of `fence`.

    `written` pairs each fact with the canonical text of its data; `payloads` maps hash to canonical text.
    """
    run = (run_id, cursor, fence, release, *_moving(state))
    return Write(run_id, run, written, [(run_id, *_of_step(step)) for step in _touched(state, written)], payloads)


def birth_of(run_id: int, state: RunState, first: tuple[Fact, str], payloads: dict[str, str]) -> Birth:
    return Birth(run_id, run_columns(state) | {"run_id": run_id}, first, payloads)


def birth_values(births: list[Birth]) -> dict[str, Any]:
    """The values of CREATE for all of them."""
    return {"runs": _array(_object(one.run) for one in births), "facts": _array(_fact(one.run_id, *one.first) for one in births)}


def statement_values(writes: list[Write], lease_seconds: float) -> dict[str, Any]:
    """The values of INSERT for all of them."""
    return {
        "runs": _array(_object(dict(zip(ASKED_COLUMNS, write.run, strict=True))) for write in writes),
        "facts": _array(_fact(write.run_id, *fact) for write in writes for fact in write.facts),
        "steps": _array(_object(dict(zip(STEP_ROW, step, strict=True))) for write in writes for step in write.steps),
        "lease_seconds": lease_seconds,
    }


def _array(objects: Iterable[str]) -> str:
    return f"[{','.join(objects)}]"


def prepared(writes: list[Write], lease_seconds: float) -> tuple[Statement, list[bytes | None]]:
    """The statement that writes all of them, and its parameters."""
    if len(writes) == 1 and writes[0].is_small:
        return insert_one(len(writes[0].facts), len(writes[0].steps)), _plain_values(writes[0], lease_seconds)
    values = statement_values(writes, lease_seconds)
    return INSERT_MANY, [str(values[name]).encode() for name in PARAMETERS]


def _plain_values(write: Write, lease_seconds: float) -> list[bytes | None]:
    """In the order of the columns in `insert_one`."""
    found, run_id = _encoded(write.run, ENCODE_RUN), b"%d" % write.run_id
    for fact, text in write.facts:
        found += (
            run_id, b"%d" % fact.seq, fact.kind.encode(), None if fact.step is None else b"%d" % fact.step, fact.actor.encode(),
            text.encode(), _as_time(fact.at), fact.prev_hash.encode(), fact.hash.encode(),
        )  # fmt: skip
    for step in write.steps:
        found += _encoded(step, ENCODE_STEP)
    found.append(str(lease_seconds).encode())
    return found


def _encoded(values: tuple[Any, ...], encoders: "tuple[_Encoder, ...]") -> list[bytes | None]:
    return [None if value is None else encode(value) for encode, value in zip(encoders, values, strict=True)]


def _as_json(value: Any) -> bytes:
    return dumps(value).encode()


@lru_cache(maxsize=64)
def _as_time(at: datetime) -> bytes:
    """One append says the same time in several places: of an event, of its step, of its run."""
    return at.isoformat().encode()


def _as_array(numbers: list[int]) -> bytes:
    return f"{{{','.join(map(str, numbers))}}}".encode()


def _as_text(value: Any) -> bytes:
    return str(value).encode()


_Encoder = Callable[[Any], bytes]
# How PostgreSQL reads a value as text, by the type of its column; numbers and booleans as Python writes them.
_ENCODERS: dict[str, _Encoder] = {"text": str.encode, "jsonb": _as_json, "timestamptz": _as_time, "bigint[]": _as_array}
ENCODE_RUN = tuple(_ENCODERS.get(TYPES.get(name, "text"), _as_text) for name in ASKED_COLUMNS)
ENCODE_STEP = tuple(_ENCODERS.get(TYPES.get(name, "text"), _as_text) for name in STEP_ROW)


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
