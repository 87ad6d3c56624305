"""A run against a model of it: whatever is commanded in whatever order, rows and events are what the model says.

The suite tries the same 150 sequences of commands each time. The full form tries others, and more of them, on all processors:
AGENTOPS_EXAMPLES=10000 python -m pytest tests/test_state_machine.py -n auto
"""

import collections
import functools
import os
import time
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pydantic import BaseModel

from reviews import decisions
from reviews.models import Review
from runs import attempts, audit, commands, event_log, executor
from runs.engine import outcome
from runs.engine.events import Draft, Kind
from runs.models import Run
from runs.sdk import AskHuman, GiveUp, Rejected, Result, TryLater, agent, ask_human, current_step, worker
from runs.sdk import Run as Handle
from tests import cast
from tests.run_model import ATTEMPTS, ENDED, OUTCOMES, Model, Part

EXAMPLES = int(os.environ.get("AGENTOPS_EXAMPLES", "0"))
SUITE_EXAMPLES = 150
SHARES = 8 if EXAMPLES else 1
COMMANDS = 15
SOON_SECONDS, FAR_SECONDS = 0.001, 3600.0
TERMINAL = {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED}


class Killed(BaseException):
    """The process ends here: nothing of the engine may catch it."""


class World:
    """What the workers find outside: what is to happen to them, and a ledger of what they did."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.dies_at_write = ""  # "before" or "after" the next append
        self.ledger: list[tuple[str, int]] = []
        self.logs: list[event_log.RunLog] = []  # of every process that took a run
        self.run_id = 0

    def work(self, number: int) -> Result[str]:
        step = current_step()
        self.ledger.append((step.key.split(":")[1], step.attempt))
        said = self.outcomes.pop(0) if self.outcomes else "done"
        if said in RAISED:
            raise RAISED[said]()
        if said in ("killed unwritten", "killed unanswered"):
            self.dies_at_write = "before" if said == "killed unwritten" else "after"
        if said == "cancelled":
            commands.cancel(self.run_id, by="operator")
        if said == "stopped":
            executor.hand_over.set()
        return Result(f"done {number}", 0.1 if said == "unsure" else 0.9)


RAISED: dict[str, Any] = {
    "again": lambda: TryLater("busy"),
    "soon": lambda: TryLater("busy", retry_after=SOON_SECONDS),
    "far": lambda: TryLater("busy", retry_after=FAR_SECONDS),
    "gave up": lambda: GiveUp("gone"),
    "asked": lambda: AskHuman("look at this"),
    "unknown": lambda: ValueError("odd"),
    "killed": Killed,
}
world = World()


class Word(BaseModel):
    text: str


class Plan(BaseModel):
    kinds: list[str]
    forgiven: list[bool]


class Words(BaseModel):
    words: list[str]


@worker(attempts=ATTEMPTS)
def plain(number: int) -> str:
    return world.work(number).value


@worker(attempts=ATTEMPTS)
def judged(number: int) -> Result[str]:
    return world.work(number)


@worker(effect="once")
def once(number: int) -> str:
    return world.work(number).value


@worker(attempts=ATTEMPTS, critical=True, fallback=plain)
def spare(number: int) -> str:
    return world.work(number).value


WORKERS: dict[str, Any] = {"plain": plain, "judged": judged, "once": once, "spare": spare, "gated": plain.gated("It is asked.")}


@agent("modelled", title="Modelled", version="1", threshold=0.5)
def modelled(run: Handle, plan: Plan) -> Words:
    """Performs its plan; a rejected step ends it unless it is forgiven."""
    words = []
    for number, (kind, forgiven) in enumerate(zip(plan.kinds, plan.forgiven, strict=True), start=1):
        try:
            if kind == "question":
                words.append(run.step(f"step_{number}", ask_human(Word), question="Which word?").text)
            else:
                words.append(run.step(f"step_{number}", WORKERS[kind], number=number))
        except Rejected:
            if not forgiven:
                raise
            words.append("rejected")
    return Words(words=words)


class Commands(RuleBasedStateMachine):
    """Each example is one run; each step of it one command, given to the run and to the model."""

    @initialize(parts=st.lists(st.builds(Part, st.sampled_from([*WORKERS, "question"]), st.booleans()), min_size=1, max_size=4))
    def start(self, parts: list[Part]) -> None:
        world.__init__()  # type: ignore[misc]
        self.model = Model(parts)
        given = {"kinds": [part.kind for part in parts], "forgiven": [part.forgiven for part in parts]}
        self.go_on_with(commands.start("modelled", given, by="operator").pk)

    def go_on_with(self, run_id: int) -> None:
        world.ledger, world.logs = [], []
        self.run_id = world.run_id = run_id
        self.row = Run(pk=run_id)  # as it was last looked at
        self.recorded: set[str] = set()
        self.review: Review | None = None  # the last one that was decided

    @rule(pick=st.integers(0, 2519), outcomes=st.lists(st.sampled_from(["done"] * 5 + OUTCOMES), max_size=6))
    def command(self, pick: int, outcomes: list[str]) -> None:
        """One of the commands that mean something now; one rule, so that each has the weight that is written here."""
        model = self.model
        weights = {
            self.advance: 5 * model.is_due(),
            self.decide: 8 * (model.status == "waiting"),
            self.lose_the_lease: 4 * model.held,
            self.cancel: model.may_cancel() and not model.cancel_requested,
            self.retry: 4 * model.may_retry(),
            self.fork: bool(model.may_fork()),
            self.take_and_die: model.is_due(),
            self.write_as_one_that_was_thought_dead: bool(self.stale_logs()),
            self.come_at_the_wrong_time: True,
        }
        possible = [command for command, weight in weights.items() for _ in range(weight)]
        self.pick, self.outcomes = pick, outcomes
        possible[pick % len(possible)]()

    # --- a job process ------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        self.await_the_next_attempt()
        world.outcomes, before = list(self.outcomes), len(world.ledger)
        with suppress(Killed):
            executor.advance(self.run_id, owner="test")
        world.dies_at_write = ""
        executor.hand_over.clear()
        executed = {name for name, _ in world.ledger[before:]}
        assert not executed & self.recorded, "a step with a recorded success was executed again"
        self.model.advance(list(self.outcomes))

    def take_and_die(self) -> None:
        self.await_the_next_attempt()
        assert event_log.take(self.run_id, owner="killed at once") is not None
        self.model.held = True

    def lose_the_lease(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE runs_run SET lease_until = clock_timestamp() - interval '1 s' WHERE id = %s", [self.run_id])
        self.model.held = False

    def write_as_one_that_was_thought_dead(self) -> None:
        logs = self.stale_logs()
        with pytest.raises(event_log.LeaseLost):
            logs[self.pick % len(logs)].append(Draft(Kind.RUN_SUCCEEDED, {"output": "stale"}), release=True)

    def await_the_next_attempt(self) -> None:
        time.sleep(2 * SOON_SECONDS if self.model.status == "retrying" else 0)

    # --- people -------------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        self.review = Review.objects.open().get(run_id=self.run_id)
        kind = self.review.allowed[self.pick % len(self.review.allowed)]
        value, word = self.model.decide(kind)
        self.put(kind, {"text": word} if kind == "answer" else value)

    def put(self, kind: str, value: Any) -> None:
        carried = {"value": value} if kind in decisions.CARRIES_VALUE else {}
        decisions.decide(self.review.pk, actor=reviewer(), kind=kind, seen=self.review.fingerprint, reason="because", **carried)

    def cancel(self) -> None:
        commands.cancel(self.run_id, by="operator")
        self.model.cancel()

    def retry(self) -> None:
        commands.retry(self.run_id, by="operator")
        self.model.retry()

    def fork(self) -> None:
        """Then the fork is the run to go on with; its original stays as it is."""
        position, original = self.pick % len(self.model.may_fork()) + 1, self.run_id
        self.go_on_with(commands.fork(original, step=position, by="operator").pk)
        self.model = self.model.forked(position)
        assert Run.objects.get(pk=original).last_seq == len(event_log.facts(original))
        assert audit.first_wrong(original) == ""

    def come_at_the_wrong_time(self) -> None:
        """A job delivered twice or too early, and people whom others were faster than, change nothing."""
        if not self.model.is_due():
            executor.advance(self.run_id, owner="too early")
        if not self.model.may_retry():
            with pytest.raises(commands.Refused):
                commands.retry(self.run_id, by="operator")
        if not self.model.may_cancel():
            with pytest.raises(commands.Refused):
                commands.cancel(self.run_id, by="operator")
        with pytest.raises(commands.Refused):
            commands.fork(self.run_id, step=len(self.model.may_fork()) + 2, by="operator")
        if self.review is not None:
            with pytest.raises(decisions.Conflict):
                self.put("reject", None)

    # --- what must hold after each --------------------------------------------------------------------------------------

    def stale_logs(self) -> list[event_log.RunLog]:
        return [log for log in world.logs if log.fence != self.row.fence or self.row.lease_until is None]

    @invariant()
    def rows_are_what_events_and_model_say(self) -> None:
        before, self.row = self.row, Run.objects.get(pk=self.run_id)
        if self.row.last_seq == before.last_seq:  # nothing was written
            assert self.row.status == self.model.status
            return
        assert audit.first_wrong(self.run_id) == ""
        steps = list(self.row.steps.order_by("position").values_list("name", "status"))
        assert (self.row.status, [status for _, status in steps]) == (self.model.status, self.model.step_statuses())
        assert collections.Counter(name for name, _ in world.ledger) == self.model.executions()
        assert len(set(world.ledger)) == len(world.ledger), "an attempt has one number"
        assert self.row.status != "succeeded" or self.row.output == {"words": self.model.words()}
        assert self.row.lease_until is None or self.row.status not in ("waiting", *ENDED), "nobody owns what waits or has ended"
        self.recorded = {name for name, status in steps if status == "succeeded"}
        self.open_reviews_are_the_steps_that_wait()
        self.nothing_follows_an_ending_but_a_retry()

    def open_reviews_are_the_steps_that_wait(self) -> None:
        found = list(Review.objects.open().filter(run=self.run_id).values_list("position", "cause"))
        waits = self.row.status == "waiting"
        assert found == ([(self.row.waiting_step, self.model.waiting_cause())] if waits else [])

    def nothing_follows_an_ending_but_a_retry(self) -> None:
        kinds = list(event_log.rows(self.run_id).values_list("kind", flat=True))
        for earlier, later in pairwise(kinds):
            assert earlier not in TERMINAL or later == Kind.RUN_RETRIED, (earlier, later)
        endings = sum(kind in TERMINAL for kind in kinds)
        assert endings - kinds.count(Kind.RUN_RETRIED) == (self.row.status in ENDED)


@functools.cache
def reviewer() -> User:
    return cast.people()["reviewer"]


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that can die on either side of a write, no jitter, and waits that a test can wait for."""
    reviewer.cache_clear()  # each share has a database that was emptied
    append, take = event_log.RunLog.append, event_log.take

    def dying_append(log: event_log.RunLog, *drafts: Draft, release: bool = False, **more: Any) -> None:
        dies, world.dies_at_write = world.dies_at_write, ""
        if dies == "before":
            raise Killed
        append(log, *drafts, release=release, **more)
        if dies == "after":
            raise Killed

    def remembered_take(run_id: int, *, owner: str) -> Any:
        taken = take(run_id, owner=owner)
        if taken:
            world.logs.append(event_log.RunLog(run_id, taken[0].state, taken[0].fence))
        return taken

    monkeypatch.setattr(event_log.RunLog, "append", dying_append)
    monkeypatch.setattr(event_log, "take", remembered_take)
    monkeypatch.setattr(attempts, "random", SimpleNamespace(random=lambda: 0.0))
    monkeypatch.setattr(outcome, "SHORT_WAIT_SECONDS", 0.0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_is_commanded_rows_and_events_are_what_the_model_says(share: int) -> None:
    form = settings(
        max_examples=-(-EXAMPLES // SHARES) or SUITE_EXAMPLES,
        stateful_step_count=COMMANDS,
        derandomize=not EXAMPLES,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Commands, settings=form)  # type: ignore[no-untyped-call]
