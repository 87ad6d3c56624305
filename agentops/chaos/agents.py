"""The agents that `manage.py chaos` alone runs: a step of each kind, with every effect noted in a ledger outside the database."""

import os
import signal
import time
from typing import Any, Literal

from pydantic import BaseModel

import agentops.chaos.refusing  # noqa: F401 - whose agents belong to these
from agentops.chaos import ledger, provider
from agentops.chaos.ledger import STEP_SECONDS
from agentops.chaos.measured import CALLS_EACH, MOST_CALLS, PARTS
from runs.integrations import card_processor
from runs.reliability import guard
from runs.sdk import Budget, Result, Run, TryLater, agent, ask_human, call, current_step, skip, worker

PAID = "paid {}"
RELEASE = "AGENTOPS_CHAOS_RELEASE"  # "2" is a release in which the fourth step of an errand has another name
CHILD = 1_000_000  # added to an errand's `which` for its child


class Errand(BaseModel):
    """`phase` and `which` tell errands apart; the result depends on `number` alone."""

    phase: str
    which: int
    number: int


class Colour(BaseModel):
    colour: Literal["red", "green"]


class Receipt(BaseModel):
    said: str


def note(errand: str, effect: str) -> None:
    """The effect, and then the time it takes. Its errand tells effects apart that its key should not."""
    step = current_step()
    ledger.write(errand=errand, effect=effect, key=step.key, attempt=step.attempt)
    time.sleep(float(os.environ.get(STEP_SECONDS, "0")))


@worker(effect="idempotent")
def add(errand: str, number: int) -> int:
    note(errand, "idempotent")
    return number + 1


@worker(effect="idempotent")
def fetch_late(errand: str, number: int) -> int:
    """Every third errand comes too early the first time, and its run is parked."""
    if number % 3 == 0 and current_step().attempt == 1:
        raise TryLater("not there yet", retry_after=2.1)
    note(errand, "idempotent")
    return number + 1


@worker
def classify(errand: str, number: int) -> Result[str]:
    note(errand, "none")
    return Result("odd" if number % 2 else "even", confidence=0.3 if number % 4 == 0 else 0.95, source="arithmetic")


@worker(effect="once")
def pay(errand: str, number: int) -> str:
    note(errand, "once")
    return PAID.format(number)


@worker(effect="idempotent")
def die(errand: str, way: str) -> int:
    """Ends its process before anybody can catch anything."""
    note(errand, "idempotent")
    if way == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, way))
    time.sleep(5)
    return 0


@agent("chaos-tick", title="Chaos: one step", version="1")
def tick(run: Run, given: Errand) -> Receipt:
    total = run.step("add", add, errand=f"{given.phase}-{given.which} add", number=given.number)
    return Receipt(said=str(total))


@agent("chaos-errand", title="Chaos: errand", version="1", threshold=0.8)
def errand(run: Run, given: Errand) -> Receipt:
    """Eight steps and more: keyed effects, a judged one, a late one, a gated payment that may happen only once, two side by side.

    Some ask a question, some sleep, some have a child; what somebody cancels (the numbers that end with 9) has none.
    """
    name, number = f"{given.phase}-{given.which}", given.number
    total = run.step("look_up", add, errand=f"{name} look_up", number=number)
    total = run.step("reserve", add, errand=f"{name} reserve", number=total)
    kind = run.step("classify", classify, errand=f"{name} classify", number=number)
    fetch = "fetch_anew" if os.environ.get(RELEASE) == "2" else "fetch"
    total = run.step(fetch, fetch_late, errand=f"{name} fetch", number=total)
    paid = run.step("pay", pay.gated("Money leaves." if number % 2 else ""), errand=f"{name} pay", number=number)
    total = run.step("book", add, errand=f"{name} book", number=total)
    colour: str = run.step("choose", ask_human(Colour), question="Which colour?").colour if number % 5 == 0 else "none"
    if number % 7 == 2:
        run.sleep("rest", 0.5)
    if number % 10 in (1, 4):
        run.spawn("send", tick, Errand(phase=given.phase, which=CHILD + given.which, number=number))
        colour += f" {run.join()[0].status}"
    filed, closed = run.gather(
        call("file", add, errand=f"{name} file", number=total), call("close", add, errand=f"{name} close", number=total + 1)
    )
    return Receipt(said=f"{filed} {closed} {kind} {paid} {colour}")


@agent("chaos-wait", title="Chaos: waits for a person", version="1")
def wait(run: Run, given: Errand) -> Receipt:
    total = run.step("add", add.gated("It waits long."), errand=f"{given.phase}-{given.which} add", number=given.number)
    return Receipt(said=str(total))


@agent("chaos-together", title="Chaos: waits, and is cancelled and retried with many others", version="1")
def wait_together(run: Run, given: Errand) -> Receipt:
    """Of an agent of their own, for they are found by a filter, which other phases' runs must not fit."""
    gated = add.gated("It waits long.")
    return Receipt(said=str(run.step("add", gated, errand=f"{given.phase}-{given.which} add", number=given.number)))


@agent("chaos-hurry", title="Chaos: waits for a person, not for long", version="1")
def hurry(run: Run, given: Errand) -> Receipt:
    gated = add.gated("It waits for a moment.", within=2.5)
    return Receipt(said=str(run.step("add", gated, errand=f"{given.phase}-{given.which} add", number=given.number)))


@worker
def doubt(number: int) -> Result[int]:
    return Result(number, confidence=0.1, source="arithmetic")


@agent("chaos-flood", title="Chaos: doubts very often", version="1", threshold=0.8)
def flood(run: Run, given: Errand) -> Receipt:
    """As often as its number, side by side."""
    sure = run.gather(*(call(f"doubt_{number}", doubt, number=number) for number in range(given.number)))
    return Receipt(said=str(len(sure)))


@agent("chaos-critical", title="Chaos: what must not wait", version="1")
def critical(run: Run, given: Errand) -> Receipt:
    gated = pay.gated("Money leaves.")
    return Receipt(said=run.step("pay", gated, errand=f"{given.phase}-{given.which} pay", number=given.number))


WAYS_TO_DIE = ("exit", "SIGKILL", "SIGSEGV")


@agent("chaos-poison", title="Chaos: poison", version="1")
def poison(run: Run, given: Errand) -> Receipt:
    """One good step, and then one that no process survives."""
    name, way = f"{given.phase}-{given.which}", WAYS_TO_DIE[given.number % len(WAYS_TO_DIE)]
    total = run.step("add", add, errand=f"{name} add", number=given.number)
    total = run.step("die", die, errand=f"{name} die", way=way)
    return Receipt(said=str(total))


class Calls(Errand):
    """`calls` of a run are made one after the other."""

    calls: int = 1


@worker(effect="idempotent", uses="card-processor")
def freeze(card: str) -> str:
    return card_processor.freeze_card(card, key=current_step().key).reference


@worker(effect="idempotent")
def hang() -> int:
    """In C, where no exception reaches it."""
    time.sleep(600)
    return 0


@agent("chaos-call", title="Chaos: calls outside", version="1")
def many_calls(run: Run, given: Calls) -> Receipt:
    return _call(run, given)


@agent("chaos-rare", title="Chaos: calls outside now and then", version="1")
def rare_calls(run: Run, given: Calls) -> Receipt:
    return _call(run, given)


@worker(effect="idempotent")
def freeze_later(card: str) -> str:
    return f"{card} is to be frozen"


ONE_TRY: Any = {"effect": "idempotent", "uses": "card-processor", "attempts": 1}
WAYS_TO_DEGRADE = {
    "other": worker(fallback=freeze_later, **ONE_TRY)(freeze.function),
    "person": worker(fallback=ask_human, **ONE_TRY)(freeze.function),
    "partial": worker(fallback=skip("The card is not frozen.", value=""), **ONE_TRY)(freeze.function),
}


class Degrading(Errand):
    way: str


@agent("chaos-degrade", title="Chaos: degrades", version="1")
def degrading(run: Run, given: Degrading) -> Receipt:
    return Receipt(said=str(run.step("freeze", WAYS_TO_DEGRADE[given.way], card="K-10011")))


@agent("chaos-hang", title="Chaos: hangs", version="1")
def hanging(run: Run, given: Errand) -> Receipt:
    return Receipt(said=str(run.step("hang", hang)))


def _call(run: Run, given: Calls) -> Receipt:
    said = [run.step(f"call_{number}", freeze, card="K-10011") for number in range(1, given.calls + 1)]
    return Receipt(said=" ".join(said))


# --- what costs something -----------------------------------------------------------------------------------------


@worker(effect="idempotent", uses="card-processor")
def spend(number: int) -> int:
    """A call that is paid for, as one of a model is."""
    key = current_step().key
    return guard.call("card-processor", lambda: provider.post_freeze(key), most=guard.Spending(tokens=10))


@agent("chaos-spend", title="Chaos: spends", version="1", budget=Budget(calls=MOST_CALLS))
def spending(run: Run, given: Errand) -> Receipt:
    for number in range(1, PARTS + 1):
        run.spawn(f"part_{number}", part, Errand(phase=given.phase, which=CHILD + number, number=number))
    return Receipt(said=str([child.status for child in run.join()]))


@agent("chaos-part", title="Chaos: spends side by side", version="1")
def part(run: Run, given: Errand) -> Receipt:
    made = run.gather(*(call(f"spend_{number}", spend, number=number) for number in range(1, CALLS_EACH + 1)))
    return Receipt(said=str(sum(made)))
