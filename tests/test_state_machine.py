"""Runs against a model of them: whatever is commanded in whatever order, rows and events are what the model says.

The suite tries the same few hundred sequences of commands each time. The full form tries others, and more of them, on two
processors: AGENTOPS_EXAMPLES=10000 python -m pytest tests/test_state_machine.py -n 2
"""

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from reviews import decisions
from reviews.models import Review
from runs import audit, children, commands, event_log, executor
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import cast
from tests.model_state import OUTCOMES, UNDO, Part, Script, Universe
from tests.modelled import moment, mortal, world  # noqa: F401 - the fixture is asked for by its name
from tests.run_model import Model

EXAMPLES = int(os.environ.get("AGENTOPS_EXAMPLES", "0"))
SUITE_EXAMPLES = 200
SHARES = 40 if EXAMPLES else 1
COMMANDS = 12
MOST_RUNS = 6

SINGLE = ["plain", "judged", "once", "spare", "dispensable", "gated", "question", "urgent", "sleep"]
single = st.builds(Part, st.sampled_from(SINGLE), st.booleans())
side_by_side = st.lists(st.sampled_from(SINGLE[:-1]), min_size=2, max_size=3).map(tuple)
gathered = st.builds(Part, st.just("gather"), st.booleans(), side_by_side)
small_plans = st.lists(st.lists(single, min_size=1, max_size=2).map(tuple), min_size=1, max_size=2).map(tuple)
delegated = st.builds(
    lambda plans, between: [Part("spawn", plans=plans), *between, Part("join")], small_plans, st.lists(single, max_size=1)
)
alone = st.one_of(single, gathered).map(lambda part: [part])
plans = st.lists(st.one_of(alone, delegated), min_size=1, max_size=3).map(lambda some: tuple(itertools.chain(*some)))
EVEN = 120  # numbers of so small a range are drawn evenly
even = st.integers(0, EVEN - 1)
happenings = st.tuples(*[st.sampled_from(["done"] * len(OUTCOMES) + OUTCOMES)] * 4)


class Commands(RuleBasedStateMachine):
    """Each example is one run with its children and forks; each step of it one command, given to the run and to the model."""

    @initialize(plan=plans)
    def start(self, plan: tuple[Part, ...]) -> None:
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.universe = Universe()
        world.begin(self.universe, cast_reviewer())
        Model(self.universe, plan)
        run = commands.start("modelled", as_input(plan), by="operator")
        self.first = run.pk
        self.due = Run.objects.due().filter(pk__gte=run.pk).order_by("pk").values_list("pk").query.sql_with_params()
        self.cursors: dict[int, int] = {}
        self.decided: list[Review] = []

    def teardown(self) -> None:
        if hasattr(self, "transaction"):
            transaction.set_rollback(True)
            with suppress(Exception):
                self.transaction.__exit__(None, None, None)

    @rule(which=even, pick=even, outcomes=happenings)
    def command(self, which: int, pick: int, outcomes: tuple[str, ...]) -> None:
        """One of the commands that mean something now; one rule, so that each has the weight that is written here."""
        self.universe.clock += 1.0
        if which % 3 and not any(model.is_due() or model.may_be_decided() or model.may_undo() for model in self.universe.runs):
            self.pass_time()
        world.set_clock(self.universe.clock)
        self.pick, self.script = pick, partial(Script, outcomes, pick)
        possible = [command for command, weight in self.weights() for _ in range(weight)]
        possible[which * len(possible) // EVEN]()

    def weights(self) -> Iterator[tuple[Callable[[], None], int]]:
        yield self.pass_time, 2
        yield self.change_code, 6 if self.code_is_changed() else 1
        yield self.sweep, 12 if any(model.is_orphaned() for model in self.universe.runs) else 1
        for model in self.universe.runs:
            yield partial(self.advance, model), 16 * model.is_due()
            yield partial(self.decide, model), 16 * bool(model.may_be_decided())
            yield partial(self.undo, model), 3 * bool(model.may_undo())
            yield partial(self.cancel, model), model.may_cancel() and not model.written.cancel_requested
            yield partial(self.retry, model), 6 * model.may_retry()
            yield partial(self.fork, model), bool(model.may_fork()) and len(self.universe.runs) < MOST_RUNS
            yield partial(self.take_and_die, model), model.is_due()
            yield partial(self.write_as_one_that_was_thought_dead, model), bool(self.stale_logs(model))
            yield partial(self.come_at_the_wrong_time, model), 1

    def code_is_changed(self) -> bool:
        return bool(self.universe.renamed or self.universe.parts is not None)

    # --- processes, the sweeper, time, and a deploy ---------------------------------------------------------------------

    def advance(self, model: Model) -> None:
        world.script = self.script()
        world.advance(model.id)
        model.advance(self.script())
        assert world.clock == self.universe.clock

    def take_and_die(self, model: Model) -> None:
        assert event_log.take(model.id, owner=world.process()) is not None
        model.take()

    def write_as_one_that_was_thought_dead(self, model: Model) -> None:
        logs = self.stale_logs(model)
        with pytest.raises(event_log.LeaseLost):
            logs[self.pick % len(logs)].append(Draft(Kind.RUN_SUCCEEDED, {"output": "stale"}), release=True)

    def stale_logs(self, model: Model) -> list[event_log.RunLog]:
        free = model.lease_until == float("-inf")
        return [log for log in world.logs if log.run_id == model.id and (free or log.fence != model.fence)]

    def sweep(self) -> None:
        orphans = [model for model in self.universe.runs if model.is_orphaned()]
        assert children.cancel_orphans(100) == len(orphans)
        for model in orphans:
            model.cancel()

    def pass_time(self) -> None:
        """To the next moment at which something happens by itself."""
        moments = [time for model in self.universe.runs for time in model.times()]
        self.universe.clock = min(moments, default=self.universe.clock)
        world.set_clock(self.universe.clock)

    def change_code(self) -> None:
        """The steps of one part get another name, or the code ends early; or it is again as it was."""
        kind, part = divmod(self.pick, 4)
        if self.code_is_changed():
            self.universe.renamed, self.universe.parts = 0, None
        elif kind % 3:
            self.universe.renamed = part + 1
        else:
            self.universe.parts = part

    # --- people -------------------------------------------------------------------------------------------------------

    def decide(self, model: Model) -> None:
        steps = model.may_be_decided()
        step = steps[self.pick % len(steps)]
        kinds = step.allowed
        kind = kinds[self.pick // len(steps) % len(kinds)]
        review = Review.objects.open().get(run_id=model.id, position=step.position)
        if kind == "fork" and step.position not in model.may_fork():
            with pytest.raises(commands.Refused):
                world.decide(review, kind, None)
            return
        fork = model.forked(step.position) if kind == "fork" else None
        undo = UNDO if self.pick % 5 < 2 and step.cause != "code_changed" else 0.0
        value, word = model.decide(step.position, kind, undo)
        world.decide(review, kind, {"text": word} if kind == "answer" else value, undo)
        assert fork is None or fork in self.universe.runs
        self.decided.append(review)

    def undo(self, model: Model) -> None:
        steps = model.may_undo()
        step = steps[self.pick % len(steps)]
        review = Review.objects.filter(run_id=model.id, position=step.position, state="decided").latest("pk")
        decisions.undo(review.pk, actor=cast_reviewer())
        model.undo(step.position)
        self.decided.remove(review)

    def cancel(self, model: Model) -> None:
        commands.cancel(model.id, by="operator")
        model.cancel()

    def retry(self, model: Model) -> None:
        commands.retry(model.id, by="operator")
        model.retry()

    def fork(self, model: Model) -> None:
        positions = model.may_fork()
        position = positions[self.pick % len(positions)]
        commands.fork(model.id, step=position, by="operator")
        model.forked(position)

    def come_at_the_wrong_time(self, model: Model) -> None:
        """A job delivered twice or too early, and people whom others were faster than, change nothing."""
        if not model.is_due():
            executor.advance(model.id, owner="too early")
        if not model.may_retry():
            with pytest.raises(commands.Refused):
                commands.retry(model.id, by="operator")
        if not model.may_cancel():
            with pytest.raises(commands.Refused):
                commands.cancel(model.id, by="operator")
        with pytest.raises(commands.Refused):
            commands.fork(model.id, step=max(model.may_fork(), default=0) + 9, by="operator")
        for review in self.decided[-1:]:
            assert review.decision
            with pytest.raises(decisions.Conflict):
                world.decide(review, "approve" if review.decision.kind == "reject" else "reject", None)

    # --- what must hold after each --------------------------------------------------------------------------------------

    @invariant()
    def rows_are_what_events_and_model_say(self) -> None:
        """Every run, with its steps and what people are asked about it."""
        runs, rows = self.universe.runs, query(ROWS, [self.first])
        for model, (run_id, *_) in zip(runs, rows, strict=True):
            model.id = run_id
        assert [as_found(row) for row in rows] == [as_modelled(model) for model in runs]
        assert query(*self.due) == [(model.id,) for model in runs if model.is_due()]
        assert world.ledger == self.universe.ledger
        cursors = {run_id: last_seq for run_id, last_seq, *_ in rows}
        if changed := sorted(run_id for run_id, last_seq in cursors.items() if self.cursors.get(run_id) != last_seq):
            found = audit.audit(connection.connection, audit.Part(changed[0], changed[-1], 0))
            assert (found.wrong, found.run_id) == ("", None)
            assert query(AFTER_AN_END, changed[:1]) == [], "nothing follows an ending but a retry"
        self.cursors = cursors


ROWS = """
SELECT id, last_seq, status, waiting_cause, waiting_step, wake_at, coalesce(waiting_runs, '{}'), cancel_requested, parent_id,
  forked_from_id, lease_until, fence, output::text,
  (SELECT jsonb_agg(jsonb_build_array(position, name, status, attempt) ORDER BY position) FROM runs_step
    WHERE run_id = run.id)::text,
  (SELECT jsonb_agg(jsonb_build_array(position, cause) ORDER BY position) FROM reviews_review
    WHERE run_id = run.id AND state = 'open')::text
FROM runs_run AS run WHERE id >= %s ORDER BY id
"""
AFTER_AN_END = """
SELECT * FROM (
  SELECT run_id, seq, kind, lag(kind) OVER (PARTITION BY run_id ORDER BY seq) AS before FROM runs_event WHERE run_id >= %s
) AS following WHERE before IN ('RunSucceeded', 'RunFailed', 'RunCancelled') AND kind <> 'RunRetried'
"""


def query(statement: str, values: Sequence[Any]) -> list[Any]:
    """As the server prepares it, once."""
    return psycopg.Cursor(connection.connection).execute(statement, values).fetchall()


def as_found(row: Any) -> Any:
    run_id, _, *columns, output, steps, reviews = row
    return run_id, *columns, json.loads(output or "null"), json.loads(steps or "[]"), json.loads(reviews or "[]")


def as_modelled(model: Model) -> Any:
    """The same of the model."""
    state = model.written
    wakes = None if state.wake_at is None else moment(state.wake_at)
    until = None if model.lease_until == float("-inf") else moment(model.lease_until)
    waits_for = [child.id for child in reversed(state.waits_for)]
    parent, original = model.parent and model.parent.id, model.original and model.original.id
    output = {"words": model.words} if state.status in ("succeeded", "partial") else None
    steps = [[step.position, step.name, step.status, step.attempt] for step in state.recorded()]
    asked = [[step.position, step.cause] for step in state.asked()]
    return (
        model.id, state.status, state.cause, state.waiting_step, wakes, waits_for, state.cancel_requested, parent, original,
        until, model.fence, output, steps, asked,
    )  # fmt: skip


def as_input(plan: tuple[Part, ...]) -> dict[str, Any]:
    said = [(part, [as_input(one) for one in part.plans]) for part in plan]
    parts = [{"kind": p.kind, "forgiven": p.forgiven, "members": p.members, "plans": plans} for p, plans in said]
    return {"parts": parts}


@functools.cache
def cast_reviewer() -> User:
    return cast.people()["reviewer"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_is_commanded_rows_and_events_are_what_the_model_says(share: int) -> None:
    cast_reviewer.cache_clear()  # each share has a database that was emptied
    cast_reviewer()
    commands.configuration("modelled")
    form = settings(
        max_examples=-(-EXAMPLES // SHARES) or SUITE_EXAMPLES,
        stateful_step_count=COMMANDS,
        derandomize=not EXAMPLES,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Commands, settings=form)
