"""An agent that performs a plan, workers to whom things happen, and a database whose clock stands still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from pydantic import BaseModel

from reviews import decisions
from reviews.models import Review
from runs import attempts, audit, commands, dispatch, event_log, executor, parallel, steps
from runs.engine.events import Draft
from runs.keeper import CutOff
from runs.sdk import AskHuman, Expired, GiveUp, Rejected, Result, TryLater, agent, ask_human, call, current_step, skip, worker
from runs.sdk import Run as Handle
from tests.model_state import ATTEMPTS, BY_HAND, LEASE, LONG, MOST_THREADS, NAP, SHORT, WITHIN, WITHOUT, Script, Universe

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = """
CREATE SCHEMA IF NOT EXISTS standing;
CREATE OR REPLACE FUNCTION standing.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
  AS $$ SELECT current_setting('standing.clock')::timestamptz $$;
CREATE OR REPLACE FUNCTION standing.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
  AS $$ SELECT current_setting('standing.clock')::timestamptz $$;
SET search_path = standing, public, pg_catalog;
SET plan_cache_mode = force_generic_plan;
"""
BACK = "RESET search_path; RESET plan_cache_mode; DROP SCHEMA standing CASCADE;"


class Killed(BaseException):
    """The process ends here: nothing of the engine may catch it."""


class World:
    """What the workers find outside: the time, what is to happen to them, and a ledger of what they did."""

    def __init__(self, universe: Universe, reviewer: User | None = None) -> None:
        self.universe = universe  # for the code as it is now; its clock and its ledger are the model's
        self.reviewer = reviewer
        self.clock = 0.0
        self.script = Script()
        self.dies_at_write = ""  # "before" or "after" the next append
        self.ledger: list[tuple[int, str, int]] = []
        self.logs: list[event_log.RunLog] = []  # of every process that took a run
        self.processes = 0

    def begin(self, universe: Universe, reviewer: User) -> None:
        """Another world in the place of this."""
        self.__init__(universe, reviewer)  # type: ignore[misc]
        self.set_clock(0.0)

    def set_clock(self, clock: float) -> None:
        self.clock = clock
        connection.ensure_connection()
        psycopg.Cursor(connection.connection).execute("SELECT set_config('standing.clock', %s, false)", [str(self.now())])

    def now(self) -> datetime:
        return moment(self.clock)

    def sleep(self, seconds: float) -> None:
        self.set_clock(self.clock + seconds)

    def advance(self, run_id: int) -> None:
        """A process takes the run, and carries it until it leaves it or dies."""
        with suppress(Killed):
            executor.advance(run_id, owner=self.process())
        self.dies_at_write = ""
        executor.hand_over.clear()

    def process(self) -> str:
        self.processes += 1
        return f"process-{self.processes}"

    def work(self, number: int) -> Result[str]:
        step = current_step()
        run_id, name = step.key.split(":")
        self.ledger.append((int(run_id), name, step.attempt))
        said = self.script.next()
        if said in RAISED:
            raise RAISED[said]()
        if said in ("killed unwritten", "killed unanswered"):
            self.dies_at_write = "before" if said == "killed unwritten" else "after"
        if said == "cancelled":
            commands.cancel(int(run_id), by="operator")
        if said == "stopped":
            executor.hand_over.set()
        if said == "decided" and (review := undecided(int(run_id)).first()):
            self.decide(review, review.allowed[0], BY_HAND if review.cause != "question" else {"text": BY_HAND})
        if said == "taken over":
            executor.hand_over.clear()  # another process is asked nothing
            self.set_clock(self.clock + LEASE + 1)
            self.advance(int(run_id))
        return Result(f"done {number}", 0.1 if said == "unsure" else 0.9)

    def decide(self, review: Review, kind: str, value: Any, undo: float = 0.0) -> None:
        carried = {"value": value} if kind in decisions.CARRIES_VALUE else {}
        assert self.reviewer
        # whoever decides "fork" has started the fork, and may not approve there what is of high risk
        actor = User.objects.get(username="operator") if kind == "fork" else self.reviewer
        said = {"kind": kind, "seen": review.fingerprint, "reason": "because", "undo_seconds": undo} | carried
        decisions.decide(review.pk, actor=actor, **said)


def moment(clock: float) -> datetime:
    return EPOCH + timedelta(seconds=clock)


def undecided(run_id: int) -> Any:
    """The open reviews whose time has not run out, as they come in the run."""
    late = [step.position for step in event_log.state(run_id).steps.values() if step.deadline and step.deadline <= world.now()]
    return Review.objects.open().filter(run_id=run_id).exclude(position__in=late).order_by("position")


RAISED: dict[str, Any] = {
    "again": lambda: TryLater("busy"),
    "soon": lambda: TryLater("busy", retry_after=SHORT),
    "far": lambda: TryLater("busy", retry_after=LONG),
    "not yet": lambda: TryLater(SHORT),
    "later": lambda: TryLater(LONG),
    "gave up": lambda: GiveUp("gone"),
    "asked": lambda: AskHuman("look at this"),
    "unknown": lambda: ValueError("odd"),
    "overran": CutOff,
    "killed": Killed,
}
world = World(Universe())


class Word(BaseModel):
    text: str


class Place(BaseModel):
    """A part of a plan."""

    kind: str
    forgiven: bool = False
    members: list[str] = []
    plans: "list[Plan]" = []


class Plan(BaseModel):
    parts: list[Place]


class Words(BaseModel):
    words: list[str]


@worker(attempts=ATTEMPTS)
def plain(number: int) -> str:
    return world.work(number).value


@worker(attempts=ATTEMPTS)
def judged(number: int) -> Result[str]:
    return world.work(number)


@worker(effect="once", attempts=ATTEMPTS)
def once(number: int) -> str:
    return world.work(number).value


@worker(attempts=ATTEMPTS, critical=True, fallback=plain)
def spare(number: int) -> str:
    return world.work(number).value


@worker(attempts=ATTEMPTS, critical=True, fallback=skip("It is left out.", value=WITHOUT))
def dispensable(number: int) -> str:
    return world.work(number).value


WORKERS: dict[str, Any] = {
    "plain": plain,
    "judged": judged,
    "once": once,
    "spare": spare,
    "dispensable": dispensable,
    "gated": plain.gated("It is asked."),
    "question": ask_human(Word),
    "urgent": ask_human(Word, within=WITHIN),
}


@agent("modelled", title="Modelled", version="1", threshold=0.5)
def modelled(run: Handle, plan: Plan) -> Words:
    """Performs its plan as far as the code goes; a refused step ends it unless it is forgiven."""
    words = []
    for number, part in enumerate(plan.parts[: world.universe.parts], start=1):
        try:
            words.append(perform(run, number, part))
        except (Rejected, Expired) as refused:
            if not part.forgiven:
                raise
            words.append(type(refused).__name__.lower())
    return Words(words=words)


def perform(run: Handle, number: int, part: Place) -> str:
    name = world.universe.name(number)
    if part.kind == "sleep":
        run.sleep(name, NAP)
        return "slept"
    if part.kind == "spawn":
        run.spawn_many(name, modelled, part.plans)
        return "started"
    if part.kind == "join":
        return " ".join(outcome.status for outcome in run.join(name=name))
    if part.kind == "gather":
        calls = [call(f"{name}_{place}", WORKERS[kind], **given(kind, number)) for place, kind in enumerate(part.members)]
        return " ".join(map(spoken, run.gather(*calls)))
    return spoken(run.step(name, WORKERS[part.kind], **given(part.kind, number)))


def given(kind: str, number: int) -> dict[str, Any]:
    return {"question": "Which word?"} if kind in ("question", "urgent") else {"number": number}


def spoken(result: Any) -> str:
    return result.text if isinstance(result, Word) else str(result)


# --- instead of what the machine would do at times of its own -------------------------------------------------------


class Task:
    """What a thread has been given to do."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work, self.answer = work, None

    def end(self) -> None:
        self.answer = self.work()

    def result(self) -> Any:
        return self.answer


class Threads:
    """A pool whose threads come to their ends one by one, in the order that the script chooses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, function: Any, *args: Any) -> Task:
        return Task(partial(function, *args))


def wait(working: dict[Task, int], *how: object) -> SimpleNamespace:
    """For the next of them."""
    task = list(working)[world.script.choose(len(working))]
    task.end()
    return SimpleNamespace(done=[task])


@contextmanager
def standing_clock() -> Iterator[None]:
    """The database knows no time but the world's, and plans each statement once."""
    with connection.cursor() as cursor:
        cursor.execute(CLOCK)
    connection.connection.prepare_threshold = 1
    yield
    with connection.cursor() as cursor:
        cursor.execute(BACK)
    connection.close()


@pytest.fixture
def mortal(transactional_db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Processes that can die on either side of a write; no jitter, no doorbell, nothing that hangs on the machine's speed."""
    append, take = event_log.RunLog.append, event_log.take

    def dying_append(log: event_log.RunLog, *drafts: Draft, **more: Any) -> None:
        dies, world.dies_at_write = world.dies_at_write, ""
        if dies == "before":
            raise Killed
        append(log, *drafts, **more)
        if dies == "after":
            raise Killed

    def remembered_take(run_id: int, *, owner: str) -> Any:
        if taken := take(run_id, owner=owner):
            world.logs.append(event_log.RunLog(run_id, taken[0].state, taken[0].fence))
        return taken

    settings.LEASE_SECONDS, settings.GATHER_THREADS = LEASE, MOST_THREADS
    monkeypatch.setattr(event_log.RunLog, "append", dying_append)
    monkeypatch.setattr(event_log, "take", remembered_take)
    monkeypatch.setattr(event_log, "now", lambda: world.now())
    monkeypatch.setattr(attempts, "random", SimpleNamespace(random=lambda: 0.0))
    monkeypatch.setattr(dispatch, "enqueue_now", lambda calls: True)
    slow = SimpleNamespace(sleep=lambda seconds: world.sleep(seconds), monotonic=time.monotonic)
    for module in (steps, parallel):
        monkeypatch.setattr(module, "time", slow)
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Threads)
    monkeypatch.setattr(parallel, "wait", wait)
    monkeypatch.setattr(parallel, "connections", SimpleNamespace(close_all=lambda: None))
    monkeypatch.setattr(audit, "_stream", lambda database, statement, within: iter(audit._rows(database, statement, within)))
    with standing_clock():
        yield
