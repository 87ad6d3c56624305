"""A shop that steps buy from, for tests of dependencies: the worker calls what the test says."""

from collections.abc import Callable
from typing import Any

from runs import audit, commands, dependencies, event_log, executor
from runs.models import Run
from runs.reliability import guard, terms
from runs.sdk import Run as Handle
from runs.sdk import agent, worker
from runs.sdk import call as sdk_call
from tests.agents import Answer, Order

DOES: dict[str, Callable[[], Any]] = {}


@worker(uses=("shop", "post"))
def buy(text: str) -> str:
    return str(DOES["buy"]())


@worker(uses=("shop", "post"), effect="once")
def buy_once(text: str) -> str:
    return str(DOES["buy"]())


@worker
def forgets(text: str) -> str:
    return str(DOES["buy"]())


WORKERS = {"buy": buy, "once": buy_once, "forgets": forgets}


@worker(uses=("shop", "post", "desk", "mail"))
def visit(text: str) -> str:
    return str(call(text))


@agent("serving", title="Serving", version="1", tenant="text")
def serving(run: Handle, order: Order) -> Answer:
    """Buys for whom its text names."""
    return Answer(said=run.step("buy", buy, text=order.text))


@agent("buying", title="Buying", version="1")
def buying(run: Handle, order: Order) -> Answer:
    """Buys, with the worker that its text names; everywhere where it says so."""
    if order.text == "several":
        shops = ("shop", "post", "desk", "mail", "shop")
        return Answer(said=str(run.gather(*(sdk_call(f"{n}", visit, text=name) for n, name in enumerate(shops)))))
    if order.text == "itself":
        return Answer(said=str(DOES["buy"]()))
    return Answer(said=run.step("buy", WORKERS[order.text], text=order.text))


def call(dependency: str = "shop", result: Any = "bought") -> Any:
    return guard.call(dependency, lambda: result)


def fail(error: Exception) -> Any:
    def raises() -> None:
        raise error

    return guard.call("shop", raises)


def carried(text: str, buys: Callable[[], Any] = call, agent: str = "buying") -> Run:
    DOES["buy"] = buys
    run = commands.start(agent, {"text": text}, by="operator")
    return again(run)


def again(run: Run) -> Run:
    """Carry the run, if need be after the wait for which it is parked."""
    Run.objects.filter(pk=run.pk, wake_at__isnull=False).update(wake_at=event_log.now())
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def set_terms(name: str = "shop", **wanted: Any) -> None:
    terms.of(name)
    dependencies.configure(name, by="admin", **wanted)
    terms.forget()


def told(run: Run, kind: str = "StepDeferred") -> dict[str, Any]:
    """What the last event of the kind says."""
    data: dict[str, Any] = [fact.data for fact in event_log.facts(run.pk) if fact.kind == kind][-1]
    return data
