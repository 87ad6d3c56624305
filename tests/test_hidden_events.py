"""Events of which only the structure is told: whoever sees no payloads gets a page of every kind, whatever keys it has."""

import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runs import conversations, describe, event_log, reasons
from runs.engine.canonical import set_apart
from runs.engine.events import Fact, Kind
from runs.engine.phases import history
from runs.engine.policy import ALLOWED
from runs.engine.step import BEGINNINGS, NOT_COPIED, StepState
from runs.models.content import HIDDEN, structure

CANARY = "canary-4111-1111"
AT = "2026-03-05T12:00:00+00:00"
ERROR = {"kind": "ValueError", "message": CANARY, "trace": CANARY}
CALL = {"model": "openai:gpt", "tokens_in": 12, "messages": [{"role": "user", "text": CANARY}]}
BUDGET = {"scope": "run", "unit": "tokens", "limit": "10"}
CAUSES = ("person", "undo", "children", "limit", "budget", "reviews", "retry")  # of waits
# What each key of an event holds; of those of one kind all are said.
KEYS: dict[str, Any] = {
    **dict.fromkeys(("input", "summary", "output", "note", "why", "source", "schema", "value", "remark", "name"), CANARY),
    **dict.fromkeys(("title", "tenant", "digest", "tag", "seen", "reason", "values", "question"), CANARY),
    **dict.fromkeys(("agent", "agent_version", "cause", "dependency", "status", "worker", "effect", "fallback"), "word"),
    **dict.fromkeys(("owner", "fingerprint", "approved", "subject", "from", "kind", "version", "id", "rule"), "word"),
    **dict.fromkeys(("default", "own_effect", "decided_by"), "word"),
    **dict.fromkeys(("attempt", "attempts", "fence", "depth", "run", "step", "parent", "fork", "signal", "exit_code"), 1),
    **dict.fromkeys(("budget", "approvals"), 1),
    **dict.fromkeys(("seconds", "wait_seconds", "within_seconds", "duration_ms", "memory_mb", "confidence", "threshold"), 0.5),
    **dict.fromkeys(("wake_at", "deadline", "effective_at", "started_at", "finished_at"), AT),
    **dict.fromkeys(("displaces", "late", "counts", "judged", "sampled", "gate_passed"), True),
    "config": {"version": 1, "values": {}}, "policies": {}, "reviews": {}, "policy": {"id": 1, "version": 1}, "override": {},
    "forked_from": {"run": 1, "step": 1}, "others": ["other"], "runs": [1], "steps": [1], "error": ERROR, "agreed": [CANARY],
    "missing": [{"step": 1, "title": CANARY, "note": CANARY}], "message": CANARY, "trace": CANARY, "needs": "11",
    "proposal": BUDGET, "decision": "approve", "allowed": ["approve"], "alternatives": {CANARY: 0.1}, "risk": "high",
    "model_calls": [CALL], "tags": ["word"],
}  # fmt: skip
NO_KEYS = """
a about after again against also an and another approve as asked back be before breaker can carried changed child children
class code code_changed completed continues decide dependencies did drawn each else ended estimates false field for further
goes hand happens held here holds in is it its join large later leave let limit lost may more must names new no nobody not
null number of on one open original out outputs park partially person place process raise rejection result retry s same
sample saw say says sends set skip slot something stay switched_off taken text than that the then those time timer too true
two under wait was what where which who will with worse
"""


def documented() -> dict[str, set[str]]:
    """Kind -> the keys that docs/states.md names: each word that is not known to be none."""
    table = Path("docs/states.md").read_text().split("## Event kinds")[1]
    rows = [(re.findall(r"`(\w+)`", kinds), said) for kinds, said in re.findall(r"^\| (`.*?) \| (.*?)\|$", table, re.MULTILINE)]
    return {kind: set(re.findall(r"\b[a-z_]+\b", said)).difference(NO_KEYS.split()) for kinds, said in rows for kind in kinds}


def log(*, waits_for: str, asked_for: str, decision: str) -> list[Fact]:
    """One event of every kind with every key that is documented of it, and then each once more."""
    keys = documented()
    keys[Kind.STEP_STARTED] |= keys[Kind.STEP_REQUESTED]
    keys[Kind.STEP_COPIED] |= {one.name for one in fields(StepState)} - NOT_COPIED
    begins = [(Kind.RUN_REQUESTED, None), (Kind.RUN_STARTED, None), *((kind, place) for place, kind in enumerate(STEPS, 1))]
    rest = [(kind, None if kind.startswith("Run") and kind != Kind.RUN_PARKED else 1) for kind in Kind if kind not in BEGINNINGS]
    causes = {Kind.RUN_PARKED: waits_for, Kind.STEP_ESCALATED: asked_for}
    told = []
    for seq, (kind, step) in enumerate([*begins, *rest, *rest], 1):
        chosen = {"cause": causes.get(kind, "limit"), "question": {"cause": asked_for, "proposal": BUDGET}, "decision": decision}
        chosen |= {"reason": "word"} if kind == Kind.ATTEMPT_CRASHED else {}  # how a process ended
        said = structure({key: (KEYS | chosen)[key] for key in keys[kind]})
        told.append(Fact(seq, kind, said, step, "", datetime.fromisoformat(AT) + timedelta(seconds=seq), "", ""))
    return told


STEPS = sorted(BEGINNINGS)


def test_every_key_that_is_documented_is_said_here() -> None:
    """What else the log says is a new key, to be added to KEYS; or a word, to be added to NO_KEYS."""
    said = documented()
    assert said.keys() == set(Kind)
    assert {kind: found for kind, keys in said.items() if (found := keys - KEYS.keys())} == {}


def test_a_log_of_every_kind_folds_also_where_content_is_hidden() -> None:
    for waits_for in CAUSES:
        for asked_for, decisions in ALLOWED.items():
            for decision in (*decisions, "skip"):
                told = log(waits_for=waits_for, asked_for=asked_for, decision=decision)
                assert [(fact.kind, key) for fact in told for key in fact.data if CANARY in str(fact.data[key])] == []
                state = history(told).state
                said = [describe.sentence(fact, {}) for fact in told]
                said += [reasons.step_waits(fact.kind, fact.data) for fact in told if fact.kind in reasons.STEP_WAITS]
                assert CANARY not in f"{state}{said}{conversations.told(conversations.calls(told))}"
                assert state.steps.keys() == {1, 2, 3}


def test_a_conversation_that_is_kept_beside_the_log_is_hidden_as_others_are() -> None:
    said = {"attempt": 1, "wait_seconds": None, "error": ERROR | {"trace": CANARY * 1000}}
    data, _ = set_apart(said | {"model_calls": [CALL | {"messages": [{"role": "user", "text": CANARY * 1000}] * 9}]})
    fact = Fact(1, Kind.ATTEMPT_FAILED, structure(data), 1, "", datetime.now(UTC), "", "")
    for one in (fact, fact._replace(data=data)):
        assert describe.sentence(one, {}).endswith(f" failed at attempt 1: {describe.LONG}"), "so is an error with a long trace"
    (call,) = conversations.calls(event_log.outlined(1, [fact]))
    assert (call.number, call.attempt, call.large, call.model, call.count) == (1, 1, HIDDEN, "", 0)
    assert conversations.told([call]) == ""
