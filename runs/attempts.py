"""One step of a run: what comes next for it, given what is recorded of it and what its worker answered."""

import random
import time
from asyncio import CancelledError
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings

from runs import escalations, event_log, keeper, sdk
from runs.answers import Accepted, AnyWorker, described, masked_by, said_to_models
from runs.engine import budget, divergence, outcome, policy
from runs.engine.canonical import clean, normalise
from runs.engine.errors import NoBudget
from runs.engine.events import Draft, Kind
from runs.engine.masking import mask, secrets, unmask
from runs.engine.outcome import ALONE_AFTER, Ending, crashed, is_poison, lost, why_crashed
from runs.engine.policy import ALLOWED, Cause, Subject, Verdict
from runs.engine.state import UNDO, Status, StepState
from runs.engine.step import OUT_OF_TIME, action, after_crash, moment
from runs.models import open_reviews
from runs.nexts import Alone, Attempt, Done, Next, Open, Refused, held_by, refusal
from runs.passes import Pass, has_come
from runs.reliability.budget import working

LEAST_SECONDS = 0.1  # an attempt at the end of a step's time still has these
MOST_DEFERRALS = 3  # short ones that a worker asked for, and the process waits for; then the run is parked for each


class OneStep:
    """One step in one pass through its supervisor. Only `execute` may be called from another thread."""

    def __init__(self, here: Pass, position: int, worker: AnyWorker, request: dict[str, Any], real: Any) -> None:
        """`real` is the input as the supervisor gave it; in the request, what the worker masks is masked."""
        self.here, self.log, self.position, self.worker, self.request = here, here.log, position, worker, request
        self.real = real
        self.policy = policy.policy_of(here.log.state.config, worker.name)
        self.deferrals = 0
        self.took, self.calls = dict[str, Any](), list[dict[str, Any]]()  # of the last attempt; the calls are of models

    @property
    def recorded(self) -> StepState:
        return self.log.state.steps[self.position]

    @property
    def has_crashed(self) -> bool:
        return bool(self.recorded.crashes or self.recorded.losses or self.recorded.alone)

    def changed(self) -> Next | None:
        """What comes next when the code no longer asks for what is recorded here."""
        step = self.log.state.steps.get(self.position)
        return difference(step, self.request, self.log.state.steps) if step else None

    def over(self, *, in_line: bool = True) -> Next | None:
        """What comes next where the run has come to one of its ceilings; only steps in a line can be a loop."""
        state, request = self.log.state, self._overridden()
        step = state.steps.get(self.position)
        if step and step.status not in (Status.QUEUED, Status.RETRYING):
            return None
        given = (request["worker"], request["input"]) if in_line and step is None else None
        limits = state.config.get("budget", {}) | state.raised
        over = budget.over(state.steps, self.position, limits=limits, seconds=self.here.seconds(limits), given=given)
        if over is None:
            return None
        if self.here.asks_for_more or any(budget.is_asked_by(one) for one in state.steps.values()):  # one question is enough
            return Open("budget", self.position)
        self.here.asks_for_more = self.position
        asked = self._escalate(Cause.BUDGET, Subject.OUTPUT, why=over.why, proposal=over.question)
        asked.drafts[:0] = [] if step else [Draft(Kind.STEP_REQUESTED, request, self.position)]
        return asked

    def first(self, *, in_line: bool = True) -> Next:
        """The first move."""
        return self._held() or self.over(in_line=in_line) or self.begin()

    def _held(self) -> Next | None:
        """A decision that can still be taken back is not carried out; from one that cannot, this pass goes on."""
        step = self.log.state.steps.get(self.position)
        if step is None or step.effective_at is None:
            return None
        if not has_come(step.effective_at, self.here.woken_for):
            return Open(UNDO, self.position, step.effective_at)
        self.log.relies_on[self.position] = step.effective_at
        return None

    def begin(self) -> Next:
        """Given that nothing holds it up."""
        step = self.log.state.steps.get(self.position)
        if step is None:
            return self._first()
        if step.status == Status.SUCCEEDED:
            return Done(self.worker.output.validate_python(step.output))
        if step.status == Status.SKIPPED:
            return self._skipped(step.output, step.reason)
        if step.status in (Status.REJECTED, Status.EXPIRED):
            return refusal(step)
        return self._again(step)

    def execute(self, step: StepState) -> "Accepted | BaseException":
        """Call the worker for the step as it is recorded: its answer in storable form, or what it raised.

        Raises LeaseLost where it was not called, because the lease had run out.
        """
        began, self.calls = time.monotonic(), []
        try:
            return Accepted(self.worker, self._call(step), self._secrets)
        except event_log.LeaseLost:
            raise
        except (Exception, SystemExit, CancelledError, keeper.CutOff) as error:  # noqa: BLE001 - it is recorded on the step
            return error
        finally:
            said = said_to_models(self.worker, self.calls, self._secrets)
            self.took = {"duration_ms": round((time.monotonic() - began) * 1000)} | said

    def follow(self, answer: "Accepted | BaseException") -> Next:
        """The move after an attempt."""
        if isinstance(answer, keeper.CutOff):
            return self._crashed(self.recorded, Ending(answer.reason, answer.seconds))
        if isinstance(answer, Accepted):
            return self._accept(answer)
        next_ = self._after_failure(answer)
        if known := self._secrets:
            next_.drafts = [replace(draft, data=mask(draft.data, (), known)) for draft in next_.drafts]
        return next_

    @property
    def _secrets(self) -> set[str]:
        """What the worker masks, in the input as the supervisor gave it."""
        names = masked_by(self.worker)
        return set(secrets(self.real, names)) if names else set()

    # --- before a worker is called ------------------------------------------------------------------------------

    def _first(self) -> Next:
        request = self._overridden()
        if self.worker.asks or self._gate(request["input"]).needs_person:
            asked = self._ask_first(request["input"])
            asked.drafts.insert(0, Draft(Kind.STEP_REQUESTED, request, self.position))
            return asked
        return Attempt(Draft(Kind.STEP_STARTED, request | {"attempt": 1}, self.position))

    def _overridden(self) -> dict[str, Any]:
        """With the input that a person gave the step from which this run was forked; the fingerprint stays the supervisor's."""
        state, request = self.log.state, self.request
        if state.override is None or self.position != state.forked_step:
            return request
        if request["worker"] != state.override["worker"]:
            meant, now = state.override["worker"], request["worker"]
            raise ValueError(f"The input given for step {self.position} is for {meant}, but the code now asks for {now}.")
        return request | {"input": state.override["input"]}

    def _ask_first(self, value: Any) -> Open:
        """Before anything is executed: a question, or a gate whose reviewer decides about the input."""
        if self.worker.asks:
            return self._escalate(Cause.QUESTION, Subject.OUTPUT, why=value["question"], proposal=self.worker.draft)
        verdict = self._gate(value)
        return self._escalate(Cause.GATED, Subject.INPUT, why=verdict.why, proposal=value, verdict=verdict)

    def _gate(self, value: Any) -> Verdict:
        """Whether a person must approve the input first: by the code, or by the policy."""
        verdict = policy.before(self.policy, value)
        if not self.worker.gate:
            return verdict
        why = " ".join(filter(None, [self.worker.gate, verdict.why]))
        return replace(verdict, needs_person=True, why=why)

    def _action(self, step: StepState) -> str:
        """What would be carried out now, as a fingerprint to be compared with what was approved."""
        effect = policy.worst(sdk.effects(self.worker))
        return action(self.log.run_id, step, worker=self.worker.name, effect=effect, value=step.input)

    def _ask_again(self, step: StepState) -> Open:
        who = "the clock" if step.reason == OUT_OF_TIME else step.decided_by
        why = f"What would be carried out is no longer what {who} approved. Nothing was executed. {self.worker.gate}"
        return self._escalate(Cause.GATED, Subject.INPUT, why=why, proposal=step.input)

    def _again(self, step: StepState) -> Next:
        """A step that was begun: after a wait, a decision, a cancel that was taken back, or a process that died in it."""
        if step.status == Status.WAITING:
            return self._still_open(step)
        if self.worker.asks or not (step.gate_passed or not self._gate(step.input).needs_person):
            return self._ask_first(step.input)
        if step.gate_passed and step.approved not in ("", self._action(step)):
            return self._ask_again(step)
        if step.status == Status.RETRYING and step.wake_at and not has_come(step.wake_at, self.here.woken_for):
            said = step.held.get("cause", "retry" if step.error else "later")
            return Open(said, self.position, step.wake_at, held=held_by(step.held))
        if step.status == Status.RUNNING:
            return self._crashed(step, self._ending(step))
        if step.crash:
            return self._after_crash(step, (step.crashes, step.losses), step.crash)
        return self._attempted(step, step.crashes + step.losses)

    def _still_open(self, step: StepState) -> Open:
        """A question that was withdrawn when the run ended stands again as it stood; else it stands still."""
        if step.pending or step.withdrawn:
            return self._put(escalations.anew(step.pending or step.escalation))
        return Open("person", self.position, step.deadline) if step.asked else self._decide_anew(step)

    def _decide_anew(self, step: StepState) -> Open:
        """The run was retried after this step had ended it, and what it does may happen only once."""
        why = "The run was retried. What may happen only once is not carried out again by itself: decide anew."
        if step.cause not in (Cause.GATED, Cause.LOW_CONFIDENCE):
            return self._escalate(Cause.OUTCOME_UNKNOWN, Subject.OUTPUT, why=f"{why} {outcome.UNKNOWN}")
        judgement = {name: getattr(step, name) for name in ("confidence", "threshold", "source", "alternatives")}
        rule = Verdict(needs_person=True, rule=self.policy.rule)
        about = {"proposal": step.proposal, "verdict": rule, "judged": True} | judgement
        return self._escalate(Cause(step.cause), Subject.OUTPUT, why=why, **about)

    def _ending(self, step: StepState) -> Ending:
        """How the process of the attempt ended; where nobody saw it, only that it is gone."""
        seconds = (event_log.now() - (step.attempted_at or event_log.now())).total_seconds()
        if self.here.ending:
            return self.here.ending._replace(seconds=seconds)
        return lost(self.here.lost_owner, self.here.others(self.position), seconds)

    def _crashed(self, step: StepState, ending: Ending) -> Next:
        crash = crashed(self.position, step.attempt, ending)
        next_ = self._after_crash(step, after_crash(step, crash.data), crash.data)
        next_.drafts.insert(0, crash)
        return next_

    def _after_crash(self, step: StepState, counted: tuple[int, int], crash: dict[str, Any]) -> Next:
        """The last attempt did not come to its end; `counted` are all crashes and losses."""
        why = why_crashed(max(1, sum(counted)), crash)
        if step.effect == "once":
            return self._escalate(Cause.OUTCOME_UNKNOWN, Subject.OUTPUT, why=f"{why} {outcome.UNKNOWN}")
        is_timeout = outcome.is_timeout(crash)
        if is_poison(*counted) or (is_timeout and _seconds_left(self.worker, step) < LEAST_SECONDS):
            degraded = self._fallback(step, why) if is_timeout else None
            return degraded or self._escalate(Cause.FAILED, Subject.OUTPUT, why=f"{why} It is not tried again by itself.")
        return self._attempted(step, sum(counted))

    def _attempted(self, step: StepState, endings: int) -> Next:
        """In this process, or alone in another where it may end this one."""
        if self.here.offers_process and (step.alone or endings >= ALONE_AFTER):
            return Alone(self.position)
        return Attempt(self._next_start(step.attempt, step.remark))

    def _next_start(self, attempt: int, remark: str) -> Draft:
        return Draft(Kind.ATTEMPT_STARTED, {"attempt": attempt + 1, "remark": remark}, self.position)

    # --- the attempt ----------------------------------------------------------------------------------------------

    def _call(self, step: StepState) -> Any:
        worker = self.worker.fallback if step.fallback else self.worker
        given = worker.input_model.model_validate(unmask(step.input, self.real) if masked_by(self.worker) else step.input)
        inputs = {name: getattr(given, name) for name in type(given).model_fields}
        context = sdk.StepContext(
            f"{self.log.run_id}:{step.name}", step.attempt, step.remark, worker=worker.name, agent=self.log.state.agent,
            tenant=self.here.tenant, effect=step.effect, uses=worker.uses, run_id=self.log.run_id, fence=self.log.fence or 0,
            position=step.position, model_calls=self.calls, late=step.held.get("late", 0),
        )  # fmt: skip
        with sdk.executing(context), working(context):
            limit = min(worker.timeout or settings.STEP_TIMEOUT_SECONDS, max(_seconds_left(self.worker, step), LEAST_SECONDS))
            return self.here.held.attempt(step.position, limit, partial(worker.function, **inputs))

    # --- after the attempt ----------------------------------------------------------------------------------------

    def _accept(self, accepted: "Accepted") -> Next:
        judgement, confidence, threshold = accepted.judgement, None, self.log.state.config["threshold"]
        if judgement:
            judgement = judgement | {"threshold": policy.threshold_of(self.policy, threshold)}
            confidence = judgement["confidence"]
        verdict = policy.after(self.policy, accepted.stored, judged=bool(judgement), confidence=confidence, threshold=threshold)
        if self.recorded.sent_back:
            effect = policy.worst({self.recorded.effect} | sdk.effects(self.worker))
            verdict = policy.after_remark(self.policy, verdict, effect, declared=sdk.risk(self.worker))
        if verdict.needs_person:
            why = " ".join(filter(None, [verdict.why, judgement.pop("why", "")]))
            about = judgement | self.took | {"judged": True, "threshold": policy.threshold_of(self.policy, threshold)}
            return self._escalate(verdict.cause, Subject.OUTPUT, why=why, proposal=accepted.stored, verdict=verdict, **about)
        sampled = {"sampled": True} if self._is_drawn() else {}
        succeeded = Draft(Kind.STEP_SUCCEEDED, {"output": accepted.stored} | judgement | self.took | sampled, self.position)
        return Done(self.worker.output.validate_python(accepted.stored), [succeeded])

    def _is_drawn(self) -> bool:
        """For a look at its quality, where nobody has looked at it."""
        step, share = self.recorded, self.policy.sample_share
        return share > 0 and not step.gate_passed and policy.is_drawn(share, self.log.run_id, step.name)

    def _after_failure(self, error: BaseException) -> Next:
        step = self.recorded
        if isinstance(error, NoBudget):
            return self._without_budget(step, error)
        worker = self.worker.fallback if step.fallback else self.worker
        said = (worker.attempts, error.terms.attempts if isinstance(error, sdk.TryLater) and error.terms else None)
        attempts = min(filter(None, said), default=self.log.state.config["attempts"])  # an admin may want fewer than the code
        next_ = outcome.after_failure(
            error, attempt=step.tries, attempts=attempts, chance=random.random(), effect=step.effect,  # noqa: S311 - jitter
            elapsed_seconds=step.elapsed_seconds(event_log.now()), total_seconds=self.worker.total_timeout,
        )  # fmt: skip
        if isinstance(next_, outcome.NotYet):
            return self._defer(step, next_)
        failed: dict[str, Any] = {"attempt": step.attempt, "error": described(error), "wait_seconds": None} | self.took
        if isinstance(next_, outcome.TryAgain):
            return self._retry(step, failed | {"wait_seconds": next_.wait_seconds}, next_)
        drafts = [Draft(Kind.ATTEMPT_FAILED, failed, self.position)]
        if isinstance(next_, outcome.FailFinally) and (degraded := self._fallback(step, next_.why)):
            degraded.drafts[:0] = drafts
            return degraded
        cause = Cause.OUTCOME_UNKNOWN if step.effect == "once" and isinstance(next_, outcome.AskPerson) else Cause.FAILED
        (asked := self._escalate(cause, Subject.OUTPUT, why=next_.why)).drafts[:0] = drafts
        return asked

    def _fallback(self, step: StepState, why: str) -> Attempt | Done | None:
        """What happens in the worker's place now that it has failed; None where a person is asked."""
        failed = self.worker.fallback if step.fallback else self.worker
        match failed.fallback:
            case sdk.Worker() as other if not step.fallback:
                taken = {"worker": other.name, "effect": other.effect, "why": clean(why)}
                return Attempt(self._next_start(step.attempt, step.remark), [Draft(Kind.FALLBACK_TAKEN, taken, self.position)])
            case sdk.Skip(note, value):
                stored = normalise(self.worker.dump(value))
                skipped = Draft(Kind.STEP_SKIPPED, {"note": note, "why": clean(why), "output": stored}, self.position)
                return self._skipped(stored, note, skipped)
        return None

    def _skipped(self, stored: Any, note: str, *drafts: Draft) -> Done:
        missing = {"step": self.position, "title": self.worker.title, "note": note}
        return Done(self.worker.output.validate_python(stored), list(drafts), missing)

    def _without_budget(self, step: StepState, error: NoBudget) -> Next:
        """That was no attempt: it asks a person, waits for who asks, or hears what was decided."""
        not_yet = outcome.NotYet(error.seconds or 0.0, error.why, error.cause, error.dependency)
        waits = self._deferred(step, not_yet, budget=error.budget, needs=error.question["needs"])
        if error.finished_by:
            decided = {"decision": "finish", "reason": "", "value": None}
            drafts = [waits, Draft(Kind.STEP_DECIDED, decided, self.position, actor=error.finished_by)]
            return Refused(sdk.BudgetExhausted(step.title, error.finished_by), self.position, drafts)
        if not error.asks:
            return Open("budget", self.position, moment(waits.data["wake_at"]), [waits], held=held_by(waits.data))
        asked = self._escalate(Cause.BUDGET, Subject.OUTPUT, why=error.why, proposal=error.question)
        asked.drafts.insert(0, waits)
        return asked

    def _defer(self, step: StepState, not_yet: outcome.NotYet) -> Next:
        """Not yet, says the worker, or guard: that was no attempt."""
        draft = self._deferred(step, not_yet)
        if not_yet.parks or self.deferrals == MOST_DEFERRALS:
            return Open(not_yet.cause, self.position, moment(draft.data["wake_at"]), [draft], held=held_by(draft.data))
        self.deferrals += 1
        return Attempt(self._next_start(step.attempt - 1, step.remark), [draft], not_yet.wait_seconds)

    def _deferred(self, step: StepState, not_yet: outcome.NotYet, **more: Any) -> Draft:
        wake_at, why = event_log.now() + timedelta(seconds=not_yet.wait_seconds), clean(not_yet.why)
        data = {"attempt": step.attempt, "seconds": not_yet.wait_seconds, "wake_at": wake_at.isoformat(), "why": why}
        if not_yet.cause != "later":
            data |= {"cause": not_yet.cause, "dependency": not_yet.dependency} | ({"late": True} if not_yet.late else {})
            data |= {"tenant": self.here.tenant} if self.here.tenant else {}
        return Draft(Kind.STEP_DEFERRED, normalise(data | more), self.position)

    def _retry(self, step: StepState, failed: dict[str, Any], again: outcome.TryAgain) -> Next:
        if not again.parks:
            drafts = [Draft(Kind.ATTEMPT_FAILED, failed, self.position)]
            return Attempt(self._next_start(step.attempt, step.remark), drafts, again.wait_seconds)
        wake_at = event_log.now() + timedelta(seconds=again.wait_seconds)
        failed["wake_at"] = wake_at.isoformat()
        return Open("retry", self.position, wake_at, [Draft(Kind.ATTEMPT_FAILED, failed, self.position)])

    def _escalate(self, cause: Cause, subject: Subject, *, why: str, verdict: Verdict | None = None, **about: Any) -> Open:
        about |= {"step": self.log.state.steps.get(self.position), "terms": self.policy, "why": why, "verdict": verdict}
        return self._put(escalations.question(self.worker, cause, subject, **about))

    def _put(self, asked: dict[str, Any]) -> Open:
        """The question to a person; where the run has no room for another review, the step waits with it."""
        if self.here.has_room_for(self.position, asked):
            escalated = Draft(Kind.STEP_ESCALATED, asked, self.position)
            return Open("person", self.position, escalations.until(asked), [escalated])
        step = self.log.state.steps.get(self.position)
        parked = Draft(Kind.STEP_PARKED, {"cause": open_reviews.CAUSE, "question": asked}, self.position)
        why = "As many of its reviews are open as may be at once."
        return Open(open_reviews.CAUSE, self.position, None, [] if step and step.pending else [parked], held={"why": why})


def difference(step: StepState, request: dict[str, Any] | None, steps: Mapping[int, StepState]) -> Next | None:
    """What comes next where the code asks for something else than is recorded, or (None) for nothing more."""
    if step.status == Status.REJECTED and step.cause == Cause.CODE_CHANGED and step.decision == "reject":
        return refusal(step)  # logs of the first version
    if request and step.fingerprint == request["fingerprint"]:
        return None
    why = f"The code changed: {divergence.told(step, request, steps)} Nothing was executed."
    data: dict[str, Any] = {"cause": Cause.CODE_CHANGED, "subject": Subject.OUTPUT, "proposal": None, "why": clean(why)}
    data |= {"schema": {}, "allowed": list(ALLOWED[Cause.CODE_CHANGED])}
    if step.displaced or (step.status == Status.WAITING and step.escalation and step.cause != Cause.CODE_CHANGED):
        data["displaces"] = True  # this question is asked again after "retry"
    withdrawn = Draft(Kind.STEP_WITHDRAWN, {"cause": Cause.CODE_CHANGED}, step.position)
    drafts = [withdrawn] if step.asked else []  # one question at a time
    return Open("person", step.position, drafts=[*drafts, Draft(Kind.STEP_ESCALATED, data, step.position)])


def _seconds_left(worker: AnyWorker, step: StepState) -> float:
    """Of what the step as a whole may take."""
    return float("inf") if worker.total_timeout is None else worker.total_timeout - step.elapsed_seconds(event_log.now())
