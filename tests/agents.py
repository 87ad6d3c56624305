"""Small agents that tests run: each shows one thing."""

import ctypes
import os
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from runs.reliability import guard
from runs.sdk import (
    AskHuman,
    BudgetExhausted,
    GiveUp,
    Rejected,
    Result,
    Run,
    TryLater,
    agent,
    ask_human,
    call,
    current_step,
    skip,
    worker,
)


class Order(BaseModel):
    text: str = Field(min_length=1, max_length=4000)
    number: int = 3
    ledger: str = ""


class Answer(BaseModel):
    said: str


class Choice(BaseModel):
    colour: Literal["red", "green"]
    amount: float = Field(ge=0, le=100)


class Item(BaseModel):
    name: str
    price: float = Field(ge=0)


class Basket(BaseModel):
    items: list[Item]


def note(ledger: str, line: str) -> None:
    """Write one line to the ledger, the outside world of these agents."""
    if ledger:
        with Path(ledger).open("a") as file:
            file.write(f"{line}\n")


@worker(effect="idempotent")
def count(number: int, ledger: str = "", seconds: float = 0.0) -> int:
    note(ledger, f"{current_step().key} {current_step().attempt} {os.getpid()}")
    time.sleep(seconds)
    return number + 1


@worker(remarks=True)
def guess(text: str, confidence: float | None) -> Result[Choice]:
    remark = current_step().remark
    sure = 1.0 if remark else confidence
    return Result(Choice(colour="red", amount=len(text)), sure, why="because of its length", source="a guess")


@worker
def fill(text: str, confidence: float) -> Result[Basket]:
    return Result(Basket(items=[Item(name=word, price=len(word)) for word in text.split()]), confidence)


@worker(effect="once")
def pay(amount: float, ledger: str = "") -> str:
    note(ledger, f"paid {amount}")
    return f"paid {amount}"


FAILURES: dict[str, list[Exception]] = {}


@worker
def stumble(text: str) -> str:
    """Raise what the test has put into FAILURES under this text, one after the other; then succeed."""
    if FAILURES.get(text):
        raise FAILURES[text].pop(0)
    return "stood up"


@worker
def other_way(text: str) -> str:
    return "another way"


@worker(effect="once")
def stumble_once(text: str) -> str:
    return str(stumble(text=text))


@worker
def repeat(text: str, times: int) -> str:
    return text * times


@worker(critical=True, fallback=other_way)
def stumble_critically(text: str) -> str:
    return str(stumble(text=text))


@worker(fallback=skip("The greeting is missing.", value="nothing"))
def stumble_unimportantly(text: str) -> str:
    return str(stumble(text=text))


@worker(effect="idempotent", uses="model")
def consume(name: str, ledger: str = "", tokens: int = 100, waits: bool = False) -> str:
    """Call a model that uses so many tokens; the ledger hears of each call. It may wait until the test makes a file."""

    def answer() -> str:
        note(ledger, f"call {name} {os.getpid()}")
        while waits and not Path(f"{ledger}.open").exists():
            time.sleep(0.02)
        guard.used(tokens, Decimal(tokens) / 1000)
        return name

    return str(guard.call("model", answer, most=guard.Spending(100, Decimal("0.1"))))


def warm_up() -> None:
    """What loading a model stands for: noted in the ledger that the environment names."""
    note(os.environ.get("WARM_UP_LEDGER", ""), f"warm {os.getpid()}")


@worker
def process_id() -> int:
    return os.getpid()


@worker(effect="idempotent")
def hold(ledger: str) -> int:
    """Stay in the step until the test makes the file."""
    note(ledger, f"{current_step().key} {current_step().attempt} {os.getpid()}")
    while not Path(f"{ledger}.open").exists():
        time.sleep(0.02)
    return os.getpid()


POISON: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "loop": lambda: [None for _ in iter(int, 1)],
    "sleep": lambda: time.sleep(600),
    "lock": lambda: ctypes.PyDLL(None).sleep(600),  # keeps Python's lock: no other thread runs
}


@worker(effect="idempotent", timeout=1)
def swallow(kind: str, ledger: str = "") -> str:
    note(ledger, f"{current_step().key} {current_step().attempt} {os.getpid()}")
    return str(POISON[kind]())


@worker(effect="idempotent")
def swallow_for_long(kind: str, ledger: str = "") -> str:
    return str(swallow(kind=kind, ledger=ledger))


@agent("poisonous", title="Poisonous", version="1")
def poisonous(run: Run, order: Order) -> Answer:
    """Ends or holds up its process, by the kind of poison its text names; in one step of a second, or of any length."""
    step = swallow if order.number == 1 else swallow_for_long
    return Answer(said=run.step("swallow", step, kind=order.text, ledger=order.ledger))


@agent("leaving", title="Leaving", version="1")
def leaving(run: Run, order: Order) -> Answer:
    """Ends its process when its one step is done."""
    run.step("count", count, number=1, ledger=order.ledger)
    os._exit(5)


@agent("holding", title="Holding", version="1")
def holding(run: Run, order: Order) -> Answer:
    """Holds its job process until it is let go, then takes one more step."""
    held_by = run.step("hold", hold, ledger=order.ledger)
    run.step("count", count, number=1)
    return Answer(said=str(held_by))


@agent("warm", title="Warm", version="1", warm_up=warm_up)
def warm(run: Run, order: Order) -> Answer:
    """Says which process executes it."""
    return Answer(said=str(run.step("process", process_id)))


@agent("counting", title="Counting", version="1")
def counting(run: Run, order: Order) -> Answer:
    """Counts in as many steps as it is told."""
    total = 0
    for step in range(order.number):
        total = run.step(f"count_{step + 1}", count, number=total, ledger=order.ledger, seconds=0.05 if order.ledger else 0.0)
    return Answer(said=str(total))


@agent("guessing", title="Guessing", version="1", threshold=0.8)
def guessing(run: Run, order: Order) -> Answer:
    """Guesses with a confidence of order.number / 10."""
    choice = run.step("guess", guess, text=order.text, confidence=order.number / 10)
    return Answer(said=f"{choice.colour} {choice.amount:g}")


@agent("filling", title="Filling", version="1", threshold=0.8)
def filling(run: Run, order: Order) -> Answer:
    """Fills a basket with the words of its text, with a confidence of order.number / 10."""
    basket = run.step("fill", fill, text=order.text, confidence=order.number / 10)
    return Answer(said=" ".join(f"{item.name} {item.price:g}" for item in basket.items))


@agent("paying", title="Paying", version="1")
def paying(run: Run, order: Order) -> Answer:
    """Pays after a person approved it; says so when one did not."""
    try:
        said = run.step("pay", pay.gated("Money leaves the house."), amount=float(order.number), ledger=order.ledger)
    except Rejected as rejected:
        said = f"not paid: {rejected.reason}"
    return Answer(said=said)


@agent("asking", title="Asking", version="1")
def asking(run: Run, order: Order) -> Answer:
    """Asks a person for a colour."""
    choice = run.step("choose", ask_human(Choice), question=f"Which colour for {order.text}?")
    return Answer(said=choice.colour)


@agent("stumbling", title="Stumbling", version="1")
def stumbling(run: Run, order: Order) -> Answer:
    """Fails as the test wants it to."""
    return Answer(said=run.step("stumble", stumble, text=order.text))


@agent("falling-back", title="Falling back", version="1")
def falling_back(run: Run, order: Order) -> Answer:
    """Has a fallback."""
    return Answer(said=run.step("stumble", stumble_critically, text=order.text))


@agent("leaving-out", title="Leaving out", version="1")
def leaving_out(run: Run, order: Order) -> Answer:
    """Does without its step where it has to."""
    return Answer(said=run.step("stumble", stumble_unimportantly, text=order.text))


@agent("consuming", title="Consuming", version="1")
def consuming(run: Run, order: Order) -> Answer:
    """Calls a model so often: one after the other, side by side, in as many children, or once and waits in it."""
    names = [f"call_{number + 1}" for number in range(order.number)]
    if order.text == "children":
        child = {"text": "line", "number": 1, "ledger": order.ledger}
        outcomes = run.join(*run.spawn_many("children", "consuming", [child] * order.number))
        return Answer(said=" ".join(one.status for one in outcomes))
    if order.text == "gather":
        return Answer(said=" ".join(run.gather(*(call(name, consume, name=name, ledger=order.ledger) for name in names))))
    if order.text == "loop":
        return Answer(said=" ".join(run.step(name, repeat, text="again", times=1) for name in names))
    if order.text == "slow":
        return Answer(said=" ".join(str(run.step(name, count, number=0, seconds=1.1)) for name in names))
    waits = order.text == "hold"
    return Answer(said=" ".join(run.step(name, consume, name=name, ledger=order.ledger, waits=waits) for name in names))


@agent("careful", title="Careful", version="1")
def careful(run: Run, order: Order) -> Answer:
    """Calls a model so often, and finishes with what there is where that goes beyond a budget."""
    said: list[str] = []
    try:
        for number in range(order.number):
            said.append(run.step(f"call_{number + 1}", consume, name=str(number), ledger=order.ledger))
    except BudgetExhausted:
        said.append("and no more")
    return Answer(said=" ".join(said))


__all__ = ["FAILURES", "AskHuman", "GiveUp", "TryLater", "counting"]
