"""Says in one sentence why a run or a step does not move."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from runs.describe import CAUSES, short, when
from runs.engine.events import Kind
from runs.engine.policy import Cause
from runs.models import Run, RunStatus, Step

OTHERS_NAMED = 2


@dataclass(frozen=True, slots=True)
class Wait:
    """What a run waits for: a step, or several of which a person is asked; a deadline of theirs; children that are open.

    `why` is what guard, or the worker, said of a step that it held back (`by_limit`: a limit that a person may raise),
    `others` for which other dependencies further steps wait. `claimed` is who is at the reviews, and until when. `before` is
    how many runs stand before it on the queue (None: it is not on it, or nobody knows), `processes` how many job processes
    there are (None: nobody knows), `no_queue` that Redis does not answer. `late`: its time has passed, and it still stands.
    """

    step: Step | None = None
    asked: int = 1
    expires: bool = False
    open_children: int = 0
    why: str = ""
    by_limit: bool = False
    others: tuple[str, ...] = ()
    claimed: tuple[tuple[str, datetime], ...] = ()
    before: int | None = None
    processes: int | None = None
    no_queue: bool = False
    late: bool = False


def waiting(run: Run, wait: Wait) -> str:
    """Why the run does not move now, or "" when it moves or has ended."""
    said = _waiting(run, wait)
    return f"{said} That time has passed. {_still_standing(wait)}" if wait.late and when(run.wake_at) in said else said


def _waiting(run: Run, wait: Wait) -> str:
    if run.cancel_requested and not run.ended:
        return f"It is being cancelled: its present step may take another {settings.CANCEL_SECONDS:g} s, then it is cut off."
    if run.status == RunStatus.QUEUED and run.wake_at and run.wake_at > datetime.now(UTC):
        return _waiting_for_undo(run, wait)
    if run.status == RunStatus.QUEUED:
        return _waiting_for_process(wait)
    if run.status == RunStatus.RUNNING and run.lease_until and run.lease_until < datetime.now(UTC):
        return f"Its job process {run.lease_owner} has gone silent: another takes over within seconds, if one is running."
    if run.status == RunStatus.RETRYING:
        return _waiting_to_try_again(run, wait.step)
    if run.status == RunStatus.WAITING:
        return _WAITS.get(run.waiting_cause, _waiting_for_person)(run, wait)
    return _waiting_for_a_moment(wait) if run.status == RunStatus.RUNNING and wait.step else ""


def _still_standing(wait: Wait) -> str:
    """Why it does so beyond its time."""
    if wait.before is None and wait.processes:
        return "The sweeper, which wakes it, has not done so yet."
    return _waiting_for_process(wait)


def _waiting_for_process(wait: Wait) -> str:
    if wait.no_queue:
        return "Redis, which has the queue, does not answer: it goes on when Redis is back."
    if wait.processes == 0:
        return "No job process is running: it waits until an engineer starts one."
    if wait.before is None:
        return "It waits for a free job process."
    if wait.before == 0:
        return "It is the next that a free job process takes."
    stand = "1 run stands" if wait.before == 1 else f"{wait.before:,} runs stand"
    return f"It waits for a free job process: {stand} before it."


def _waiting_for_undo(run: Run, wait: Wait) -> str:
    return f"The decision can still be taken back: it is carried out {when(run.wake_at)}."


def _waiting_to_try_again(run: Run, step: Step | None) -> str:
    if step is None:
        return f"It waits and goes on {when(run.wake_at)}."
    message = short((step.error or {}).get("message", ""))
    end = "" if message.endswith((".", "!", "?", "…")) else "."
    return f"It tries {_title(step)} again {when(run.wake_at)}{f', which failed: {message}' if message else ''}{end}"


def _waiting_for_a_moment(wait: Wait) -> str:
    return " ".join(filter(None, [f"{_upper(_title(wait.step))} is held back for a moment.", wait.why]))


def _waiting_for_person(run: Run, wait: Wait) -> str:
    without = "without an answer" if wait.expires else "with another step"
    until, step = f" It goes on {without} {when(run.wake_at)}." if run.wake_at else "", wait.step
    until = "".join(f" {who} is at it until {when(till).removeprefix('at ')}." for who, till in wait.claimed) + until
    if wait.asked > 1:
        return f"It waits for a person at {wait.asked} steps.{until}"
    if step is None or step.cause not in CAUSES:
        return f"It waits for a person.{until}"
    return f"It waits for a person at {_title(step)}: {CAUSES[Cause(step.cause)]}.{until}"


def _waiting_for_budget(run: Run, wait: Wait) -> str:
    if wait.why and not wait.by_limit:
        return _waiting_for_dependency(run, wait)
    until = f"It goes on when the limit is raised, and looks again {when(run.wake_at)}."
    return f"{_upper(_title(wait.step))} is held back. {wait.why or HELD_BACK['budget']} {until}"


def _waiting_for_room(run: Run, wait: Wait) -> str:
    what = f"{_upper(_title(wait.step))} waits to be put to a person" if run.waiting_step else "It has not begun"
    return f"{what}. {wait.why} It goes on by itself when some of them are decided."


def _waiting_for_children(run: Run, wait: Wait) -> str:
    waited_for = len(run.waiting_runs or [])
    which = f"{wait.open_children:,} of the {waited_for:,} runs" if waited_for > 1 else "the run"
    return f"It waits for {which} that it started."


def _waiting_for_dependency(run: Run, wait: Wait) -> str:
    why = wait.why or HELD_BACK[run.waiting_cause]
    return f"{_upper(_title(wait.step))} is held back. {why}{_held_by(wait.others)} It tries again {when(run.wake_at)}."


def _held_by(others: tuple[str, ...]) -> str:
    """The other dependencies, of which a few are named."""
    named, more = others[:OTHERS_NAMED], len(others) - OTHERS_NAMED
    return f" Other steps wait for {', '.join(named)}{f' and {more} more' if more > 0 else ''}." if named else ""


def _too_early(run: Run, wait: Wait) -> str:
    why = f" ({short(wait.why)})" if wait.why else ""
    return f"{_upper(_title(wait.step))} said that it is too early{why}: it is called again {when(run.wake_at)}."


HELD_BACK = {
    "limit": "What it calls has reached its limit.",
    "slot": "What it calls has no free slot.",
    "breaker": "What it calls has failed too often, and its breaker is open.",
    "switched_off": "What it calls is switched off.",
    "budget": "Its budget is used up.",
}
_WAITS: dict[str, Callable[[Run, Wait], str]] = {
    **dict.fromkeys(HELD_BACK, _waiting_for_dependency),
    "budget": _waiting_for_budget,
    "timer": lambda run, wait: f"It waits and goes on {when(run.wake_at)}.",
    "later": _too_early,
    "undo": _waiting_for_undo,
    "children": _waiting_for_children,
    "reviews": _waiting_for_room,
}


def step_waits(kind: str, data: dict[str, Any]) -> str:
    """Why a step does not move, by the last of its events that says so; "" where a person is asked."""
    if kind == Kind.STEP_ESCALATED:
        return ""
    at = when(datetime.fromisoformat(data["wake_at"])) if data.get("wake_at") else "soon"
    if kind == Kind.ATTEMPT_FAILED:
        return f"It is tried again {at}."
    if kind == Kind.STEP_PARKED and "question" in data:
        return "It waits to be put to a person: as many reviews of its run are open as may be at once."
    if kind == Kind.STEP_PARKED:
        return "It waits for other runs." if data["cause"] == "children" else f"It goes on {at}."
    if "dependency" in data:
        again = "looks again" if "budget" in data else "tries again"
        return f"It is held back. {short(data['why'])} It {again} {at}."
    why = f" ({short(data['why'])})" if data["why"] else ""
    return f"It is too early{why}: it is called again {at}."


STEP_WAITS = (Kind.ATTEMPT_FAILED, Kind.STEP_DEFERRED, Kind.STEP_PARKED, Kind.STEP_ESCALATED)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _title(step: Step | None) -> str:
    return f"step {step.position} ({step.title})" if step else "a step"
