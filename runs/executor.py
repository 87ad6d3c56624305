"""Carries one run as far as it can go: takes the lease, replays what is recorded, executes what is not, parks or ends it."""

import random
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from pydantic import BaseModel

from runs import event_log, sdk
from runs.engine import outcome, policy
from runs.engine.canonical import digest, normalise, stored
from runs.engine.events import Draft, Kind
from runs.engine.policy import ALLOWED, Cause, Subject
from runs.engine.state import Status, StepState

logger = structlog.get_logger()
AnyWorker = sdk.Worker[..., Any]


class Stopped(BaseException):
    """The run is parked or cancelled: leave the supervisor at once, past any `except Exception` of its own."""


def advance(run_id: int, *, owner: str) -> None:
    """Carry the run on, if it is due and nobody else does. Everything that happens is in its events."""
    log = event_log.take(run_id, owner=owner)
    if log is None:
        return
    with structlog.contextvars.bound_contextvars(run=run_id), _lease_kept(log):
        try:
            _carry(log)
        except event_log.LeaseLost as lost:
            logger.warning("lease_lost", reason=str(lost))


def _carry(log: event_log.RunLog) -> None:
    agent = sdk.AGENTS.get(log.state.agent)
    if agent is None:
        return _fail(
            log, "unknown_agent", f"The agent {log.state.agent!r} is not installed here. Install it, then retry the run."
        )
    steps = Steps(log)
    try:
        config = agent.config_model.model_validate(log.state.config["values"])
        run = sdk.Run(log.run_id, config, steps.perform)
        answer = agent.function(run, agent.input_model.model_validate(log.state.input))
        output = stored(agent.output_model.model_validate(answer).model_dump(mode="json"))
        steps.end()
    except Stopped:
        return None
    except sdk.Rejected as rejected:
        return _fail(log, "rejected", str(rejected), *steps.unwritten)
    except (event_log.LeaseLost, DatabaseError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the supervisor raises is recorded on the run
        trace = "".join(traceback.format_exception(error))
        return _fail(log, type(error).__name__, str(error) or type(error).__name__, *steps.unwritten, trace=trace)
    log.append(*steps.unwritten, Draft(Kind.RUN_SUCCEEDED, {"output": output}), release=True)


def _fail(log: event_log.RunLog, kind: str, message: str, *before: Draft, trace: str = "") -> None:
    error = {"kind": kind, "message": message, "trace": trace.replace("\x00", "")}
    log.append(*before, Draft(Kind.RUN_FAILED, {"error": normalise(error)}), release=True)


class Steps:
    """The steps of one pass through a supervisor. Successes are written together with the next start."""

    def __init__(self, log: event_log.RunLog) -> None:
        self.log = log
        self.position = 0
        self.names: set[str] = set()
        self.unwritten: list[Draft] = []

    def perform(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> Any:
        """What run.step does: return the recorded result, or have the worker make one."""
        self._stop_if_cancelled()
        self.position += 1
        request = self._request(name, worker, inputs)
        step = self.log.state.steps.get(self.position)
        if step is None:
            return self._first(request, worker)
        if step.fingerprint != request["fingerprint"]:
            self._code_changed(step, f"the code now asks for {_called(name, worker.name, request['input'], step)}")
        if step.status == Status.SUCCEEDED:
            return worker.output.validate_python(step.output)
        if step.status == Status.REJECTED:
            raise sdk.Rejected(step.reason, step.decided_by)
        return self._again(step, worker)

    def end(self) -> None:
        """The supervisor has returned: nothing recorded may be left over, no cancel unheard."""
        self._stop_if_cancelled()
        if left_over := self.log.state.steps.get(self.position + 1):
            self._code_changed(left_over, "the code now ends before it")

    # --- before a worker is called ------------------------------------------------------------------------------

    def _request(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> dict[str, Any]:
        if name in self.names:
            raise ValueError(f"Two steps of this run are named {name!r}; number them in a loop.")
        self.names.add(name)
        given = {key: _recordable(value) for key, value in inputs.items() if not (worker.asks and key != "question")}
        value = stored(worker.input_model.model_validate(given).model_dump(mode="json"))
        request = {"name": name, "worker": worker.name, "title": worker.title, "input": value, "effect": worker.effect}
        return request | {"fingerprint": digest(name, worker.name, value)}

    def _first(self, request: dict[str, Any], worker: AnyWorker) -> Any:
        if worker.asks or worker.gate:
            self.unwritten.append(Draft(Kind.STEP_REQUESTED, request, self.position))
            self._ask_first(request["input"], worker)
        return self._attempt(worker, Draft(Kind.STEP_STARTED, request | {"attempt": 1}, self.position))

    def _ask_first(self, value: Any, worker: AnyWorker) -> NoReturn:
        """Before anything is executed: a question, or a gate whose reviewer decides about the input."""
        if worker.asks:
            self._escalate(Cause.QUESTION, Subject.OUTPUT, worker, why=value["question"])
        self._escalate(Cause.GATED, Subject.INPUT, worker, why=worker.gate, proposal=value)

    def _again(self, step: StepState, worker: AnyWorker) -> Any:
        """A step that was begun: after a wait, a decision, or a process that died in it."""
        if worker.asks or (worker.gate and not step.gate_passed):
            self._ask_first(step.input, worker)
        if step.status == Status.RUNNING and step.effect == "once":
            why = "The job process ended during this step: nobody knows whether it happened. Look it up, then say what is true."
            self._escalate(Cause.FAILED, Subject.OUTPUT, worker, why=why)
        return self._attempt(worker, self._next_start(step))

    def _next_start(self, step: StepState) -> Draft:
        return Draft(Kind.ATTEMPT_STARTED, {"attempt": step.attempt + 1, "remark": step.remark}, step.position)

    # --- attempts -----------------------------------------------------------------------------------------------

    def _attempt(self, worker: AnyWorker, start: Draft) -> Any:
        while True:
            self.log.append(*self._take_unwritten(), start)
            self._stop_if_cancelled()
            step = self.log.state.steps[self.position]
            try:
                value = self._call(worker.fallback if step.fallback else worker, step)
                accepted = _Accepted(worker, value)
            except Exception as error:  # noqa: BLE001 - whatever the worker raises is recorded on the step
                self._after_failure(error, worker, step)
                start = self._next_start(self.log.state.steps[self.position])
            else:
                return self._accept(worker, accepted)

    def _call(self, worker: AnyWorker, step: StepState) -> Any:
        given = worker.input_model.model_validate(step.input)
        inputs = {name: getattr(given, name) for name in type(given).model_fields}
        context = sdk.StepContext(f"{self.log.run_id}:{step.name}", step.attempt, step.remark)
        with structlog.contextvars.bound_contextvars(step=step.name), sdk.executing(context):
            return worker.function(**inputs)

    def _accept(self, worker: AnyWorker, accepted: "_Accepted") -> Any:
        threshold = self.log.state.config["threshold"]
        judgement = accepted.judgement(threshold)
        if judgement:
            verdict = policy.judge(judgement["confidence"], threshold)
            if verdict.needs_person:
                why = " ".join(filter(None, [verdict.why, judgement.pop("why")]))
                self._escalate(
                    Cause.LOW_CONFIDENCE, Subject.OUTPUT, worker, why=why, proposal=accepted.stored, **judgement, judged=True
                )
        self.unwritten.append(Draft(Kind.STEP_SUCCEEDED, {"output": accepted.stored} | judgement, self.position))
        return worker.output.validate_python(accepted.stored)

    def _after_failure(self, error: Exception, worker: AnyWorker, step: StepState) -> None:
        """Return when there is to be another attempt at once; else park or escalate."""
        attempts = worker.attempts or self.log.state.config["attempts"]
        next_ = outcome.after_failure(error, attempt=step.tries, attempts=attempts, chance=random.random())  # noqa: S311
        failed = {"attempt": step.attempt, "error": _described(error), "wait_seconds": None}
        if isinstance(next_, outcome.TryAgain):
            return self._wait(failed | {"wait_seconds": next_.wait_seconds}, next_)
        self.unwritten.append(Draft(Kind.ATTEMPT_FAILED, failed, self.position))
        fallback = worker.fallback
        if isinstance(next_, outcome.FailFinally) and isinstance(fallback, sdk.Worker) and not step.fallback:
            self.unwritten.append(Draft(Kind.FALLBACK_TAKEN, {"worker": fallback.name, "why": next_.why}, self.position))
            return self.log.append(*self._take_unwritten())
        self._escalate(Cause.FAILED, Subject.OUTPUT, worker, why=next_.why)

    def _wait(self, failed: dict[str, Any], again: outcome.TryAgain) -> None:
        self.unwritten.append(Draft(Kind.ATTEMPT_FAILED, failed, self.position))
        if again.parks:
            wake_at = event_log.now() + timedelta(seconds=again.wait_seconds)
            self._park("retry", wake_at=wake_at.isoformat())
        self.log.append(*self._take_unwritten())
        time.sleep(again.wait_seconds)

    # --- leaving the supervisor -----------------------------------------------------------------------------------

    def _escalate(
        self, cause: Cause, subject: Subject, worker: AnyWorker, *, why: str, proposal: Any = None, **judgement: Any
    ) -> NoReturn:
        schema = worker.input_model.model_json_schema() if subject == Subject.INPUT else worker.output.json_schema()
        data = {"cause": cause, "subject": subject, "proposal": proposal, "why": why, "schema": schema}
        data |= {"allowed": list(ALLOWED[cause])} | judgement
        self.unwritten.append(Draft(Kind.STEP_ESCALATED, normalise(data), self.position))
        self._park("person")

    def _code_changed(self, step: StepState, now: str) -> NoReturn:
        self.position = step.position
        why = f"The code changed: step {step.position} was {step.name!r} by {step.worker}; {now}. Nothing was executed."
        data: dict[str, Any] = {"cause": Cause.CODE_CHANGED, "subject": Subject.OUTPUT, "proposal": None, "why": why}
        data |= {"schema": {}, "allowed": list(ALLOWED[Cause.CODE_CHANGED])}
        self.unwritten.append(Draft(Kind.STEP_ESCALATED, data, step.position))
        self._park("person")

    def _park(self, cause: str, **data: Any) -> NoReturn:
        parked = Draft(Kind.RUN_PARKED, {"cause": cause} | data, self.position)
        self.log.append(*self._take_unwritten(), parked, release=True)
        raise Stopped

    def _stop_if_cancelled(self) -> None:
        if self.log.state.cancel_requested:
            self.log.append(*self._take_unwritten(), Draft(Kind.RUN_CANCELLED), release=True)
            raise Stopped

    def _take_unwritten(self) -> list[Draft]:
        drafts, self.unwritten = self.unwritten, []
        return drafts


class _Accepted:
    """A worker's answer in its storable form. Raises pydantic's ValidationError or Unstorable when it has none."""

    def __init__(self, worker: AnyWorker, answer: Any) -> None:
        self.result = answer if isinstance(answer, sdk.Result) else None
        value = self.result.value if self.result else answer
        self.stored = stored(worker.output.dump_python(worker.output.validate_python(value), mode="json"))

    def judgement(self, threshold: float) -> dict[str, Any]:
        """What the worker says of its estimate, or {} for a fact."""
        if self.result is None:
            return {}
        names = ("confidence", "why", "source", "alternatives")
        return {name: normalise(getattr(self.result, name)) for name in names} | {"threshold": threshold}


def _recordable(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _called(name: str, worker: str, value: Any, step: StepState) -> str:
    if (name, worker) == (step.name, step.worker):
        return "the same with another input"
    return f"{name!r} by {worker}"


def _described(error: Exception) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(error))[-20_000:]
    text = {"kind": type(error).__name__, "message": str(error) or type(error).__name__, "trace": trace}
    return {key: value.replace("\x00", "").encode(errors="replace").decode() for key, value in text.items()}


@contextmanager
def _lease_kept(log: event_log.RunLog) -> Iterator[None]:
    """Renew the lease from a thread of its own until the block ends."""
    done = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(done, log.run_id, log.fence), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=settings.LEASE_RENEW_SECONDS)


def _renew_until(done: threading.Event, run_id: int, fence: int) -> None:
    while not done.wait(settings.LEASE_RENEW_SECONDS):
        try:
            event_log.renew(run_id, fence)
        except DatabaseError as error:
            logger.warning("lease_not_renewed", run=run_id, error=str(error))
        finally:
            connection.close()
