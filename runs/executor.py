"""Carries one run as far as it can go: takes the lease, calls the supervisor, which replays what is recorded, and ends it."""

import time
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from django.db import DataError, IntegrityError

from runs import children, escalations, event_log, keeper, parallel, sdk
from runs.answers import AnyWorker
from runs.engine.canonical import stored
from runs.engine.events import Draft, Kind
from runs.engine.outcome import ALONE_AFTER, MOST_CRASHES, Ending, crashed, how_ended
from runs.engine.state import Status
from runs.passes import has_come
from runs.steps import Interrupted, Steps, Stopped, hand_over
from runs.values import supervising

__all__ = ["Interrupted", "Steps", "Stopped", "advance", "carry_alone", "hand_over"]
logger = structlog.get_logger()


LOOK = "Look at what its supervisor does between two steps, then retry the run."
MOST_TAKINGS = 10  # one after the other that write nothing: what ends a process outside a step must not do so for ever

# How a job process carries a run in a process of its own: by run and fence, with its end as the result (runs/alone.py).
# Elsewhere a step that has crashed is simply tried again.
alone: Callable[[int, int], Ending | None] | None = None


def advance(run_id: int, *, owner: str) -> None:
    """Carry the run on, if it is due and nobody else does. Everything that happens is in its events.

    Raises the database's error when it cannot be reached: the lease then runs out, and another process takes over.
    """
    asked = time.monotonic()
    if taken := event_log.take(run_id, owner=owner):
        log, opening = taken
        with keeper.kept(run_id, log.fence, asked) as held:
            _expire(log)
            _carry_to_the_end(_steps(log, opening, held=held))


def carry_alone(run_id: int, *, fence: int) -> None:
    """Carry on a run whose lease the parent of this process has."""
    asked = time.monotonic()
    log = event_log.RunLog.load(run_id, fence=fence)
    with keeper.kept(run_id, fence, asked) as held:
        _carry_to_the_end(Steps(log, held=held, at_once=True))


def _steps(log: event_log.RunLog, *opening: Draft, held: keeper.Held, ending: Ending | None = None) -> Steps:
    return Steps(log, *opening, held=held, ending=ending, offers_process=alone is not None)


def _carry_to_the_end(steps: Steps) -> None:
    """In this process, but for a step that has ended processes before."""
    with structlog.contextvars.bound_contextvars(run=steps.log.run_id):
        try:
            left: Steps | None = steps
            while left:
                left = _carried_alone(left) if _carry_until_stopped(left).needs_process is not None else None
        except event_log.LeaseLost:
            return
        except Interrupted as interrupted:
            if not isinstance(interrupted.__cause__, event_log.LeaseLost):
                raise interrupted.__cause__ or interrupted from None
            logger.warning("lease_lost", reason=str(interrupted.__cause__))


def _carry_until_stopped(steps: Steps) -> Steps:
    with suppress(Stopped):
        _carry(steps)
    children.ring_parent(steps.log.state)
    return steps


def _carried_alone(steps: Steps) -> Steps | None:
    """What is left to do here once a process of its own has carried the run on."""
    position, before = steps.needs_process or 0, _attempts(steps.log)
    in_vain, seq = 0, 0
    while in_vain < MOST_CRASHES:
        left, ending = _with_process(steps)
        state = left.log.state
        in_vain, seq = in_vain + 1 if state.seq == seq else 1, state.seq
        if ending is None:
            with suppress(Stopped):
                left.wait_for_room(position)
            return None
        if state.status != Status.RUNNING or left.held.lost:
            return None
        last = ending
        if hand_over.is_set() or state.cancel_requested or any(step.status == Status.RUNNING for step in state.steps.values()):
            return left
        if position and _attempts(left.log) == before:
            early = ending._replace(reason=f"before it came to the step, {ending.reason}")
            left.record(crashed(position, state.steps[position].attempt, early))
            return left
    told = f"The process of this run ended {MOST_CRASHES} times between two steps, while no worker was at work: the last time"
    with suppress(Stopped):
        left.fail("process_ended", f"{told} {how_ended(last)}. {LOOK}")
    children.ring_parent(left.log.state)
    return None


def _with_process(steps: Steps) -> tuple[Steps, Ending | None]:
    """The run carried on in a process of its own, as that left it."""
    assert alone is not None and steps.log.fence is not None  # noqa: S101, PT018 - else nobody needs it
    steps.held.between = float("inf")
    ending = alone(steps.log.run_id, steps.log.fence)
    steps.held.between = time.monotonic()
    log = event_log.RunLog.load(steps.log.run_id, fence=steps.log.fence)
    return _steps(log, held=steps.held, ending=ending), ending


def _attempts(log: event_log.RunLog) -> dict[int, tuple[int, int]]:
    return {step.position: (step.attempt, step.tries) for step in log.state.steps.values()}


def _expire(log: event_log.RunLog) -> None:
    """Close, once, each question of this run whose time has run out; a decision that was quicker stands."""
    deadlines = {step.position: step.deadline for step in log.state.steps.values() if step.asked}
    late = [position for position, until in deadlines.items() if until and has_come(until, log.state.wake_at)]
    if not late:
        return
    with event_log.locked(log.run_id) as now:
        asked = [position for position in late if now.state.steps[position].asked]
        steps = now.state.steps
        ends = {position: escalations.expired(log.run_id, steps[position]) for position in asked}
        now.append(*(Draft(Kind.STEP_EXPIRED, data, position) for position, data in ends.items()))
    log.state = now.state


def _carry(steps: Steps) -> None:
    """Call the supervisor and write how it ended."""
    log = steps.log
    steps.stop_if_asked()
    takings = (log.fence or 0) - log.state.fence
    if takings > MOST_TAKINGS:
        told = f"The process that carried this run ended {MOST_TAKINGS} times before anything was recorded."
        return steps.fail("process_ended", f"{told} {LOOK}")
    if takings > ALONE_AFTER and alone is not None:
        steps.leave_for_process(0)
    if log.must_wait:
        steps.wait_for_reviews()
    agent = sdk.AGENTS.get(log.state.agent)
    if agent is None:
        told = f"This job process does not know the agent {log.state.agent!r}. Name the app that has it in AGENT_APPS"
        return steps.fail("unknown_agent", f"{told} and restart the job processes, then retry the run.")
    try:
        config = agent.config_model.model_validate(log.state.config["values"])
        run = sdk.Run(log.run_id, config, _Supervised(steps))
        with supervising():
            answer = agent.function(run, agent.input_model.model_validate(log.state.input))
        output = stored(sdk.dump_model(agent.output_model.model_validate(answer)))
        steps.end()
    except sdk.BudgetExhausted as exhausted:
        return steps.fail("budget_exhausted", str(exhausted), step=steps.refused.get(id(exhausted)))
    except sdk.Rejected as rejected:
        return steps.fail("rejected", str(rejected), step=steps.refused.get(id(rejected)))
    except sdk.Expired as expired:
        return steps.fail("expired", str(expired), step=steps.refused.get(id(expired)))
    except Interrupted as interrupted:
        if not isinstance(interrupted.__cause__, DataError | IntegrityError):
            raise
        steps.unwritten = []  # it is among these
        return steps.fail("unstorable", f"Something of step {steps.position} cannot be stored: {interrupted.__cause__}")
    except (Exception, SystemExit, CancelledError) as error:  # noqa: BLE001 - it is recorded on the run
        return steps.fail(type(error).__name__, str(error), trace="".join(traceback.format_exception(error)))
    return steps.succeed(output)


class _Supervised:
    """What stands behind the supervisor's sdk.Run."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def perform(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> Any:
        return self.steps.perform(name, worker, inputs)

    def gather(self, calls: Sequence[sdk.Call[Any]]) -> list[Any]:
        return parallel.gather(self.steps, calls)

    def spawn(self, name: str, agent: sdk.Agent | str, inputs: Sequence[Any], tags: sdk.Tags = None) -> list[sdk.Child]:
        return children.spawn(self.steps, name, agent, inputs, tags)

    def join(self, name: str, waited_for: Sequence[sdk.Child]) -> list[sdk.Outcome]:
        return children.join(self.steps, name, waited_for)

    def decision(self, name: str) -> sdk.Decided | None:
        return self.steps.decision(name)

    def sleep(self, name: str, *, until: datetime | None = None, seconds: float = 0.0) -> None:
        self.steps.sleep(name, until=until, seconds=seconds)
