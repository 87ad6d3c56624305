"""An agent that does what a test has put into SCRIPT, and how tests carry and look at its runs."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from reviews import decisions
from reviews.models import Review
from runs import commands, event_log, executor
from runs.engine.errors import GiveUp
from runs.engine.events import Draft
from runs.models import Run
from runs.sdk import Result, agent, worker
from runs.sdk import Run as Handle
from tests.agents import Answer, Order

SCRIPT: dict[str, Callable[..., Any]] = {}
EFFECTS: list[str] = []


@worker(effect="once")
def pay(text: str) -> str:
    EFFECTS.append("paid")
    return str(SCRIPT["pay"]() if "pay" in SCRIPT else "paid")


@worker(effect="once")
def pay_by_guess(text: str) -> Result[str]:
    EFFECTS.append("paid")
    return Result("paid", confidence=0.1)


@worker
def plain(text: str) -> str:
    return str(SCRIPT["plain"]())


@worker
def judged(text: str) -> Result[str]:
    result: Result[str] = SCRIPT["judged"]()
    return result


@worker(critical=True, fallback=pay)
def plain_or_pay(text: str) -> str:
    raise GiveUp("gone")


@worker(critical=True, fallback=plain)
def odd_text_or_plain(text: str) -> str:
    raise GiveUp("odd \x00 text")


@agent("scripted", title="Scripted", version="1", threshold=0.8)
def scripted(run: Handle, order: Order) -> Answer:
    """Does what the test has put into SCRIPT."""
    return Answer(said=str(SCRIPT["supervisor"](run)))


@pytest.fixture(autouse=True)
def blank(people: dict[str, User]) -> None:
    SCRIPT.clear()
    EFFECTS.clear()


def started(supervisor: Callable[[Handle], Any]) -> Run:
    SCRIPT["supervisor"] = supervisor
    return commands.start("scripted", {"text": "hello"}, by="operator")


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    return run


def decided(run: Run, kind: str, **more: Any) -> Run:
    review = Review.objects.open().get(run=run)
    actor = User.objects.get(username="reviewer")
    decisions.decide(review.pk, actor=actor, kind=kind, seen=review.fingerprint, reason="because", **more)
    return advanced(run)


def again(run: Run) -> Run:
    commands.retry(run.pk, by="operator")
    return advanced(run)


def killed_in(run: Run, *drafts: Draft) -> None:
    """A process took the run, wrote the drafts and died."""
    taken = event_log.take(run.pk, owner="killed")
    assert taken is not None
    log, opening = taken
    log.append(opening, *drafts)
    Run.objects.filter(pk=run.pk).update(lease_until=event_log.now())


def kinds(run: Run) -> list[str]:
    return [fact.kind for fact in event_log.facts(run.pk)]


def why(run: Run) -> str:
    return Review.objects.open().get(run=run).why


def one_step(worker_: Any) -> Callable[[Handle], Any]:
    return lambda run: run.step("one", worker_, text="x")


def raises(error: BaseException) -> Any:
    raise error
