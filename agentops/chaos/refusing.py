"""Agents that come to the end of what is allowed: they call private addresses, never end, or act on a verdict."""

import itertools
import time
from typing import Literal

from pydantic import BaseModel

from runs.integrations import card_processor
from runs.reliability import addresses, guard
from runs.sdk import Result, Run, agent, current_step, skip, worker

HOOKS = guard.declare("chaos-hooks", kind="api")
SECONDS = 2.0
ALLOWED = "127.0.0.2"  # the one private address that a trial allows
ACTED_ON = "K-10021"
NEVER = 60  # steps after which a run without any limit would end by itself
Way = Literal["repeats", "steps", "seconds", "calls", "deep"]


class Asked(BaseModel):
    """`phase` and `which` tell runs apart."""

    phase: str
    which: int
    number: int


class Visiting(Asked):
    url: str


class Endless(Asked):
    way: Way


class Said(BaseModel):
    said: str


# --- addresses ----------------------------------------------------------------------------------------------------

_turns = itertools.cycle([ALLOWED, "127.0.0.1"])  # DNS that changes its mind between two looks
NAMES = {
    "hooks.example": lambda: [ALLOWED],
    "inside.example": lambda: ["127.0.0.1"],
    "inside6.example": lambda: ["::ffff:127.0.0.1"],
    "mixed.example": lambda: [ALLOWED, "127.0.0.1"],
    "turns.example": lambda: [next(_turns)],
}


def _resolve(host: str) -> list[str]:
    return NAMES[host]() if host in NAMES else addresses.look_up(host)


@worker(attempts=1, uses=HOOKS, fallback=skip("It leads where nobody may send us."))
def visit(url: str) -> int | None:
    return guard.call(HOOKS, lambda: _visited(url))


def _visited(url: str) -> int:
    with addresses.client(SECONDS, resolve=_resolve) as client:
        return int(client.get(url).status_code)


@agent("chaos-visit", title="Chaos: goes where it is told", version="1")
def visiting(run: Run, given: Visiting) -> Said:
    return Said(said=str(run.step("visit", visit, url=given.url)))


# --- a verdict, and an act that depends on it ---------------------------------------------------------------------


@worker(uses="card-processor")
def judge(card: str) -> Result[str]:
    """The classifier stands outside, too."""
    return Result(card_processor.freeze_card(card, key=current_step().key).status, confidence=1.0, source="provider")


@worker(effect="idempotent", uses="card-processor")
def act(card: str) -> str:
    return card_processor.freeze_card(card, key=current_step().key).reference


@agent("chaos-act", title="Chaos: judges, then acts", version="1")
def acting(run: Run, given: Asked) -> Said:
    run.step("judge", judge, card="K-10011")
    return Said(said=run.step("act", act, card=ACTED_ON))


# --- no end -------------------------------------------------------------------------------------------------------


@worker
def turn(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@worker(uses="chaos-model")
def ask(number: int) -> int:
    """As a call of a model is paid for; nothing leaves."""
    return guard.call("chaos-model", lambda: number, most=guard.Spending(tokens=10))


@agent("chaos-endless", title="Chaos: never ends", version="1")
def endless(run: Run, given: Endless) -> Said:
    """In each way in which that may be."""
    for number in range(NEVER):
        if given.way == "deep":
            child = run.spawn("deeper", "chaos-endless", given.model_copy(update={"which": given.which + 1_000_000}))
            return Said(said=run.join(child)[0].status)
        if given.way == "calls":
            run.step(f"ask_{number}", ask, number=number)
        else:
            same, seconds = given.way == "repeats", 0.3 if given.way == "seconds" else 0.0
            run.step(f"turn_{number}", turn, number=0 if same else number, seconds=seconds)
    return Said(said="it ended by itself")
