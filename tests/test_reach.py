"""What a worker calls outside is read from its source, and must be named in its `uses`."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentops import checks, reach
from runs import sdk
from runs.integrations import bank
from runs.integrations.bank import find_account as found_by
from runs.reliability import guard
from runs.reliability.guard import call as through
from runs.sdk import Worker, agent, worker
from tests.agents import Answer, Order

SHOP = "shop"


def helper() -> object:
    return deeper()


def deeper() -> object:
    return guard.call(SHOP, lambda: None)


class Shop:
    def sell(self) -> object:
        return guard.call("shop", lambda: None)


class Chain:
    @classmethod
    def opened(cls) -> object:
        return deeper()

    @property
    def stock(self) -> object:
        return deeper()


@dataclass
class Basket:
    """What Python writes for it has no source, and calls outside all the same."""

    items: object = field(default_factory=helper)


def around(inner: Callable[[], object]) -> Callable[[str], str]:
    def by_what_is_around(text: str) -> str:
        return str(inner())

    return by_what_is_around


def without_source(body: str) -> Any:
    """A worker's function of a module whose source is not there, as of one that is shipped compiled."""
    space: dict[str, Any] = {"__name__": __name__, "guard": guard, "helper": helper, "SHOP": SHOP, "Basket": Basket}
    exec(compile(f"def hidden(text: str) -> str:\n    {body}\n", "<nowhere>", "exec"), space)
    return worker(space["hidden"])


HELPED = partial(helper)


@worker
def by_a_partial(text: str) -> str:
    return str(HELPED())


@worker
def by_a_method_of_a_class(text: str) -> str:
    return str(Chain.opened())


@worker
def by_a_property(text: str) -> str:
    return str(Chain().stock)


@worker
def by_a_dataclass(text: str) -> str:
    return str(Basket())


@worker
def nothing(text: str) -> str:
    return text.upper()


@worker
def literally(text: str) -> str:
    return str(guard.call("shop", lambda: text))


@worker
def by_another_name(text: str) -> str:
    return str(through(SHOP, lambda: text))


@worker
def through_two_functions(text: str) -> str:
    return str(helper())


@worker
def by_a_method(text: str) -> str:
    return str(Shop().sell())


@worker
def by_handing_on(text: str) -> str:
    return str(max([text], key=lambda one: str(helper())))


@worker
def by_another_worker(text: str) -> str:
    return str(literally(text=text))


@worker
def by_an_adapter(text: str) -> str:
    return str(bank.find_account(text))


@worker
def by_an_adapter_of_another_name(text: str) -> str:
    return str(found_by(text)) + str(helper())


@worker
def by_an_import_of_its_own(text: str) -> str:
    from runs.integrations import card_processor

    return card_processor.freeze_card(text, key="x").reference


@worker
def by_a_name_that_is_not_written(text: str) -> str:
    return str(guard.call(text, lambda: None))


@worker
def round_and_round(text: str) -> str:
    return str(round_and_round(text=text)) + str(helper())


REACHED: list[tuple[Worker[..., str], set[str]]] = [
    (nothing, set()),
    (literally, {"shop"}),
    (by_another_name, {"shop"}),
    (through_two_functions, {"shop"}),
    (by_a_method, {"shop"}),
    (by_handing_on, {"shop"}),
    (by_another_worker, {"shop"}),
    (by_an_adapter, {"bank"}),
    (by_an_adapter_of_another_name, {"bank", "shop"}),
    (by_an_import_of_its_own, {"card-processor"}),
    (round_and_round, {"shop"}),
    (by_a_partial, {"shop"}),
    (by_a_method_of_a_class, {"shop"}),
    (by_a_property, {"shop"}),
    (by_a_dataclass, {"shop"}),
    (worker(around(helper)), {"shop"}),
    (without_source("return text.upper() + str(len(SHOP))"), set()),
    (without_source("return str(helper())"), {"shop"}),
    (without_source("return str([Basket() for one in text])"), {"shop"}),
]


@pytest.mark.parametrize(("one", "names"), REACHED, ids=lambda value: getattr(value, "name", ""))
def test_what_a_worker_reaches(one: Worker[..., str], names: set[str]) -> None:
    assert set(reach.reached(one)) == names


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("return guard.call(SHOP, lambda: text)", "guard"),
        ("from runs.reliability.guard import call; return call(SHOP, str)", "runs.reliability.guard"),
        ("return str([guard.call(SHOP, str) for one in text])", "guard"),
        ("return made_elsewhere(text)", "made_elsewhere"),
    ],
)
def test_what_cannot_be_read_is_not_taken_for_harmless(body: str, named: str) -> None:
    with pytest.raises(reach.Unreadable, match=rf"the source of tests\.test_reach\.hidden cannot be read, and it names {named}:"):
        reach.reached(without_source(body))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Worker[..., str]], list[str]]:
    """What the system check says when this is the only worker."""

    def check(one: Worker[..., str]) -> list[str]:
        monkeypatch.setattr(sdk, "WORKERS", {one.name: one})
        monkeypatch.setattr(sdk, "AGENTS", {})
        return [str(error.msg) for error in checks.workers_name_what_they_use(None)]

    return check


def test_an_outside_call_that_is_not_named_fails_the_check(told: Callable[[Worker[..., str]], list[str]]) -> None:
    both = by_an_adapter_of_another_name
    assert told(replace(both, uses=("bank", "shop"))) == []
    assert told(replace(both, uses=("shop",))) == [
        "The worker test_reach.by_an_adapter_of_another_name comes to runs.integrations.bank.find_account, which calls bank, "
        'but does not name it: write uses=("bank", "shop") in its @worker.'
    ]
    assert len(told(both)) == 2
    (unreadable,) = told(by_a_name_that_is_not_written)
    assert "by_a_name_that_is_not_written calls guard with a name that is not written there" in unreadable


@agent("asks-itself", title="Asks itself", version="1")
def asks_itself(run: sdk.Run, order: Order) -> Answer:
    return Answer(said=run.step("looks", by_an_adapter_of_another_name, text=str(bank.find_account("C-1"))))


@agent("asks-by-steps", title="Asks by steps", version="1")
def asks_by_steps(run: sdk.Run, order: Order) -> Answer:
    return Answer(said=run.step("looks", by_an_adapter_of_another_name, text=order.text))


def test_a_supervisor_that_calls_outside_itself_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "WORKERS", {})
    monkeypatch.setattr(sdk, "AGENTS", {one.slug: one for one in (asks_itself, asks_by_steps)})
    assert [error.msg for error in checks.workers_name_what_they_use(None)] == [
        "The supervisor of asks-itself comes to runs.integrations.bank.find_account, which calls bank, and would do so on every "
        'replay: call it in a @worker(uses="bank") of its own.'
    ]


def opened() -> object:
    return socket.create_connection(("shop", 80))


@worker
def goes_out_itself(text: str) -> str:
    return str(opened())


@worker
def goes_out_and_is_caught(text: str) -> str:
    try:
        return httpx2.get(text).text
    except httpx2.HTTPError:
        return ""


@worker
def goes_out_by_an_import_of_its_own(text: str) -> str:
    from urllib.request import urlopen

    return str(urlopen(text))


@worker(uses="shop")
def goes_out_by_guard(text: str) -> str:
    def sent() -> object:
        return httpx2.get(text)

    asked = lambda: httpx2.get(text)  # noqa: E731 - as some write it
    calls = [guard.call(SHOP, sent), guard.call(SHOP, asked), guard.call(SHOP, opened)]
    return f"{calls} {guard.call(SHOP, lambda: httpx2.get(text))}"


WAYS_OUT: list[tuple[Worker[..., str], set[str]]] = [
    (nothing, set()), (by_an_adapter, set()), (goes_out_by_guard, set()), (goes_out_itself, {"socket"}),
    (goes_out_and_is_caught, {"httpx2"}), (goes_out_by_an_import_of_its_own, {"urllib.request"}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "modules"), WAYS_OUT, ids=lambda value: getattr(value, "name", ""))
def test_a_way_out_past_guard_is_found_and_fails_the_check(
    one: Worker[..., str], modules: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(reach.ways_out(one)) == modules
    monkeypatch.setattr(sdk, "WORKERS", {one.name: one})
    monkeypatch.setattr(sdk, "AGENTS", {})
    told = [error.msg for error in checks.what_leaves_goes_through_guard(None)]
    assert len(told) == len(modules)
    assert all("past guard: no limit, breaker or budget would hold for it." in text for text in told)


def test_the_shipped_workers_name_what_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = sdk.AGENTS["card-desk"]
    monkeypatch.setattr(sdk, "AGENTS", {desk.slug: desk})
    shipped = {name: one for name, one in sdk.WORKERS.items() if one.function.__module__.startswith("runs.")}
    assert {"card_desk.freeze_card", "card_desk.draft"} <= shipped.keys()
    monkeypatch.setattr(sdk, "WORKERS", shipped)
    assert checks.workers_name_what_they_use(None) == checks.what_leaves_goes_through_guard(None) == []


BANNED = [
    "from urllib.request import urlopen", "import urllib.request", "from urllib import request", "import http.client",
    "from http.client import HTTPConnection", "import socket", "from socket import create_connection", "import psycopg_pool",
    "from psycopg_pool import ConnectionPool", "from django.core.mail import send_mail", "from django.core import mail",
    "from asyncio import open_connection", "import ftplib", "import imaplib", "import xmlrpc.client",
]  # fmt: skip


def test_an_import_that_leads_outside_past_guard_fails_the_check() -> None:
    """import-linter knows packages by their first name alone; these it cannot tell from what is harmless."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--output-format", "json", "--stdin-filename"]
    given = "".join(f"{line}\n" for line in BANNED)
    told = subprocess.run([*command, "runs/agents/new.py", "-"], cwd=root, input=given, capture_output=True, text=True)
    assert {one["location"]["row"] for one in json.loads(told.stdout)} == set(range(1, len(BANNED) + 1))
