"""Large values stand beside the log: up to 10 MB, kept once, found by their hash, and refused beyond with a sentence."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.test import AsyncClient
from pydantic import BaseModel

from runs import audit, event_log, executor
from runs.engine.canonical import INLINE_LETTERS, PAYLOAD_LIMIT_BYTES, Large, dumps, put_back, set_apart, sha256
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.models.event import Payload
from runs.sdk import Run as AgentRun
from runs.sdk import agent, worker
from runs.views import payloads
from tests.test_executor import advanced, started

pytestmark = pytest.mark.django_db


class Size(BaseModel):
    text: str = ""
    number: int = 0


class Length(BaseModel):
    letters: int


@worker
def grow(number: int) -> str:
    return "x" * number


@worker
def measure(text: str) -> int:
    return len(text)


@agent("growing", title="Growing", version="1")
def growing(run: AgentRun, given: Size) -> Length:
    """Makes a text and measures it."""
    return Length(letters=run.step("measure", measure, text=run.step("grow", grow, number=given.number)))


def test_what_is_set_apart_is_put_back() -> None:
    data = {"output": "x" * INLINE_LETTERS, "name": "grow", "why": ""}
    stub, values = set_apart(data)
    assert stub["output"] is None
    assert stub["large"] == {"output": {"hash": sha256(dumps(data["output"])), "bytes": INLINE_LETTERS + 2}}
    assert list(values.values()) == [dumps(data["output"])]
    assert put_back(stub, dict.fromkeys(values, data["output"])) == data | {"large": stub["large"]}
    assert put_back({"output": 1}, {}) == {"output": 1}


def test_a_large_result_is_kept_once_and_its_event_names_its_hash() -> None:
    run = advanced(started("growing", 1_000_000))
    assert (run.status, run.output) == ("succeeded", {"letters": 1_000_000})
    succeeded = next(fact for fact in event_log.facts(run.pk) if fact.kind == "StepSucceeded")
    kept = succeeded.data["large"]["output"]
    assert (succeeded.data["output"], kept["bytes"]) == (None, 1_000_002)
    assert event_log.payload_slice(run.pk, kept["hash"], 1, 2_000_000) == dumps("x" * 1_000_000)
    assert event_log.payload_slice(run.pk, "no" * 32, 1, 10) is None
    assert max(len(dumps(fact.data)) for fact in event_log.facts(run.pk)) <= INLINE_LETTERS
    assert audit.first_wrong(run.pk) == ""
    grown, measured = event_log.with_payloads(run.pk, run.steps.order_by("position"))
    assert grown.output == Large(run.pk, kept["hash"], 1_000_002)
    assert (type(measured.input), measured.output) == (Large, 1_000_000)
    assert event_log.RunLog.load(run.pk).state.steps[1].output == "x" * 1_000_000


def test_ten_megabytes_work_and_more_names_the_limit() -> None:
    assert advanced(started("growing", PAYLOAD_LIMIT_BYTES - 20)).output == {"letters": PAYLOAD_LIMIT_BYTES - 20}
    run = advanced(started("growing", PAYLOAD_LIMIT_BYTES))
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert "The value is 10,000,002 bytes; the limit is 10,000,000 bytes." in run.reviews.get().why


def test_a_replay_reads_what_was_set_apart() -> None:
    run = started("growing", 100_000)
    log, opening = event_log.take(run.pk, owner="me")
    steps = executor.Steps(log, opening)
    steps.perform("grow", grow, {"number": 100_000})
    steps.write(Draft(Kind.RUN_RELEASED), release=True)
    run = advanced(Run.objects.get(pk=run.pk))
    assert (run.status, run.output) == ("succeeded", {"letters": 100_000})
    assert [step.attempt for step in run.steps.all()] == [1, 1]


def test_a_large_input_and_output_of_a_run_are_not_copied_into_its_row() -> None:
    run = started("growing", 3, text="y" * 200_000)
    assert run.input is None
    assert advanced(run).output == {"letters": 3}
    assert audit.first_wrong(run.pk) == ""


def test_one_append_may_hold_more_than_one_statement_can() -> None:
    """PostgreSQL takes 256 MB of JSON in one value; a fork or a fan-out may carry more."""
    log = event_log.create(Draft(Kind.RUN_REQUESTED, REQUESTED))
    steps = [
        Draft(Kind.STEP_REQUESTED, STEP | {"name": f"{one}", "input": f"{one}" + "x" * 9_900_000}, one) for one in range(1, 29)
    ]
    log.append(*steps)
    assert Payload.objects.filter(run_id=log.run_id).count() == 28


STEP = {"worker": "w", "title": "t", "fingerprint": "f", "effect": "none"}
REQUESTED = {"agent": "growing", "agent_version": "1", "input": {}, "summary": "", "config": {"version": 1}}


ODD = 'a"b\\\\\\n\x01\x1fu0041é😀\\u0041' * 3


@pytest.mark.parametrize("value", [ODD, "", "\\" * 23, "x" * 9, "x" * 10, [1, {ODD: None}]], ids=repr)
def test_a_payload_is_opened_slice_by_slice_wherever_it_is_cut(
    value: Any, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, client = started("growing", 1), AsyncClient()
    client.force_login(people["operator"])
    Payload.objects.create(run_id=run.pk, hash="h", body=dumps(value))
    told = (value, "text/plain; charset=utf-8") if isinstance(value, str) else (dumps(value), "application/json")
    for letters in range(1, 12):
        monkeypatch.setattr(payloads, "SLICE_LETTERS", letters)
        parts, kind = async_to_sync(opened)(client, f"/runs/{run.pk}/payloads/h/")
        assert ("".join(parts), kind) == told
        assert max(map(len, parts)) <= letters + payloads.LONGEST_ESCAPE


async def opened(client: AsyncClient, address: str) -> tuple[list[str], str]:
    answer = await client.get(address)
    return [part.decode() async for part in answer.streaming_content], answer["Content-Type"]


def test_the_database_refuses_to_change_a_payload() -> None:
    advanced(started("growing", 100_000))
    for change in (lambda: Payload.objects.update(body="1"), lambda: Payload.objects.all().delete()):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
