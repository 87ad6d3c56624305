"""A step's question to a person as it is recorded: what the policy adds to it, and what becomes of it without an answer."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runs import event_log, sdk
from runs.answers import AnyWorker
from runs.engine import policy
from runs.engine.canonical import clean, normalise
from runs.engine.policy import Cause, Default, Policy, Subject, Verdict, allowed
from runs.engine.state import StepState
from runs.engine.step import action

UNTIMED = (Cause.BUDGET, Cause.CODE_CHANGED)  # these are about the run, not about what a policy is for


def question(
    worker: AnyWorker, cause: Cause, subject: Subject, *, step: StepState | None, terms: Policy, why: str, proposal: Any = None,
    verdict: Verdict | None = None, **about: Any,
) -> dict[str, Any]:  # fmt: skip
    """The data of its StepEscalated. `verdict` is what the policy said, where it is that which sends it here."""
    schema = worker.input_model.model_json_schema() if subject == Subject.INPUT else worker.output.json_schema()
    own, reach, skips = step.effect if step else worker.effect, policy.worst(sdk.effects(worker)), sdk.skip_of(worker) is not None
    effect, declared = policy.worst({own, reach}), sdk.risk(worker)
    said = {"cause": cause, "subject": subject, "proposal": proposal, "why": clean(why), "schema": schema}
    sent_back = step.sent_back if step else 0
    said |= {"allowed": allowed(cause, subject, effects=(own, worker.effect), sent_back=sent_back, may_skip=skips)}
    risk = policy.risk_of(terms, cause, effect, declared=declared)
    said |= {"risk": risk, "effect": reach} | _named(terms, verdict)
    if cause not in UNTIMED and (times := [time for time in (worker.within, terms.within_seconds) if time is not None]):
        terms = replace(terms, default=Default.EXPIRE) if verdict and verdict.is_unclear else terms
        default = policy.default_of(terms, cause, effect, can_skip=skips, declared=declared)
        about |= {"within_seconds": min(times), "default": default}
    return anew(normalise(said | about))


def _named(terms: Policy, verdict: Verdict | None) -> dict[str, Any]:
    if not terms.id:
        return {}
    named: dict[str, Any] = {"policy": {"id": terms.id, "version": terms.version}, "approvals": terms.approvals}
    return named | ({"rule": verdict.rule} if verdict and verdict.rule else {})


def anew(asked: dict[str, Any]) -> dict[str, Any]:
    """The question as it is put now: its time begins now."""
    if "within_seconds" not in asked:
        return asked
    return asked | {"deadline": (event_log.now() + timedelta(seconds=asked["within_seconds"])).isoformat()}


def until(asked: dict[str, Any]) -> datetime | None:
    """Until when a person may decide."""
    return datetime.fromisoformat(asked["deadline"]) if "deadline" in asked else None


def approved(run_id: int, step: StepState, value: Any) -> dict[str, str]:
    """What exactly is approved, where that is an input, to be compared with what would be carried out."""
    if step.subject != Subject.INPUT:
        return {}
    return {"approved": action(run_id, step, worker=step.worker, effect=step.escalation.get("effect", step.effect), value=value)}


def expired(run_id: int, step: StepState) -> dict[str, Any]:
    """The data of its StepExpired: what happens now that nobody has decided, as the policy said when it was asked.

    What is approved is what would be carried out by the code as it is now: where that can do harm, nothing is.
    """
    worker, risk = sdk.find_worker(step.worker), step.escalation.get("risk", "high")
    effect = policy.worst({step.effect} | (sdk.effects(worker) if worker else set()))
    risk = "high" if worker and sdk.risk(worker) == "high" else risk
    match step.escalation.get("default"):
        case Default.APPROVE if worker and policy.may_approve(step.cause, effect, risk):
            return {"default": Default.APPROVE} | approved(run_id, step, step.proposal)
        case Default.SKIP if worker and (skip := sdk.skip_of(worker)):
            return {"default": Default.SKIP, "note": skip.note, "output": normalise(worker.dump(skip.value))}
    return {}
