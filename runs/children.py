"""Runs that a run starts: each begins once, is waited for without a process, and is cancelled with its parent."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.db import transaction
from pydantic import ValidationError

from runs import dispatch, event_log, sdk
from runs.engine import budget
from runs.engine.canonical import Large, clean, digest, dumps, stored
from runs.engine.events import Draft, Kind
from runs.engine.policy import ALLOWED, Cause, Subject
from runs.engine.state import RunState, Status, StepState
from runs.models import Run, RunStatus
from runs.models.content import hidden
from runs.models.run import COMPLETED, ENDED
from runs.nexts import Open, refusal
from runs.pen import certain, patiently
from runs.reliability import line
from runs.requests import Refused, enabled, find_agent, in_force, request, tagged
from runs.steps import Steps, interruptible

MOST_DEEP = 5  # runs above one another; a person may let a family go deeper
OUTPUT_LETTERS = 1_000_000  # of all outputs of a join together; beyond, they stay with the children
ERROR_LETTERS = 2_000_000  # likewise of their errors, which are shortened


# --- what a supervisor asks for -----------------------------------------------------------------------------------


def spawn(
    steps: Steps, name: str, agent: sdk.Agent | str, inputs: Sequence[Any], tags: Iterable[str] | None = None
) -> list[sdk.Child]:
    """What run.spawn and run.spawn_many do: the children begin in the transaction that records the step."""
    with interruptible():
        slug = agent if isinstance(agent, str) else agent.slug
        title = f"Start {find_agent(slug).title}"
        values = [_input(name, slug, given) for given in inputs]
        given = values[0] if len(values) == 1 else {"runs": len(values), "digest": digest(values)}
        asked = steps.request(name, f"spawn[{slug}]", title=title, given=given, same_as=values)
        step = steps.recorded(asked)
        if step is None or step.status != Status.SUCCEEDED:
            _ask_if_over(steps, asked, step, len(values))
            ids = _begin(steps, asked, slug, values, tags)
        else:
            ids = step.output if isinstance(step.output, list) else [step.output]
        return [sdk.Child(run_id, slug) for run_id in ids]


def join(steps: Steps, name: str, children: Sequence[sdk.Child]) -> list[sdk.Outcome]:
    """What run.join does: how each child ended, recorded once; until then the run is parked."""
    with interruptible():
        ids = [child.run_id for child in children]
        many = f"{len(ids)} runs" if len(ids) != 1 else "1 run"
        asked = steps.request(name, "join", title=f"Wait for {many}", given={"runs": ids}, same_as=ids)
        step = steps.recorded(asked)
        if step is None:
            steps.unwritten.append(Draft(Kind.STEP_REQUESTED, asked, steps.position))
        elif step.status == Status.SUCCEEDED:
            return _outcomes(steps, children, _with_outputs(step.output))
        ended = _ended(steps, ids)
        steps.unwritten.append(Draft(Kind.STEP_SUCCEEDED, {"output": _recorded(ended)}, steps.position))
        return _outcomes(steps, children, ended)


# --- when a run ends ------------------------------------------------------------------------------------------------


def ring_parent(state: RunState) -> None:
    """After a run has ended: call a job process for its parent, where that waited for nothing else."""
    if state.ended and state.parent_id:
        ring(state.parent_id)


def ring(run_id: int) -> None:
    """Call a job process for this run, if it is due. A lost call is made good by the sweeper."""
    dispatch.enqueue_now([dispatch.Call(*row) for row in Run.objects.due().filter(pk=run_id).values_list("pk", "last_seq")])


def parent_has_read(run: Run) -> bool:
    """Its parent has recorded how this run ended, and went on from that, or has ended itself: nothing changes there any more."""
    if run.parent is None or run.status not in ENDED:
        return False
    if run.parent.ended:
        return True
    joins = list(run.parent.steps.filter(worker="join", status=RunStatus.SUCCEEDED))
    with hidden(False):  # only numbers of runs are asked
        return any(run.pk in _whole(step.input)["runs"] for step in event_log.with_payloads(run.parent.pk, joins))


def _whole(value: Any) -> Any:
    if not isinstance(value, Large):
        return value
    return json.loads(event_log.payload_slice(value.run_id, value.hash, 1, value.bytes) or "null")


def cancel_orphans(most: int) -> int:
    """Cancel up to so many open children of cancelled runs; return how many."""
    orphans = list(Run.objects.orphaned().order_by("pk").values_list("pk", "parent_id")[:most])
    for run_id, parent_id in orphans:
        with event_log.locked(run_id) as log:
            if not (log.state.ended or log.state.cancel_requested):
                told = f"Run {parent_id}, which had started it, was cancelled."
                cancel(log, by="", reason=told, is_running=log.state.status == Status.RUNNING)
    return len(orphans)


def cancel(log: event_log.RunLog, *, by: str, reason: str, is_running: bool) -> None:
    """End an open run: at once where nobody advances it, else after its present step. Called in a transaction."""
    said = {"reason": reason}
    drafts = [] if log.state.cancel_requested else [Draft(Kind.RUN_CANCEL_REQUESTED, said, actor=by)]
    if is_running:
        log.append(*drafts)
        return
    line.leave(log.run_id, log.state)
    log.append(*drafts, Draft(Kind.RUN_CANCELLED, said, actor=by), release=True)
    ended = log.state
    transaction.on_commit(lambda: ring_parent(ended))


# --- parts ------------------------------------------------------------------------------------------------------


def _input(name: str, slug: str, given: Any) -> Any:
    """What a child is given, as it is recorded. Raises Refused with a sentence where it does not fit."""
    try:
        return stored(sdk.dump_model(find_agent(slug).input_model.model_validate(given)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise Refused(f"The input of step {name!r} does not fit the agent {slug}: {place}: {first['msg']}.") from error


def _ask_if_over(steps: Steps, asked: dict[str, Any], step: StepState | None, more: int) -> None:
    """Where the run has come to the end of what it may start by itself, a person says whether it goes on; nothing is started."""
    if step and step.status in (Status.REJECTED, Status.EXPIRED):
        steps.settle(refusal(step))
    if step and step.asked:
        steps.settle(Open("person", steps.position, step.deadline))
    state, limits = steps.log.state, _limits(steps.log.state)
    begun = patiently(Run.objects.filter(parent=steps.log.run_id).count, steps.may_wait())
    over = budget.over(state.steps, steps.position, limits=limits, seconds=steps.here.seconds(limits), given=None)
    over = over or budget.over_starts(asked["name"], begun=begun, more=more, depth=state.depth, limits=limits)
    if over:
        data = {"cause": Cause.BUDGET, "subject": Subject.OUTPUT, "proposal": over.question, "why": over.why, "schema": {}}
        escalated = Draft(Kind.STEP_ESCALATED, data | {"allowed": list(ALLOWED[Cause.BUDGET])}, steps.position)
        requested = [] if step else [Draft(Kind.STEP_REQUESTED, asked, steps.position)]
        steps.settle(Open("person", steps.position, drafts=[*requested, escalated]))


def _limits(state: RunState) -> dict[str, Any]:
    """Those of its configuration, and how many runs it may start, and how deep below the first, unless a person raised that."""
    usual: dict[str, Any] = {"children": settings.CHILDREN_LIMIT, "depth": MOST_DEEP}
    usual |= state.config.get("budget", {}) | state.raised
    return usual


def _begin(steps: Steps, asked: dict[str, Any], slug: str, values: list[Any], tags: Iterable[str] | None) -> list[int]:
    """Children and step in one transaction; their jobs after it. Raises Refused for a disabled agent, and for what is no tag."""
    steps.write_results()  # nothing but what can be done again is in the transaction below
    state, run_id = steps.log.state, steps.log.run_id
    terms, depth = in_force(enabled(find_agent(slug))), state.depth + 1
    if (deepest := int(_limits(state)["depth"])) != MOST_DEEP:  # as a person let this family go
        terms["budget"] = terms["budget"] | {"depth": deepest}
    more: dict[str, Any] = {"terms": terms, "parent": run_id, "depth": depth}
    more |= tagged(state.tags if tags is None else tags)
    drafts = [request(slug, value, by=state.started_by, **more) for value in values]
    try:
        with certain():
            logs = event_log.create_all(drafts)
            ids = [log.run_id for log in logs]
            output = ids[0] if len(ids) == 1 else ids
            requested = [] if steps.position in state.steps else [Draft(Kind.STEP_REQUESTED, asked, steps.position)]
            steps.log.append(*steps.unwritten, *requested, Draft(Kind.STEP_SUCCEEDED, {"output": output}, steps.position))
    except event_log.CancelRequested:
        steps.stop_if_asked()
    except event_log.DecisionRevoked:
        steps.go_back(steps.unwritten)
        steps.stop_if_asked()
    steps.unwritten = []
    dispatch.enqueue_now([dispatch.Call(log.run_id, log.state.seq) for log in logs])
    return ids


def _ended(steps: Steps, ids: list[int]) -> list[dict[str, Any]]:
    """How each of these runs ended; parks while one is open."""
    runs = patiently(lambda: Run.objects.only("status", "output", "error").in_bulk(ids), steps.may_wait())
    # the last to begin first: it is the likeliest to be open still, and the first that is open answers
    if open_ := [run_id for run_id in reversed(ids) if runs[run_id].status not in ENDED]:
        parked = Draft(Kind.STEP_PARKED, {"cause": "children"}, steps.position)
        try:
            steps.settle(Open("children", steps.position, drafts=[parked], runs=open_))
        finally:
            ring(steps.log.run_id)  # they may have ended while this was written
    room = ERROR_LETTERS // max(1, len(ids))
    return [_as_ended(runs[run_id], room) for run_id in ids]


def _as_ended(run: Run, room: int) -> dict[str, Any]:
    error = clean((run.error or {}).get("message", ""), room)
    return {"run": run.pk, "status": run.status, "output": _output(run), "error": error}


def _output(run: Run) -> Any:
    if run.status in COMPLETED and run.output is None:  # too large for its row
        return event_log.RunLog.load(run.pk).state.output
    return run.output


def _recorded(ended: list[dict[str, Any]]) -> Any:
    """What the join keeps: where the outputs are large together, only their digests. A completed run never changes."""
    if sum(len(dumps(one["output"])) for one in ended) <= OUTPUT_LETTERS:
        return stored(ended)
    return stored([_apart(one) if one["status"] in COMPLETED else one for one in ended])


def _apart(one: dict[str, Any]) -> dict[str, Any]:
    return one | {"output": None, "digest": digest(one["output"])}


def _with_outputs(recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reverse of `_recorded`."""
    runs = Run.objects.only("status", "output").in_bulk([one["run"] for one in recorded if "digest" in one])
    return [one | {"output": _same(one, _output(runs[one["run"]]))} if "digest" in one else one for one in recorded]


def _same(recorded: dict[str, Any], output: Any) -> Any:
    if digest(output) != recorded["digest"]:
        raise ValueError(f"The output of run {recorded['run']} is no longer what was recorded when it was waited for.")
    return output


def _outcomes(steps: Steps, children: Sequence[sdk.Child], ended: list[dict[str, Any]]) -> list[sdk.Outcome]:
    """What a child was completed without, its parent is completed without."""
    if partial := [one["run"] for one in ended if one["status"] == RunStatus.PARTIAL]:
        others = f" and {len(partial) - 1} more were" if partial[1:] else " was"
        note = f"Run {partial[0]}{others} completed partially."
        steps.missing.append({"step": steps.position, "title": "Wait for other runs", "note": note})
    return [_outcome(child, one) for child, one in zip(children, ended, strict=True)]


def _outcome(child: sdk.Child, ended: dict[str, Any]) -> sdk.Outcome:
    output = ended["output"]
    if ended["status"] in COMPLETED:
        output = find_agent(child.agent).output_model.model_validate(output)
    return sdk.Outcome(child.run_id, ended["status"], output, ended["error"])
