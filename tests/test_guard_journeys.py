"""Runs whose provider fails in every way there is, over its socket: what it saw is what the log says, and no run is lost."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from agentops.chaos import measured
from agentops.outside import Outside
from reviews.models import Review
from runs import audit, commands, dependencies, event_log, executor
from runs.integrations import card_processor, llm
from runs.models import Run
from runs.reliability import terms
from runs.sdk import Run as Handle
from runs.sdk import agent, current_step, worker
from tests.agents import Answer, Order
from tests.test_outside import plan

ATTEMPTS = 3


class Draft(BaseModel):
    reply: str


@worker(effect="idempotent", uses="card-processor")
def freeze(card: str) -> str:
    return card_processor.freeze_card(card, key=current_step().key).status


@worker(uses="model")
def draft(prompt: str) -> str:
    return llm.write(Draft, instructions="Be kind.", prompt=prompt).reply


@agent("calling", title="Calling", version="1")
def calling(run: Handle, order: Order) -> Answer:
    """Freezes a card, or has a model write, as its text says."""
    if order.text == "model":
        return Answer(said=run.step("draft", draft, prompt="hello"))
    return Answer(said=run.step("freeze", freeze, card="K-10011"))


@pytest.fixture(autouse=True)
def impatient(model: Outside, db: None) -> None:
    """Short waits; and what takes seconds to import is there before a call's time begins."""
    llm.load()
    for name in ("card-processor", "model"):
        terms.of(name)
        dependencies.configure(
            name, by="admin", connect_timeout_seconds=1.5, read_timeout_seconds=1.5, attempt_timeout_seconds=8,
            retry_attempts=ATTEMPTS, retry_first_wait_seconds=0.1, retry_longest_wait_seconds=0.1,
        )  # fmt: skip
    terms.forget()


def carried(text: str) -> Run:
    return again(commands.start("calling", {"text": text}, by="operator"))


def again(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def attempts(run: Run) -> int:
    """As the log has them."""
    return sum(fact.kind in ("StepStarted", "AttemptStarted") for fact in event_log.facts(run.pk))


def requests(world: Outside) -> int:
    return int(world.visits.told(path="/v1/", window=1)["requests"])


PASSING = ["429", "500", "503", "reset", "malformed", "hang"]
LASTING = ["400", "404", "rejected_key", "context_too_long"]


@pytest.mark.parametrize("text", ["card-processor", "model"])
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_is_tried_again_by_the_step_and_by_nobody_else(model: Outside, text: str, kind: str) -> None:
    plan(model, kind, path="/v1/", count=ATTEMPTS - 1)
    run = carried(text)
    assert run.status == "succeeded"
    assert (attempts(run), requests(model)) == (ATTEMPTS, ATTEMPTS)


@pytest.mark.parametrize("text", ["card-processor", "model"])
@pytest.mark.parametrize(("kind", "expected"), [("500", ATTEMPTS), ("malformed", ATTEMPTS), *((kind, 1) for kind in LASTING)])
def test_a_fault_that_lasts_comes_to_a_person_with_its_reason(model: Outside, text: str, kind: str, expected: int) -> None:
    plan(model, kind, path="/v1/", count=99)
    run = carried(text)
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert (attempts(run), requests(model)) == (expected, expected)
    assert text in Review.objects.get(run=run, state="open").why


def test_a_wait_that_is_asked_for_is_kept_without_a_process(model: Outside) -> None:
    plan(model, "429", path="/v1/", retry_after="40")
    run = carried("card-processor")
    assert (run.status, requests(model)) == ("retrying", 1)
    assert run.wake_at is not None
    assert run.wake_at - event_log.now() > timedelta(seconds=35)
    assert again(run).status == "retrying", "it is not begun before its time"
    Run.objects.filter(pk=run.pk).update(wake_at=event_log.now())
    assert again(run).status == "succeeded"
    assert requests(model) == 2


# --- the judge of `manage.py chaos` -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "number"), [("404", 1), ("429", 0)])
def test_a_step_that_is_given_up_is_counted_and_one_that_is_tried_again_is_not(model: Outside, kind: str, number: int) -> None:
    plan(model, kind, path="/v1/")
    run = carried("card-processor")
    Run.objects.filter(pk=run.pk).update(input={"phase": "outage"})
    assert measured.given_up("outage") == number
