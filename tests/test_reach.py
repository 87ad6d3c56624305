"""What a worker calls outside is read from its source, and must be named in its `uses`."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from agentops import checks, reach
from runs import sdk
from runs.integrations import bank
from runs.integrations.bank import find_account as found_by
from runs.reliability import guard
from runs.reliability.guard import call as through
from runs.sdk import Worker, worker

SHOP = "shop"


def helper() -> object:
    return deeper()


def deeper() -> object:
    return guard.call(SHOP, lambda: None)


class Shop:
    def sell(self) -> object:
        return guard.call("shop", lambda: None)


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
]


@pytest.mark.parametrize(("one", "names"), REACHED, ids=lambda value: getattr(value, "name", ""))
def test_what_a_worker_reaches(one: Worker[..., str], names: set[str]) -> None:
    assert set(reach.reached(one)) == names


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Worker[..., str]], list[str]]:
    """What the system check says when this is the only worker."""

    def check(one: Worker[..., str]) -> list[str]:
        monkeypatch.setattr(sdk, "WORKERS", {one.name: one})
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


def test_the_shipped_workers_name_what_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {name: one for name, one in sdk.WORKERS.items() if one.function.__module__.startswith("runs.")}
    assert {"card_desk.freeze_card", "card_desk.draft"} <= shipped.keys()
    monkeypatch.setattr(sdk, "WORKERS", shipped)
    assert checks.workers_name_what_they_use(None) == []
