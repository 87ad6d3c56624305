"""What a person or a system may do to a run: start, decide, cancel, retry, fork; and to an agent: configure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from django.db import transaction
from django.forms import model_to_dict
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from runs import budgets, children, dispatch, escalations, event_log, sdk
from runs.engine import budget
from runs.engine.canonical import clean, digest, normalise, stored
from runs.engine.events import Draft, Kind
from runs.engine.masking import MASK, secrets
from runs.engine.policy import ALLOWED, Cause, Subject, policy_of
from runs.engine.state import RunState, Status, StepState, copied
from runs.models import AgentConfig, Policy, Run
from runs.pen import certain, execute
from runs.requests import Refused, UnknownAgent, configuration, enabled, find_agent, in_force, request, summary, tagged

__all__ = [
    "Refused", "UnknownAgent", "authors", "cancel", "certain", "check_value", "configuration", "configure", "configured_by",
    "decide", "effective_at", "find_agent", "fork", "retry", "revoke", "seen", "settings_of", "start", "summary", "value_of",
]  # fmt: skip


def start(slug: str, given: Any, *, by: str, tags: str | Iterable[str] = ()) -> Run:
    """Start a run of the agent on the input (a dict or its model). `by` is the username, "" for the system.

    Raises UnknownAgent, Refused when the agent is disabled or one of `tags` is none, pydantic's ValidationError when the input
    does not fit, and Unstorable when it cannot be kept.
    """
    draft = request(slug, given, by=by, tags=tags)
    with certain():
        log = event_log.create(draft)
        dispatch.enqueue(log.run_id, log.state.seq)
    return Run.objects.get(pk=log.run_id)


def decide(
    run_id: int, position: int, decision: str, *, by: str, fingerprint: str, value: Any = None, reason: str = "", tag: str = "",
    agreed: Sequence[str] = (), undo_seconds: float = 0.0, is_locked: bool = False,
) -> datetime | None:  # fmt: skip
    """Record a person's decision about a waiting step and let the run go on.

    `value` is the edited or answered JSON value. `fingerprint` is what the person saw (see `seen`). `tag` is the class of
    the reason, `agreed` names those who approved it before. `is_locked`: the caller's transaction has locked the row of the run.

    The decision is carried out after `undo_seconds`, and can be taken back until then (see `revoke`): returns that time,
    or None where it is carried out at once. What ends the run, and what concerns others too, is carried out at once.
    Raises Refused when the step no longer waits, has changed, or does not allow the decision;
    pydantic's ValidationError when the value does not fit.
    """
    with event_log.locked(run_id, is_locked=is_locked) as log:
        step = log.state.steps.get(position)
        if step is None or not step.asked or log.state.ended:
            raise Refused("This step no longer waits for a person: somebody decided, its time ran out, or the run has ended.")
        if step.deadline and step.deadline <= event_log.now():
            raise Refused(f"The time to decide ran out at {step.deadline:%Y-%m-%d %H:%M} UTC.")
        if fingerprint != seen(step):
            raise Refused("What is proposed has changed since you looked. Read it again, then decide.")
        data = {"decision": decision, "reason": clean(reason), "value": _decided_value(step, decision, value)}
        data |= {"seen": fingerprint} | _said(tag=tag, agreed=list(agreed)) | _more(run_id, step, decision, data["value"])
        if step.cause == Cause.BUDGET:
            budgets.decided(step.proposal, decision, data["value"], run_id=run_id, by=by)
        if decision in ENDS_THE_RUN:
            _decide_to_end(log, position, data, by=by)
            return None
        until = effective_at(undo_seconds) if _may_be_undone(step) else None
        data |= {"effective_at": until.isoformat()} if until else {}
        log.append(Draft(Kind.STEP_DECIDED, data, position, actor=by))
        if until is None:
            dispatch.enqueue(run_id, log.state.seq)  # else the sweeper calls it when the time has come
        return until


def effective_at(undo_seconds: float) -> datetime | None:
    """When a decision of now is carried out; None: at once."""
    return event_log.now() + timedelta(seconds=undo_seconds) if undo_seconds else None


def authors(run_id: int, worker: str) -> set[str]:
    """Who wrote the last change of what sends the steps of this worker to a person: its policy, or the agent's threshold.

    Of the threshold whoever wrote the one that the run has, and whoever wrote the one there is now.
    """
    state = event_log.state(run_id, until=1)
    versions = configuration(state.agent).events.order_by("pgh_id")  # type: ignore[attr-defined]  # pghistory's
    now = list(versions.values_list("version", "threshold", "changed_by"))
    then = [one for one in now if one[0] <= state.config["version"]]
    return {policy_of(state.config, worker).changed_by, _set_threshold(now), _set_threshold(then)} - {""}


def configured_by(name: str) -> set[str]:
    """Agents of which this person has ever changed the configuration or a policy: only of these may they be an author."""
    models: list[tuple[Any, str]] = [(AgentConfig, "slug"), (Policy, "agent")]
    versions = [model.pgh_event_model.objects.filter(changed_by=name).order_by().values_list(slug) for model, slug in models]
    return {slug for (slug,) in versions[0].union(versions[1])}


def _set_threshold(versions: list[tuple[int, float, str]]) -> str:
    """Who changed it last; "" where it is the declaration's."""
    return next((by for (_, before, _), (_, after, by) in reversed(list(pairwise(versions))) if before != after), "")


def _said(**said: Any) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value}


def revoke(run_id: int, position: int, *, by: str, is_locked: bool = False) -> None:
    """Take back the last decision about a step, before it is carried out: it waits for a person as it did.

    Raises Refused when it is too late.
    """
    with event_log.locked(run_id, is_locked=is_locked) as log:
        step = log.state.steps.get(position)
        if log.state.ended:
            raise Refused("The run has ended meanwhile, so the decision can no longer be taken back.")
        if step is None or step.before is None or step.effective_at is None:
            raise Refused("There is no decision here that could be taken back.")
        now = event_log.looked_at_clock()  # since the row is locked: whoever goes on from the decision does so later
        if step.effective_at <= now:
            raise Refused("It is already being carried out, so it can no longer be taken back.")
        if step.before.deadline and step.before.deadline <= now:
            raise Refused("The time to decide has run out meanwhile, so the decision stands.")
        log.append(Draft(Kind.DECISION_REVOKED, {}, position, actor=by))
        dispatch.enqueue(run_id, log.state.seq)


def _may_be_undone(step: StepState) -> bool:
    """Not what other runs have gone on from already, nor what only compares the code anew."""
    return step.cause not in (Cause.BUDGET, Cause.CODE_CHANGED)


def _more(run_id: int, step: StepState, decision: str, value: Any) -> dict[str, Any]:
    """What the event of this decision says besides."""
    if decision == "skip":
        return {"note": _skip(step).note}
    return escalations.approved(run_id, step, value) if decision in ("approve", "edit") else {}


def _skip(step: StepState) -> sdk.Skip:
    worker = sdk.find_worker(step.worker)
    skip = sdk.skip_of(worker) if worker else None
    if skip is None:
        raise Refused(f"The worker {step.worker} no longer says what a run goes on with when it is skipped. Choose otherwise.")
    return skip


ENDS_THE_RUN = ("fork", "cancel")


def _decide_to_end(log: event_log.RunLog, position: int, data: dict[str, Any], *, by: str) -> None:
    """The run ends as cancelled; where the decision is "fork", a new run goes on from the step."""
    reason, is_running = data["reason"], log.state.status == Status.RUNNING
    if data["decision"] == "fork":
        data["fork"] = _fork(log.run_id, log.state, position, by=by, config="recorded").run_id
        reason = f"Run {data['fork']} goes on from step {position}."
    log.append(Draft(Kind.STEP_DECIDED, data, position, actor=by))
    children.cancel(log, by=by, reason=reason, is_running=is_running)


def seen(step: StepState) -> str:
    """Fingerprint of what a reviewer decides about: the step, its question and its proposal, and the terms of its policy."""
    terms = {name: step.escalation[name] for name in TERMS if name in step.escalation}  # logs of the first versions have none
    return digest(step.fingerprint, step.cause, step.subject, step.proposal, step.attempt, *([terms] if terms else []))


TERMS = ("policy", "rule", "approvals", "risk")


def cancel(run_id: int, *, by: str, reason: str = "") -> None:
    """End the run: at once where it waits, after its present step where it is running. Raises Refused when it has ended."""
    with event_log.locked(run_id) as log:
        if log.state.ended:
            raise Refused(f"The run has already ended ({log.state.status}); there is nothing to cancel.")
        children.cancel(log, by=by, reason=clean(reason), is_running=log.state.status == Status.RUNNING)


def retry(run_id: int, *, by: str) -> None:
    """Let a failed or cancelled run go on from the step where it ended.

    Raises Refused in any other state, and UnknownAgent where its agent is not installed: it would fail at once.
    """
    with event_log.locked(run_id) as log:
        if log.state.status not in (Status.FAILED, Status.CANCELLED):
            raise Refused(f"Only a failed or cancelled run can be retried; this one is {log.state.status}.")
        find_agent(log.state.agent)
        log.append(Draft(Kind.RUN_RETRIED, {}, actor=by))
        budgets.retried(run_id)
        dispatch.enqueue(run_id, log.state.seq)


# --- forks: a new run that takes over the first steps of another ---------------------------------------------------

Terms = Literal["recorded", "current"]
STAYS = "SELECT id FROM runs_run WHERE id = %(run_id)s FOR KEY SHARE"
COPIED_TOGETHER = 100  # steps in one statement: PostgreSQL takes 256 MB of JSON in one value, an event has up to 64 K letters
HAVE_ENDED = (Status.SUCCEEDED, Status.SKIPPED, Status.REJECTED, Status.EXPIRED)


def fork(
    run_id: int, *, step: int, by: str, input: Any = None, config: Terms = "recorded",  # noqa: A002 - the word
    tags: str | Iterable[str] | None = None,
) -> Run:  # fmt: skip
    """Start a run that takes over the steps before `step` as recorded, and executes it and all after it with the present code.

    `input` is given to that step instead of the supervisor's own; `config` says which configuration is in force; without `tags`
    it has those of the original, which stays as it is. Raises Run.DoesNotExist, Refused when it cannot be forked there or one of
    `tags` is none, and pydantic's ValidationError when the input does not fit.
    """
    state = event_log.RunLog.load(run_id).state
    if not state.seq:
        raise Run.DoesNotExist(f"There is no run {run_id}.")
    with certain():
        if not execute(STAYS, {"run_id": run_id}):  # retention removes it before this, or not at all
            raise Run.DoesNotExist(f"There is no run {run_id}.")
        log = _fork(run_id, state, step, by=by, config=config, given=input, tags=tags)
    return Run.objects.get(pk=log.run_id)


def unforkable(run_id: int, step: int) -> str:
    """Why no run can be forked from the step, or "" when one can."""
    return _unforkable(event_log.RunLog.load(run_id).state, step)


def _unforkable(state: RunState, step: int) -> str:
    if step not in state.steps:
        return f"There is no step {step} to fork from; the run has {len(state.steps)}."
    now = event_log.now()
    for position in range(1, step):
        earlier = state.steps.get(position)
        if earlier and earlier.effective_at and earlier.effective_at > now:
            return f"The decision about step {position} ({earlier.title}) can still be taken back: try again in a few seconds."
        if earlier is None or earlier.status not in HAVE_ENDED:
            named = f"{position} ({earlier.title})" if earlier else str(position)
            return f"Step {named} has not ended, so nobody can go on after it: fork from it or an earlier one, or wait for it."
    return ""


def _fork(
    run_id: int, state: RunState, step: int, *, by: str, config: Terms, given: Any = None, tags: str | Iterable[str] | None = None
) -> event_log.RunLog:
    """Within a transaction: the request, then each step before `step` as it was recorded."""
    if why_not := _unforkable(state, step):
        raise Refused(why_not)
    agent = find_agent(state.agent)
    current = in_force(enabled(agent))
    terms = current if config == "current" else state.config
    _check_still_fits(agent, run_id, state.input, terms["values"])
    data = {"agent": agent.slug, "agent_version": agent.version, "input": state.input, "summary": state.summary}
    data |= {"config": terms, "forked_from": {"run": run_id, "step": step}} | tagged(state.tags if tags is None else tags)
    if given is not None:
        worker = state.steps[step].worker
        data["override"] = {"worker": worker, "input": stored(check_value(worker, Subject.INPUT, given))}
    log = event_log.create(Draft(Kind.RUN_REQUESTED, data, actor=by))
    for first in range(1, step, COPIED_TOGETHER):
        taken_over = [state.steps[position] for position in range(first, min(first + COPIED_TOGETHER, step))]
        log.append(*(Draft(Kind.STEP_COPIED, copied(one) | {"run": run_id}, one.position, actor=by) for one in taken_over))
    dispatch.enqueue(log.run_id, log.state.seq)
    return log


def _check_still_fits(agent: sdk.Agent, run_id: int, given: Any, values: Any) -> None:
    for model, value, what in ((agent.input_model, given, "input"), (agent.config_model, values, "configuration")):
        try:
            model.model_validate(value)
        except ValidationError as error:
            told = f"The {what} of run {run_id} does not fit the agent {agent.title} as the code is now, so it cannot be forked"
            first = error.errors()[0]
            raise Refused(f"{told}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


# --- agents and their configuration -----------------------------------------------------------------------------


def configure(slug: str, *, by: str, **changes: Any) -> AgentConfig:
    """Change the configuration and raise its version; runs that have started keep the one they started with.

    What changes nothing makes no version. Raises django's ValidationError for a value out of range, and what
    `settings_of` raises.
    """
    agent = find_agent(slug)
    configuration(slug)
    if "values" in changes:
        changes["values"] = settings_of(agent, changes["values"])
    with transaction.atomic():
        config = AgentConfig.objects.select_for_update().get(slug=slug)
        before = model_to_dict(config)
        for name, value in changes.items():
            setattr(config, name, value)
        config.full_clean()
        if changed := {name for name, value in model_to_dict(config).items() if value != before[name]}:
            config.version, config.changed_by = config.version + 1, by
            config.save()
            budgets.configured(config, changed)
    return config


def settings_of(agent: sdk.Agent, given: Any) -> Any:
    """The agent's own settings as they are kept, completed with its defaults.

    Raises pydantic's ValidationError for what does not fit, Unstorable for what cannot be kept, Refused for a name that
    the agent does not know: pydantic would drop it, and the admin would believe that it is in force.
    """
    kept = stored(sdk.dump_model(agent.config_model.model_validate(stored(given))))
    for name, known in _dropped(given, kept):
        raise Refused(f"Unknown setting {clean(name, 80)}; known: {', '.join(known) or 'none'}.")
    return kept


# --- parts ------------------------------------------------------------------------------------------------------


def _dropped(given: Any, kept: Any, place: str = "") -> Iterator[tuple[str, list[str]]]:
    """Names that were given and not kept, each with those that are known in its place."""
    if isinstance(given, list) and isinstance(kept, list):
        for number, (one, other) in enumerate(zip(given, kept, strict=False)):
            yield from _dropped(one, other, f"{place}{number}.")
    if not (isinstance(given, dict) and isinstance(kept, dict)):
        return
    for name, value in given.items():
        if name in kept:
            yield from _dropped(value, kept[name], f"{place}{name}.")
        else:
            yield f"{place}{name}", list(kept)


CARRY_NOTHING = ("reject", "retry", "send_back", "not_happened", "finish", *ENDS_THE_RUN)


def _decided_value(step: StepState, decision: str, value: Any) -> Any:
    """What the step goes on with. Raises Refused for a decision the cause does not allow, ValidationError for a bad value."""
    if decision not in step.escalation.get("allowed", ALLOWED[Cause(step.cause)]):
        raise Refused(f"A step that waits because it is {step.cause.replace('_', ' ')} cannot be decided with {decision!r}.")
    if decision == "send_back" and "once" in _effects(step):
        raise Refused("What may be done only once has been done, so it is not sent back. Approve, correct or reject the result.")
    if decision in CARRY_NOTHING:
        return None
    if decision == "approve":
        return step.proposal
    if decision == "raise":
        return raised(step.proposal, value)
    if decision == "skip":
        return normalise(check_value(step.worker, Subject.OUTPUT, _skip(step).value))
    return stored(check_value(step.worker, value_of(decision, step.subject), value))


def _effects(step: StepState) -> set[str]:
    """Of its worker, as recorded and as the code is now."""
    worker = sdk.find_worker(step.worker)
    return {step.effect} | ({worker.effect} if worker else set())


def value_of(decision: str, subject: str) -> str:
    """Which of the two the value is that a decision carries: the step's input, or its output."""
    return Subject.OUTPUT if decision == "take_over" else subject


def raised(asked: Any, value: Any) -> str:
    """The limit to which a person raises a budget. Raises Refused with a sentence for what cannot be one."""
    try:
        return budget.raised(asked, value)
    except ValueError as error:
        raise Refused(str(error)) from error


def check_value(worker_name: str, subject: str, value: Any) -> Any:
    """The value as JSON after validation by the worker's input or output type.

    Raises Refused when the code no longer has the worker, pydantic's ValidationError when the value does not fit.
    """
    worker = sdk.find_worker(worker_name)
    if worker is None:
        told = f"The worker {worker_name} is no longer in the code, so nothing can be edited."
        raise Refused(f"{told} Choose otherwise, or restore it.")
    checked = worker.dump_input(value) if subject == Subject.INPUT else worker.dump(value)
    if any(text != MASK for text in secrets(checked, worker.masked)):
        told = f"{', '.join(worker.masked)} is never recorded, so it cannot be given here. Leave {MASK} in its place."
        complaint = InitErrorDetails(type=PydanticCustomError("masked", "{told}", {"told": told}), loc=(), input=None)
        raise ValidationError.from_exception_data(worker.title, [complaint])
    return checked
