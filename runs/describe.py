"""Says in one sentence what an event means: for pages, alerts and exports."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from runs.engine.events import Fact, Kind
from runs.engine.outcome import how_crashed, unseen
from runs.engine.policy import Cause

DECISIONS = {
    "approve": "approved",
    "edit": "edited and approved",
    "reject": "rejected",
    "retry": "sent back to be tried again",
    "answer": "answered",
    "happened": "said to have happened",
    "not_happened": "said not to have happened",
    "raise": "given a higher limit",
    "finish": "left out, to finish with what there is,",
    "fork": "answered with a fork of the run",
    "cancel": "answered with a cancel of the run",
    "take_over": "taken over, with a result,",
    "send_back": "sent back for changes",
    "skip": "skipped",
}
LONG = "its error is kept beside the log."
CAUSES = {
    Cause.GATED: "a person must approve it first",
    Cause.LOW_CONFIDENCE: "its confidence is under the threshold",
    Cause.FAILED: "it failed",
    Cause.QUESTION: "the agent asks a person",
    Cause.CODE_CHANGED: "the code changed since it was recorded",
    Cause.OUTCOME_UNKNOWN: "nobody knows whether it happened",
    Cause.BUDGET: "a limit of the run or its agent is reached",
}


MISSING_NAMED = 5
SPAWN = "spawn["  # with what the recorded worker of a step that starts children begins
A_PERSON = "ask_human["  # with what the recorded worker of a question begins
KINDS_OF_ERROR = ("AskHuman", "GiveUp", "TryLater", "crashed", "rejected", "unknown_agent", "unstorable")
KIND_OF_ERROR = re.compile(r"^(AskHuman|GiveUp|TryLater): ")


def said(text: str) -> str:
    """What a worker said when it failed, without the kind of error, which stays in the event."""
    return KIND_OF_ERROR.sub("", text)


def first_steps(number: int) -> str:
    """What a fork takes over: "step 1", "steps 1 and 2", "steps 1 to 5"."""
    return "step 1" if number == 1 else f"steps 1 {'and' if number == 2 else 'to'} {number}"


def sentence(fact: Fact, titles: Mapping[int, str]) -> str:
    """What happened, for a reader who knows no event kinds; `titles` maps the position of a step to its title."""
    say = SENTENCES.get(fact.kind)
    if say is None:
        return f"{fact.kind} (an event of a newer version of agentops)."
    return say(fact.data, _step(fact.step, titles), fact.actor or "agentops")


def what_is_missing(missing: list[dict[str, Any]]) -> str:
    """The end of a run that was completed partially."""
    told = [f"step {one['step']} ({one['title']}): {one['note']}" for one in missing[:MISSING_NAMED]]
    more = f" And {len(missing) - MISSING_NAMED} more." if missing[MISSING_NAMED:] else ""
    return f"Missing: {'; '.join(told)}{more}"


def runs(count: int) -> str:
    """ "1 run", "1,200 runs"."""
    return "1 run" if count == 1 else f"{count:,} runs"


def _step(position: int | None, titles: Mapping[int, str]) -> str:
    if position is None:
        return "The run"
    title = titles.get(position)
    return f"Step {position} ({title})" if title else f"Step {position}"


def when(at: datetime | None) -> str:
    """As sentences say it: with its day, where that is not today."""
    if at is None:
        return "soon"
    at = at.astimezone(UTC)
    return f"at {at:%H:%M:%S} UTC" if at.date() == datetime.now(UTC).date() else f"at {at:%Y-%m-%d %H:%M} UTC"


# --- one function or phrase for each kind -------------------------------------------------------------------------

Say = Callable[[dict[str, Any], str, str], str]


def _run_requested(data: dict[str, Any], step: str, by: str) -> str:
    what, origin = f"{data['agent']}, version {data['agent_version']}", data.get("forked_from")
    if parent := data.get("parent"):
        return f"Run {parent} started a run of {what}, for {by}."
    if not origin:
        return f"{by} started a run of {what}."
    given = f" That step gets another input, given by {by}." if data.get("override") else ""
    return f"{by} forked run {origin['run']} from step {origin['step']}, as a run of {what}.{given}"


def _run_succeeded(data: dict[str, Any], step: str, by: str) -> str:
    missing = data.get("missing")
    return f"The run was completed partially. {what_is_missing(missing)}" if missing else "The run succeeded."


def _parked(data: dict[str, Any], step: str, by: str) -> str:
    if data["cause"] == "person":
        return "The run waits for a person; no process is held."
    if data["cause"] == "reviews":
        return f"The run waits until fewer reviews are open; no process is held. {data['why']}"
    if data["cause"] == "children":
        return f"The run waits for {runs(len(data['runs']))} that it started; no process is held."
    wake_at = data.get("wake_at")
    return f"The run waits and goes on {when(datetime.fromisoformat(wake_at) if wake_at else None)}; no process is held."


def _attempt_failed(data: dict[str, Any], step: str, by: str) -> str:
    again = data["wait_seconds"]
    then = "" if again is None else f" It is tried again in {again:.1f} s."
    message = data["error"]["message"] if isinstance(data["error"], dict) else LONG  # or that is hidden
    return f"{step} failed at attempt {data['attempt']}: {short(message)}{then}"


def _crashed(data: dict[str, Any], step: str, by: str) -> str:
    what = "left no result of" if unseen(data) else "did not come to the end of"
    return f"{step} {what} attempt {data['attempt']}: {short(how_crashed(data))}."


def _deferred(data: dict[str, Any], step: str, by: str) -> str:
    if "dependency" in data:
        return f"{step} was held back for {data['seconds']:.1f} s: {short(data['why'])}"
    why = f" ({short(data['why'])})" if data["why"] else ""
    return f"{step} said that it is too early{why}: it is called again in {data['seconds']:g} s."


def _step_parked(data: dict[str, Any], step: str, by: str) -> str:
    if "question" in data:
        return f"{step} waits to be put to a person: as many reviews of its run are open as may be at once."
    return f"{step} waits for other runs." if data["cause"] == "children" else f"{step} waits."


def _expired(data: dict[str, Any], step: str, by: str) -> str:
    done = {"approve": " It was approved, as its policy says.", "skip": " It was skipped, as its policy says."}
    return f"Nobody decided about {_lower(step)} in time.{done.get(data.get('default', ''), '')}"


def _succeeded(data: dict[str, Any], step: str, by: str) -> str:
    drawn = " It was drawn as a sample, for a person to look at." if data.get("sampled") else ""
    if "threshold" not in data:
        return f"{step} succeeded.{drawn}"
    confidence, threshold = data["confidence"], data["threshold"]
    if confidence is None or not threshold <= confidence:
        how = "without a confidence" if confidence is None else f"with confidence {confidence:.2f}, under {threshold:.2f}"
        return f"{step} succeeded {how}: its policy asks nobody about that.{drawn}"
    return f"{step} succeeded with confidence {confidence:.2f}, at or above the threshold of {threshold:.2f}.{drawn}"


def _decided(data: dict[str, Any], step: str, by: str) -> str:
    reason = f": {short(data['reason'])}" if data["reason"] else "."
    return f"{step} was {DECISIONS[data['decision']]} by {by}{reason}"


def _requested(data: dict[str, Any], step: str, by: str) -> str:
    if data["worker"] in ("sleep", "join"):
        return f"The supervisor came to {_lower(step)}."
    if data["worker"].startswith(SPAWN):
        return f"The supervisor starts other runs, in {_lower(step)}."
    if data["worker"].startswith(A_PERSON):
        asked = data["input"]["question"] if isinstance(data["input"], dict) else data["input"]
        return f"The supervisor asks a person, in {_lower(step)}: {short(asked)}"
    return f"The supervisor wants {_lower(step)}, which a person sees first."


def _escalated(data: dict[str, Any], step: str, by: str) -> str:
    if data["cause"] == Cause.QUESTION:
        return f"{step} waits for the answer."
    return f"{step} went to a person: {short(data['why'])}"


def _with_reason(text: str) -> Say:
    def say(data: dict[str, Any], step: str, by: str) -> str:
        reason = data.get("reason", "")
        return f"{text.format(by=by)}: {short(reason)}" if reason else f"{text.format(by=by)}."

    return say


def _lower(step: str) -> str:
    return step[0].lower() + step[1:]


def short(text: str) -> str:
    line = " ".join(said(text).split())
    return line if len(line) <= 200 else line[:199] + "…"


SENTENCES: dict[str, Say] = {
    Kind.RUN_REQUESTED: _run_requested,
    Kind.RUN_STARTED: lambda data, step, by: f"Job process {data['owner']} began the run.",
    Kind.RUN_RESUMED: lambda data, step, by: f"Job process {data['owner']} went on with the run.",
    Kind.RUN_TAKEN_OVER: lambda data, step, by: (
        f"Job process {data['owner']} took over from {data['from']}, which had gone silent."
    ),
    Kind.RUN_RELEASED: lambda data, step, by: "The job process was asked to stop and gave the run back.",
    Kind.RUN_PARKED: _parked,
    Kind.RUN_SUCCEEDED: _run_succeeded,
    Kind.RUN_FAILED: lambda data, step, by: f"The run failed: {short(data['error']['message'])}",
    Kind.RUN_WOKEN: _with_reason("The run was woken before its time"),
    Kind.RUN_RETRIED: lambda data, step, by: f"{by} let the run go on from where it had ended.",
    Kind.RUN_CANCEL_REQUESTED: _with_reason("{by} asked to cancel the run"),
    Kind.RUN_CANCELLED: _with_reason("The run was cancelled"),
    Kind.STEP_REQUESTED: _requested,
    Kind.STEP_STARTED: lambda data, step, by: f"The supervisor gave {_lower(step)} to {data['worker']}.",
    Kind.ATTEMPT_STARTED: lambda data, step, by: f"{step} began attempt {data['attempt']}.",
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.ATTEMPT_CRASHED: _crashed,
    Kind.FALLBACK_TAKEN: lambda data, step, by: f"{step} went to its fallback {data['worker']}: {short(data['why'])}",
    Kind.STEP_SUCCEEDED: _succeeded,
    Kind.STEP_SKIPPED: lambda data, step, by: f"{step} was skipped: {short(data['note'])} {short(data['why'])}",
    Kind.STEP_ESCALATED: _escalated,
    Kind.STEP_DECIDED: _decided,
    Kind.DECISION_REVOKED: lambda data, step, by: (
        f"{by} took back the decision about {_lower(step)}: it waits for a person again."
    ),
    Kind.STEP_DEFERRED: _deferred,
    Kind.STEP_PARKED: _step_parked,
    Kind.STEP_EXPIRED: _expired,
    Kind.STEP_WITHDRAWN: lambda data, step, by: f"Nobody needs to decide about {_lower(step)} any more.",
    Kind.STEP_COPIED: lambda data, step, by: f"{step} was taken over from run {data['run']} as it was recorded.",
}
