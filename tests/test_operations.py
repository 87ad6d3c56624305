"""Which operations there are, and what happens when one finally fails: read from the code, checked, and shown on a page."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agentops import checks
from runs import commands, operations, sdk
from runs.models import mishaps
from runs.sdk import GiveUp, agent, ask_human, worker
from runs.sdk import Run as Handle
from tests import agents
from tests.agents import Answer, Order
from tests.test_degradation import DOES, NOTE, advanced, carried, current, fails, one_step, rate

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    DOES.clear()
    made = Client()
    made.force_login(people["operator"])
    return made


@worker(critical=True)
def bare(text: str) -> str:
    return text


@worker(effect="once", critical=True, fallback=ask_human, uses=("bank", "model"), attempts=2, timeout=1.5)
def book(text: str) -> str:
    return text


TABLE = {"rate": rate}


def one_more_down(run: Handle, text: str) -> str:
    def inner() -> str:
        return str(run.step("book", book.gated("Look."), text=text))

    return inner()


@agent("operating", title="Operating", version="1")
def operating(run: Handle, order: Order) -> Answer:
    """Comes to its workers in each way there is."""
    run.step("current", current, shop=order.text)
    run.step("other", agents.other_way, text=order.text)
    run.step("ask", ask_human(agents.Choice), question="Which?")
    run.step("table", TABLE[order.text], shop=order.text)
    return Answer(said=one_more_down(run, order.text))


@agent("idle", title="Idle", version="1")
def idle(run: Handle, order: Order) -> Answer:
    """Calls nobody."""
    return Answer(said=order.text)


def test_the_workers_of_an_agent_are_those_that_its_code_names() -> None:
    found = [one.name for one in operations.workers_of(operating)]
    assert found == ["test_degradation.current", "agents.other_way", "test_degradation.rate", "test_operations.book"]
    desk = {name for name in sdk.WORKERS if name.startswith("card_desk.")}
    assert {one.name for one in operations.workers_of(sdk.AGENTS["card-desk"])} == desk - {"card_desk.draft_from_template"}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (agents.other_way, "None named: a person decides"),
        (book, "A person decides"),
        (rate, f"The run goes on without it, and says: {NOTE}"),
        (agents.stumble_critically, "Other way; when that fails too, a person decides"),
        (current, "Cached; when that fails too, the run goes on without it, and says: The cache is empty as well."),
    ],
)
def test_a_fallback_is_told_in_words(step: Any, words: str) -> None:
    assert operations.fallback(step) == words


def test_a_critical_worker_without_a_fallback_fails_the_check_which_names_worker_and_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [error.msg for error in checks.critical_workers_name_a_fallback(None)]
    end = "is critical but names no fallback: add fallback=another_worker, fallback=ask_human or fallback=skip(note) to its"
    assert told == [f"The worker test_operations.bare (no agent of this installation) {end} @worker."]
    monkeypatch.setitem(TABLE, "bare", bare)
    told = [error.msg for error in checks.critical_workers_name_a_fallback(None)]
    assert told == [f"The worker test_operations.bare (agent operating) {end} @worker."]
    monkeypatch.delitem(sdk.WORKERS, "test_operations.bare")
    assert [error.msg for error in checks.critical_workers_name_a_fallback(None)] == told, "what an agent names counts, too"
    monkeypatch.delitem(TABLE, "bare")
    assert checks.critical_workers_name_a_fallback(None) == [], "the agents that are shipped name theirs"


def priced(text: str) -> str:
    return text


def test_a_function_that_is_a_worker_several_times_is_told_with_the_options_of_each(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "WORKERS", dict(sdk.WORKERS))
    monkeypatch.setitem(TABLE, "quick", worker(timeout=1.25, attempts=1, fallback=ask_human)(priced))
    monkeypatch.setitem(TABLE, "slow", worker(timeout=77, critical=True)(priced))
    monkeypatch.setitem(TABLE, "slow too", worker(timeout=77, critical=True)(priced))
    worker(timeout=88)(priced)  # the last, which nobody names
    monkeypatch.setattr(sdk, "AGENTS", {"operating": operating})
    page = client.get("/operations/").text
    assert "1.3 s" in page
    assert "77 s" in page
    assert "88 s" not in page
    assert page.count('id="operation-test_operations.priced"') == page.count('id="operation-test_operations.priced-2"') == 1
    assert page.count(">test_operations.priced<") == 2, "the same options are told once"
    assert "<strong>1 critical operation without a fallback</strong>, of 2 critical among 6." in page
    told = "".join(error.msg for error in checks.critical_workers_name_a_fallback(None))
    assert "The worker test_operations.priced (agent operating) is critical but names no fallback" in told
    assert [one.name for one in operations.workers_of(operating)].count("test_operations.priced") == 1


def test_the_page_lists_every_operation_with_its_fallback_and_recent_failures(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    DOES["current"], DOES["cached"] = fails(GiveUp("no")), fails(GiveUp("none"))
    for _ in range(2):
        carried(one_step(current))
    monkeypatch.setattr(sdk, "AGENTS", {"operating": operating, "idle": idle})
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/operations/").text
    assert sum("runs_event" in query["sql"] for query in queries) == 1
    assert "<strong>0 critical operations without a fallback</strong>, of 1 critical among 4." in page
    assert "when that fails too, the run goes on without it, and says: The cache is empty as well." in page
    assert "never repeated by itself" in page
    assert "1.5 s" in page
    assert "It calls no worker" in page
    assert 'aria-current="page">' in page
    assert mishaps.counts(timezone.now() - timedelta(hours=1)) == {("shopping", "test_degradation.current"): (4, 4)}
    assert mishaps.counts(timezone.now() + timedelta(hours=1)) == {}
    monkeypatch.setitem(TABLE, "bare", bare)
    page = client.get("/operations/").text
    assert "<strong>1 critical operation without a fallback</strong>, of 2 critical among 5." in page
    assert "No fallback</span>" in page
    monkeypatch.setattr(sdk, "AGENTS", {})
    assert "No operation is known" in client.get("/operations/").text


def test_the_page_counts_what_failed_under_the_agent_that_called_it(client: Client) -> None:
    agents.FAILURES["falls"] = [GiveUp("gone")]
    advanced(commands.start("falling-back", {"text": "falls"}, by="operator"))
    page = client.get("/operations/").text
    assert "1 failed attempt, 1 fallback taken" in page
