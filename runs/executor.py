"""Carries one run as far as it can go: takes the lease, replays what is recorded, executes what is not, parks or ends it."""

import random
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

import structlog
from django.db import DataError, IntegrityError
from django.db import Error as DatabaseError
from pydantic import BaseModel

from runs import dispatch, event_log, keeper, sdk
from runs.engine import divergence, outcome, policy
from runs.engine.canonical import clean, digest, normalise, stored
from runs.engine.events import Draft, Kind
from runs.engine.outcome import ALONE_AFTER, TOGETHER, Ending, crashed, is_poison, why_crashed
from runs.engine.policy import ALLOWED, Cause, Subject
from runs.engine.state import Status, StepState

logger = structlog.get_logger()
AnyWorker = sdk.Worker[..., Any]
NAME_LETTERS = 120
ROOM_SECONDS = 5.0  # how long a run waits where no process of its own can be had for it
hand_over = keeper.hand_over

# How a job process carries a run in a process of its own: by run and fence, with its end as the result (runs/alone.py).
# Elsewhere a step that has crashed is simply tried again.
alone: Callable[[int, int], Ending | None] | None = None


class Stopped(BaseException):
    """The run is parked, given back or cancelled: leave the supervisor at once, past any `except Exception` of its own."""


class Interrupted(BaseException):
    """The database or the lease is gone: nothing more can be recorded here, and no supervisor may go on from that."""


def advance(run_id: int, *, owner: str) -> None:
    """Carry the run on, if it is due and nobody else does. Everything that happens is in its events.

    Raises the database's error when it cannot be reached: the lease then runs out, and another process takes over.
    """
    asked = time.monotonic()
    if taken := event_log.take(run_id, owner=owner):
        log, opening = taken
        with keeper.kept(run_id, log.fence, asked) as held:
            _carry_to_the_end(Steps(log, opening, held=held))


def carry_alone(run_id: int, *, fence: int) -> None:
    """Carry on a run whose lease the parent of this process has."""
    asked = time.monotonic()
    log = event_log.RunLog.load(run_id, fence=fence)
    with keeper.kept(run_id, fence, asked) as held:
        _carry_to_the_end(Steps(log, held=held, witnessed=True))


def _carry_to_the_end(steps: "Steps") -> None:
    """In this process, but for a step that has ended processes before."""
    with structlog.contextvars.bound_contextvars(run=steps.log.run_id):
        try:
            left: Steps | None = steps
            while left:
                left = _carried_alone(left) if _carry_until_stopped(left).needs_process else None
        except event_log.LeaseLost:
            return
        except Interrupted as interrupted:
            if not isinstance(interrupted.__cause__, event_log.LeaseLost):
                raise interrupted.__cause__ or interrupted from None
            logger.warning("lease_lost", reason=str(interrupted.__cause__))


def _carry_until_stopped(steps: "Steps") -> "Steps":
    with suppress(Stopped):
        _carry(steps)
    return steps


def _carried_alone(steps: "Steps") -> "Steps | None":
    """What is left to do here once a process of its own has carried the run on."""
    assert alone is not None and steps.log.fence is not None  # noqa: S101, PT018 - else no step needs it
    steps.held.between = float("inf")
    ending = alone(steps.log.run_id, steps.log.fence)
    steps.held.between = time.monotonic()
    log = event_log.RunLog.load(steps.log.run_id, fence=steps.log.fence)
    left = Steps(log, held=steps.held, ending=ending)
    if ending is None:
        left.wait_for_room(steps.needs_process)
        return None
    return left if log.state.status == Status.RUNNING else None


def _carry(steps: "Steps") -> None:
    """Call the supervisor and write how it ended."""
    log = steps.log
    steps.stop_if_asked()
    agent = sdk.AGENTS.get(log.state.agent)
    if agent is None:
        told = f"This job process does not know the agent {log.state.agent!r}. Restart the job processes, then retry the run."
        return steps.fail("unknown_agent", told)
    try:
        config = agent.config_model.model_validate(log.state.config["values"])
        run = sdk.Run(log.run_id, config, steps.perform)
        answer = agent.function(run, agent.input_model.model_validate(log.state.input))
        output = stored(sdk.dump_model(agent.output_model.model_validate(answer)))
        steps.end()
    except sdk.Rejected as rejected:
        return steps.fail("rejected", str(rejected), step=steps.rejected.get(id(rejected)))
    except Interrupted as interrupted:
        if not isinstance(interrupted.__cause__, DataError | IntegrityError):
            raise
        steps.unwritten = []  # it is among these
        return steps.fail("unstorable", f"Something of step {steps.position} cannot be stored: {interrupted.__cause__}")
    except Exception as error:  # noqa: BLE001 - whatever the supervisor raises is recorded on the run
        return steps.fail(type(error).__name__, str(error), trace="".join(traceback.format_exception(error)))
    return steps.write(Draft(Kind.RUN_SUCCEEDED, {"output": output}), release=True)


class Steps:
    """The steps of one pass through a supervisor. Successes are written together with the next start."""

    def __init__(
        self,
        log: event_log.RunLog,
        *opening: Draft,
        held: keeper.Held | None = None,
        ending: Ending | None = None,
        witnessed: bool = False,
    ) -> None:
        self.log, self.held = log, held or keeper.not_kept(log.run_id, log.fence)
        self.witnessed = witnessed or alone is not None  # whether the end of its process is seen, when it matters
        self.ending = ending  # of the process that the present attempt had to itself
        self.needs_process = 0  # position of the step that is to have a process to itself
        self.position = 0
        self.names: set[str] = set()
        self.unwritten = list(opening)
        self.lost_owner = next((draft.data["from"] for draft in opening if draft.kind == Kind.RUN_TAKEN_OVER), "")
        self.rejected: dict[int, int] = {}  # id of a raised Rejected -> position of its step
        self.stopped = False

    def perform(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> Any:
        """What run.step does: return the recorded result, or have the worker make one."""
        try:
            return self._perform(name, worker, inputs)
        except (DatabaseError, event_log.LeaseLost) as error:
            raise Interrupted from error

    def _perform(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> Any:
        self.stop_if_asked()
        self.position += 1
        request = self._request(name, worker, inputs)
        step = self.log.state.steps.get(self.position)
        if step is None:
            return self._first(request, worker)
        self._check_unchanged(step, request, worker)
        if step.status == Status.SUCCEEDED:
            return worker.output.validate_python(step.output)
        if step.status == Status.REJECTED:
            raise self._rejection(step)
        return self._again(step, worker)

    def end(self) -> None:
        """The supervisor has returned: nothing recorded may be left over, no cancel unheard."""
        if self.stopped:
            raise Stopped
        if left_over := self.log.state.steps.get(self.position + 1):
            self.position += 1
            self._code_changed(left_over, None)

    # --- before a worker is called ------------------------------------------------------------------------------

    def _request(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> dict[str, Any]:
        if name in self.names:
            raise ValueError(f"Two steps of this run are named {name!r}; number them in a loop.")
        if not 0 < len(name) <= NAME_LETTERS:
            raise ValueError(f"The name of a step has 1 to {NAME_LETTERS} letters; {name[:40]!r} has {len(name)}.")
        self.names.add(name)
        given = {key: _recordable(value) for key, value in inputs.items()}
        value = stored(worker.dump_input(given))
        request = {"name": name, "worker": worker.name, "title": worker.title, "input": value, "effect": worker.effect}
        return request | {"fingerprint": digest(name, worker.name, value)}

    def _check_unchanged(self, step: StepState, request: dict[str, Any], worker: AnyWorker) -> None:
        if step.status == Status.REJECTED and step.cause == Cause.CODE_CHANGED:
            raise self._rejection(step)
        if step.fingerprint != request["fingerprint"]:
            self._code_changed(step, request)

    def _rejection(self, step: StepState) -> sdk.Rejected:
        did = "says that it did not happen" if step.decision == "not_happened" else "rejected it"
        rejected = sdk.Rejected(step.reason, step.decided_by, did)
        self.rejected[id(rejected)] = step.position
        return rejected

    def _first(self, request: dict[str, Any], worker: AnyWorker) -> Any:
        request = self._overridden(request)
        if worker.asks or worker.gate:
            self.unwritten.append(Draft(Kind.STEP_REQUESTED, request, self.position))
            self._ask_first(request["input"], worker)
        return self._attempt(worker, Draft(Kind.STEP_STARTED, request | {"attempt": 1}, self.position))

    def _overridden(self, request: dict[str, Any]) -> dict[str, Any]:
        """With the input that a person gave the step from which this run was forked; the fingerprint stays the supervisor's."""
        state = self.log.state
        if state.override is None or self.position != state.forked_step:
            return request
        if request["worker"] != state.override["worker"]:
            meant, now = state.override["worker"], request["worker"]
            raise ValueError(f"The input given for step {self.position} is for {meant}, but the code now asks for {now}.")
        return request | {"input": state.override["input"]}

    def _ask_first(self, value: Any, worker: AnyWorker) -> NoReturn:
        """Before anything is executed: a question, or a gate whose reviewer decides about the input."""
        if worker.asks:
            self._escalate(Cause.QUESTION, Subject.OUTPUT, worker, why=value["question"])
        self._escalate(Cause.GATED, Subject.INPUT, worker, why=worker.gate, proposal=value)

    def _again(self, step: StepState, worker: AnyWorker) -> Any:
        """A step that was begun: after a wait, a decision, a cancel that was taken back, or a process that died in it."""
        if step.status == Status.WAITING:
            self._ask_again(step)
        if worker.asks or (worker.gate and not step.gate_passed):
            self._ask_first(step.input, worker)
        if step.status == Status.RUNNING:
            step = self._crashed(step, self._ending(step))
        if step.crash:
            self._check_survivable(step, worker)
        return self._attempt(worker, self._next_start(step))

    def _ending(self, step: StepState) -> Ending:
        """How the process of the attempt ended; where nobody saw it, only that it is gone."""
        seconds = (event_log.now() - (step.attempted_at or event_log.now())).total_seconds()
        seen = self.ending or Ending(f"{TOGETHER} {self.lost_owner or 'its run'}", seconds)
        return seen._replace(seconds=seconds)

    def _crashed(self, step: StepState, ending: Ending) -> StepState:
        self.write(crashed(step.position, step.attempt, ending))
        return self.log.state.steps[step.position]

    def _check_survivable(self, step: StepState, worker: AnyWorker) -> None:
        """The last attempt did not come to its end."""
        why = why_crashed(step.crashes, step.crash)
        if step.effect == "once":
            self._escalate(Cause.OUTCOME_UNKNOWN, Subject.OUTPUT, worker, why=f"{why} {outcome.UNKNOWN}")
        if is_poison(step.crashes, step.crash, witnessed=self.witnessed):
            self._escalate(Cause.FAILED, Subject.OUTPUT, worker, why=f"{why} It is not tried again by itself.")
        if step.crashes >= ALONE_AFTER and alone:
            self.needs_process, self.stopped = step.position, True
            raise Stopped

    def wait_for_room(self, position: int) -> None:
        """Too many runs have a process to themselves already."""
        wake_at = event_log.now() + timedelta(seconds=ROOM_SECONDS)
        self.write(Draft(Kind.RUN_PARKED, {"cause": "retry", "wake_at": wake_at.isoformat()}, position), release=True)

    def _next_start(self, step: StepState) -> Draft:
        return Draft(Kind.ATTEMPT_STARTED, {"attempt": step.attempt + 1, "remark": step.remark}, step.position)

    # --- attempts -----------------------------------------------------------------------------------------------

    def _attempt(self, worker: AnyWorker, start: Draft) -> Any:
        while True:
            self.write(start)
            step = self.log.state.steps[self.position]
            try:
                accepted = _Accepted(worker, self._call(worker.fallback if step.fallback else worker, step))
            except keeper.CutOff as cut:
                step = self._crashed(step, Ending(cut.reason, cut.seconds))
                self.stop_if_asked()
                self._check_survivable(step, worker)
                start = self._next_start(step)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the worker raises is recorded on the step
                self._after_failure(error, worker, step)
                start = self._next_start(self.log.state.steps[self.position])
            else:
                return self._accept(worker, accepted)

    def _call(self, worker: AnyWorker, step: StepState) -> Any:
        given = worker.input_model.model_validate(step.input)
        inputs = {name: getattr(given, name) for name in type(given).model_fields}
        context = sdk.StepContext(f"{self.log.run_id}:{step.name}", step.attempt, step.remark)
        with structlog.contextvars.bound_contextvars(step=step.name), sdk.executing(context):
            return self.held.attempt(step.position, worker.timeout, partial(worker.function, **inputs))

    def _accept(self, worker: AnyWorker, accepted: "_Accepted") -> Any:
        judgement = accepted.judgement
        if judgement:
            threshold = self.log.state.config["threshold"]
            judgement = judgement | {"threshold": threshold}
            verdict = policy.judge(judgement["confidence"], threshold)
            if verdict.needs_person:
                why = " ".join(filter(None, [verdict.why, judgement.pop("why")]))
                about = {"proposal": accepted.stored, "judged": True} | judgement
                self._escalate(Cause.LOW_CONFIDENCE, Subject.OUTPUT, worker, why=why, **about)
        self.unwritten.append(Draft(Kind.STEP_SUCCEEDED, {"output": accepted.stored} | judgement, self.position))
        return worker.output.validate_python(accepted.stored)

    def _after_failure(self, error: BaseException, worker: AnyWorker, step: StepState) -> None:
        """Return when there is to be another attempt at once; else park or escalate."""
        attempts = worker.attempts or self.log.state.config["attempts"]
        chance = random.random()  # noqa: S311 - jitter
        next_ = outcome.after_failure(error, attempt=step.tries, attempts=attempts, chance=chance, effect=step.effect)
        failed = {"attempt": step.attempt, "error": _described(error), "wait_seconds": None}
        if isinstance(next_, outcome.TryAgain):
            return self._wait(failed | {"wait_seconds": next_.wait_seconds}, next_)
        self.unwritten.append(Draft(Kind.ATTEMPT_FAILED, failed, self.position))
        fallback = worker.fallback
        if isinstance(next_, outcome.FailFinally) and isinstance(fallback, sdk.Worker) and not step.fallback:
            taken = {"worker": fallback.name, "effect": fallback.effect, "why": clean(next_.why)}
            return self.write(Draft(Kind.FALLBACK_TAKEN, taken, self.position))
        cause = Cause.OUTCOME_UNKNOWN if step.effect == "once" else Cause.FAILED
        self._escalate(cause, Subject.OUTPUT, worker, why=next_.why)

    def _wait(self, failed: dict[str, Any], again: outcome.TryAgain) -> None:
        self.unwritten.append(Draft(Kind.ATTEMPT_FAILED, failed, self.position))
        if again.parks:
            wake_at = event_log.now() + timedelta(seconds=again.wait_seconds)
            self._park("retry", wake_at=wake_at.isoformat())
        self.write()
        time.sleep(again.wait_seconds)

    # --- leaving the supervisor -----------------------------------------------------------------------------------

    def _escalate(
        self, cause: Cause, subject: Subject, worker: AnyWorker, *, why: str, proposal: Any = None, **judgement: Any
    ) -> NoReturn:
        schema = worker.input_model.model_json_schema() if subject == Subject.INPUT else worker.output.json_schema()
        data = {"cause": cause, "subject": subject, "proposal": proposal, "why": clean(why), "schema": schema}
        data |= {"allowed": list(ALLOWED[cause])} | judgement
        self.unwritten.append(Draft(Kind.STEP_ESCALATED, normalise(data), self.position))
        self._park("person")

    def _ask_again(self, step: StepState) -> NoReturn:
        """The question was withdrawn when the run was cancelled; it stands as it stood."""
        self.unwritten.append(Draft(Kind.STEP_ESCALATED, step.escalation, self.position))
        self._park("person")

    def _code_changed(self, step: StepState, asked: dict[str, Any] | None) -> NoReturn:
        if step.status == Status.REJECTED and step.cause == Cause.CODE_CHANGED:
            raise self._rejection(step)
        why = f"The code changed: {divergence.told(step, asked, self.log.state.steps)} Nothing was executed."
        data: dict[str, Any] = {"cause": Cause.CODE_CHANGED, "subject": Subject.OUTPUT, "proposal": None, "why": clean(why)}
        data |= {"schema": {}, "allowed": list(ALLOWED[Cause.CODE_CHANGED])}
        self.unwritten.append(Draft(Kind.STEP_ESCALATED, data, step.position))
        self._park("person")

    def _park(self, cause: str, **data: Any) -> NoReturn:
        self._stop(Draft(Kind.RUN_PARKED, {"cause": cause} | data, self.position))

    def _stop(self, last: Draft) -> NoReturn:
        self.write(last, release=True)
        self.stopped = True
        raise Stopped

    def stop_if_asked(self) -> None:
        if self.stopped:
            raise Stopped
        if self.log.state.cancel_requested:
            self._stop(Draft(Kind.RUN_CANCELLED))
        if hand_over.is_set():
            self.write(Draft(Kind.RUN_RELEASED), release=True)
            self.stopped = True
            dispatch.enqueue(self.log.run_id, self.log.state.seq)
            raise Stopped

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, *drafts: Draft, release: bool = False) -> None:
        """Append what is unwritten and these. A cancel that came meanwhile keeps what happened, and nothing new begins."""
        together, asked = [*self.unwritten, *drafts], time.monotonic()
        try:
            self.log.append(*together, release=release)
            self.held.renewed(asked)
        except event_log.CancelRequested:
            self.unwritten = [draft for draft in together if draft.kind not in NOT_AFTER_CANCEL]
            self.stop_if_asked()
        self.unwritten = []

    def fail(self, kind: str, message: str, *, step: int | None = None, trace: str = "") -> None:
        """End the run as failed; `step` is the one whose rejection ended it. Once stopped, nothing is added."""
        if self.stopped:
            return
        error = {"kind": clean(kind, 200), "message": clean(message or kind), "trace": clean(trace, 20_000)}
        self.write(Draft(Kind.RUN_FAILED, {"error": error}, step), release=True)


# What has not happened yet when a cancel is heard: these are not written any more.
NOT_AFTER_CANCEL = {
    Kind.STEP_STARTED,
    Kind.ATTEMPT_STARTED,
    Kind.RUN_PARKED,
    Kind.RUN_RELEASED,
    Kind.RUN_SUCCEEDED,
    Kind.RUN_FAILED,
}


class _Accepted:
    """A worker's answer in its storable form. Raises pydantic's ValidationError or Unstorable when it has none."""

    def __init__(self, worker: AnyWorker, answer: Any) -> None:
        result = answer if isinstance(answer, sdk.Result) else None
        value = result.value if result else answer
        self.stored = stored(worker.dump(value))
        self.judgement = _judgement(result) if result else {}


def _judgement(result: sdk.Result[Any]) -> dict[str, Any]:
    """What the worker says of its estimate; a confidence that is no probability is none, and says so."""
    confidence, why = result.confidence, result.why
    if confidence is not None and not 0 <= (confidence := float(confidence)) <= 1:
        confidence, why = None, f"{why} (it gave {confidence}, which is not between 0 and 1)".strip()
    alternatives = {clean(str(name), 200): normalise(float(share)) for name, share in result.alternatives.items()}
    said = {"confidence": normalise(confidence), "why": clean(why), "source": clean(result.source, NAME_LETTERS)}
    return said | {"alternatives": alternatives}


def _recordable(value: Any) -> Any:
    return sdk.dump_model(value) if isinstance(value, BaseModel) else value


def _described(error: BaseException) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(error))
    return {
        "kind": clean(type(error).__name__, 200),
        "message": clean(str(error) or type(error).__name__),
        "trace": clean(trace, 20_000),
    }
