"""The steps of one pass through a supervisor: their order and names, what is written of them, and how the pass is left."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from django.conf import settings
from django.db import Error as DatabaseError
from pydantic import BaseModel

from runs import dispatch, event_log, keeper, sdk
from runs.answers import AnyWorker, fitting, masked_by
from runs.attempts import OneStep, difference
from runs.engine.canonical import clean, digest, stored
from runs.engine.events import Draft, Kind
from runs.engine.masking import mask, secrets
from runs.engine.outcome import Ending
from runs.engine.state import Status, StepState
from runs.models import open_reviews
from runs.nexts import Alone, Attempt, Done, Next, Open, Refused
from runs.passes import Pass, has_come

NAME_LETTERS = 120
ROOM_SECONDS = 5.0  # how long a run waits where no process of its own can be had for it
hand_over = keeper.hand_over


class Stopped(BaseException):
    """The run is parked, given back or cancelled: leave the supervisor at once, past any `except Exception` of its own."""


class Interrupted(BaseException):
    """The database or the lease is gone: nothing more can be recorded here, and no supervisor may go on from that."""


class interruptible:
    """Around what a supervisor calls: it cannot swallow the loss of the database or the lease."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DatabaseError | event_log.LeaseLost):
            raise Interrupted from error


class Steps:
    """The steps of one pass. Successes are written together with the next start, but where a process has ended before."""

    def __init__(
        self, log: event_log.RunLog, *opening: Draft, held: keeper.Held | None = None, ending: Ending | None = None,
        offers_process: bool = False, at_once: bool = False,
    ) -> None:  # fmt: skip
        self.log, self.held = log, held or keeper.not_kept(log.run_id, log.fence)
        lost_owner = next((draft.data["from"] for draft in opening if draft.kind == Kind.RUN_TAKEN_OVER), "")
        self.here = Pass(log, self.held, log.state.wake_at, lost_owner, ending, offers_process)
        self.at_once = at_once  # a success is not kept until the next start
        self.needs_process: int | None = None  # position of the step that is to have a process to itself; 0: the supervisor
        self.position = 0
        self.names: set[str] = set()
        self.unwritten = list(opening)
        self.missing: list[dict[str, Any]] = []  # what the run will end without: step, title, note
        self.refused: dict[int, int] = {}  # id of a raised Rejected or Expired -> position of its step
        self.stopped = False
        self.revoked = False  # a decision that this pass went on from was taken back

    def perform(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> Any:
        """What run.step does: return the recorded result, or have the worker make one."""
        with interruptible():
            self.stop_if_asked()
            step = self.reach(name, worker, inputs)
            if "seconds" in self.log.state.config.get("budget", ()):
                self.write_results()  # what the last step took counts
            next_ = step.changed() or step.first()
            while isinstance(next_, Attempt):
                self._start(next_)
                next_ = step.follow(step.execute(step.recorded))
            value = self.settle(next_)[0]
            if self.unwritten and (self.at_once or step.has_crashed):
                self.write()
            return value

    def sleep(self, name: str, *, until: datetime | None = None, seconds: float = 0.0) -> None:
        """What run.sleep and run.sleep_until do: the time that is recorded first is the one that counts."""
        with interruptible():
            wake_at = until or event_log.now() + timedelta(seconds=seconds)
            given = {"until": wake_at.isoformat()} if until else {"seconds": seconds}
            request = self.request(name, "sleep", title="Wait", given=stored(given), same_as=None)
            step = self.recorded(request)
            if step is None:
                self.unwritten.append(Draft(Kind.STEP_REQUESTED, request, self.position))
            elif step.status == Status.SUCCEEDED:
                return
            else:
                wake_at = step.wake_at or wake_at
            if has_come(wake_at, self.here.woken_for):
                self.unwritten.append(Draft(Kind.STEP_SUCCEEDED, {"output": None}, self.position))
                return
            parked = Draft(Kind.STEP_PARKED, {"cause": "timer", "wake_at": wake_at.isoformat()}, self.position)
            self.settle(Open("timer", self.position, wake_at, [parked]))

    def decision(self, name: str) -> sdk.Decided | None:
        """What run.decision does."""
        if name not in self.names:
            raise ValueError(f"The run has not come to a step named {name!r}, so nobody has decided about it.")
        step = next((one for one in self.log.state.steps.values() if one.name == name), None)
        if step is None or not step.decision:
            return None
        return sdk.Decided(step.decision, step.decided_by, step.reason, step.proposal)

    def end(self) -> None:
        """The supervisor has returned: nothing recorded may be left over, no cancel unheard."""
        if self.stopped:
            raise Stopped
        steps = self.log.state.steps
        left_over = [position for position in steps if position > self.position]
        if left_over and (next_ := difference(steps[min(left_over)], None, steps)):
            self.settle(next_)

    # --- the next step ------------------------------------------------------------------------------------------------

    def reach(self, name: str, worker: AnyWorker, inputs: dict[str, Any]) -> OneStep:
        """The step that the supervisor has come to."""
        given = {key: _recordable(value) for key, value in inputs.items()}
        names = masked_by(worker)
        real = stored(fitting(worker.dump_input, given, secret=bool(names)))
        value = mask(real, names, set(secrets(real, names))) if names else real
        request = self.request(name, worker.name, title=worker.title, given=value, same_as=value, effect=worker.effect)
        return OneStep(self.here, self.position, worker, request, real)

    def request(self, name: str, worker: str, *, title: str, given: Any, same_as: Any, effect: str = "none") -> dict[str, Any]:
        """What is recorded of the next step before it begins; `same_as` is what a replay must ask for again."""
        if name in self.names:
            raise ValueError(f"Two steps of this run are named {name!r}; number them in a loop.")
        if not 0 < len(name) <= NAME_LETTERS:
            raise ValueError(f"The name of a step has 1 to {NAME_LETTERS} letters; {name[:40]!r} has {len(name)}.")
        self.names.add(name)
        self.position += 1
        request = {"name": name, "worker": worker, "title": title, "input": given, "effect": effect}
        return request | {"fingerprint": digest(name, worker, same_as)}

    def recorded(self, request: dict[str, Any]) -> StepState | None:
        """What is recorded of the step that has this request; leaves the supervisor when that is something else."""
        self.stop_if_asked()
        step = self.log.state.steps.get(self.position)
        if step and (next_ := difference(step, request, self.log.state.steps)):
            self.settle(next_)
        return step

    def note(self, next_: Next) -> None:
        """What has happened is written with what follows it."""
        self.unwritten += next_.drafts
        next_.drafts = []

    def _start(self, attempt: Attempt) -> None:
        self.note(attempt)
        if attempt.delay_seconds:
            self.write()
            time.sleep(attempt.delay_seconds)
            self.stop_if_asked()
        self.write(attempt.start)

    # --- leaving the supervisor -----------------------------------------------------------------------------------

    def settle(self, *nexts: Next) -> list[Any]:
        """The values of steps that have all come to something. One that waits parks the run, one refused raises."""
        for next_ in nexts:
            self.note(next_)
        if crashing := next((next_.position for next_ in nexts if isinstance(next_, Alone)), 0):
            self.leave_for_process(crashing)
        if waiting := [next_ for next_ in nexts if isinstance(next_, Open)]:
            self._park(waiting)
        self.missing += [next_.missing for next_ in nexts if isinstance(next_, Done) and next_.missing]
        for next_ in nexts:
            if isinstance(next_, Refused):
                self.refused[id(next_.error)] = next_.position
                self._note_missing(next_)
                raise next_.error
        return [next_.value for next_ in nexts if isinstance(next_, Done)]

    def _note_missing(self, refused: Refused) -> None:
        """What a person had the run finish without."""
        if isinstance(refused.error, sdk.BudgetExhausted):
            title = self.log.state.steps[refused.position].title
            self.missing.append({"step": refused.position, "title": title, "note": "There was no budget for it."})

    def _park(self, waiting: list[Open]) -> NoReturn:
        """Wait for the person, else for whatever comes first; in any case not beyond the first time."""
        times = [next_.wake_at for next_ in waiting if next_.wake_at]
        first = min(waiting, key=lambda next_: (next_.cause != "person", next_.wake_at or event_log.now()))
        data: dict[str, Any] = {"cause": first.cause}
        data |= {"wake_at": min(times).isoformat()} if times else {}
        data |= {"runs": first.runs} if first.runs else {}
        data |= first.held
        by = dict.fromkeys(next_.held["dependency"] for next_ in waiting if "dependency" in next_.held)
        if others := [name for name in by if first.held and name != first.held.get("dependency")]:
            data["others"] = others
        if first.cause == "person":
            data["steps"] = [next_.position for next_ in waiting if next_.cause == "person"]
        self._stop(Draft(Kind.RUN_PARKED, data, first.position))

    def leave_for_process(self, position: int) -> NoReturn:
        """This step, or the supervisor before it comes to another, is to have a process to itself."""
        self.write()
        self.needs_process, self.stopped = position, True
        raise Stopped

    def wait_for_room(self, position: int) -> None:
        """Too many runs have a process to themselves already."""
        wake_at = event_log.now() + timedelta(seconds=ROOM_SECONDS)
        self.write(Draft(Kind.RUN_PARKED, {"cause": "retry", "wake_at": wake_at.isoformat()}, position or None), release=True)

    def wait_for_reviews(self) -> NoReturn:
        """Before its first step, until fewer reviews of its agent are open."""
        why = "Its agent is paused: as many of its reviews are open as may be at once."
        self._stop(Draft(Kind.RUN_PARKED, {"cause": open_reviews.CAUSE, "why": why}))

    def _stop(self, last: Draft) -> NoReturn:
        self.write(last, release=True)
        self.stopped = True
        state = self.log.state
        if state.status == Status.QUEUED:  # given back, or what it wanted to wait for has come meanwhile
            dispatch.enqueue(self.log.run_id, state.seq)
        elif state.wake_at:
            dispatch.call_at(dispatch.Call(self.log.run_id, state.seq), (state.wake_at - event_log.now()).total_seconds())
        raise Stopped

    def stop_if_asked(self) -> None:
        """Between two steps: leave when the run is over, cancelled, or to be handed over."""
        if self.stopped:
            raise Stopped
        if self.log.state.cancel_requested:
            self._stop(Draft(Kind.RUN_CANCELLED))
        if self.must_leave:
            self._stop(Draft(Kind.RUN_RELEASED))

    @property
    def must_leave(self) -> bool:
        """No further step is begun in this pass."""
        return self.log.state.cancel_requested or self.revoked or hand_over.is_set()

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, *drafts: Draft, release: bool = False) -> None:
        """Append what is unwritten and these. When a cancel came meanwhile, keep what happened and leave."""
        if not self.record(*drafts, release=release):
            self.stop_if_asked()

    def write_results(self) -> None:
        """Append what is unwritten if a worker's result is among it."""
        if any(draft.kind in (Kind.STEP_SUCCEEDED, Kind.STEP_SKIPPED) for draft in self.unwritten):
            self.write()

    def may_wait(self) -> Callable[[], bool]:
        """For a database that is away: as long as nobody else can have the run."""
        began = time.monotonic()
        return lambda: not self.held.lost and time.monotonic() < began + settings.LEASE_SECONDS

    def record(self, *drafts: Draft, release: bool = False) -> bool:
        """Append what is unwritten and these; False when a cancel or an undo came: what happened stays unwritten."""
        together, asked = [*self.unwritten, *drafts], time.monotonic()
        try:
            self.log.append(*together, release=release, may_wait=self.may_wait())
            self.held.renewed(asked)
        except event_log.CancelRequested:
            self.unwritten = [draft for draft in together if draft.kind not in NOT_AFTER_CANCEL]
            return False
        except event_log.DecisionRevoked:
            self.go_back(together)
            return False
        self.unwritten = []
        return True

    def go_back(self, together: Sequence[Draft]) -> None:
        """A decision that this pass went on from was taken back: only what has happened is still to be written."""
        self.unwritten = [draft for draft in together if draft.kind in TAKINGS or self._was_begun(draft)]
        self.log.relies_on, self.revoked = {}, True

    def _was_begun(self, draft: Draft) -> bool:
        """It says what came of an attempt whose start is written."""
        step = self.log.state.steps.get(draft.step or 0)
        return step is not None and step.status == Status.RUNNING

    def succeed(self, output: Any) -> None:
        """End the run with its output, completed partially where something is missing."""
        missing = {"missing": self.missing} if self.missing else {}
        self._finish(Draft(Kind.RUN_SUCCEEDED, {"output": output} | missing))

    def fail(self, kind: str, message: str, *, step: int | None = None, trace: str = "") -> None:
        """End the run as failed; `step` is the one whose refusal ended it. Once stopped, nothing is added."""
        error = {"kind": clean(kind, 200), "message": clean(message or kind), "trace": clean(trace, 20_000)}
        if not self.stopped:
            self._finish(Draft(Kind.RUN_FAILED, {"error": error}, step))

    def _finish(self, last: Draft) -> None:
        """Nobody is asked about a run that has ended."""
        asked = [step.position for step in self.log.state.steps.values() if step.asked or step.pending]
        self.write(*(Draft(Kind.STEP_WITHDRAWN, {}, position) for position in asked), last, release=True)


TAKINGS = {Kind.RUN_STARTED, Kind.RUN_RESUMED, Kind.RUN_TAKEN_OVER}
# What has not happened yet when a cancel is heard: these are not written any more.
NOT_AFTER_CANCEL = {
    Kind.STEP_STARTED,
    Kind.ATTEMPT_STARTED,
    Kind.STEP_WITHDRAWN,
    Kind.RUN_PARKED,
    Kind.RUN_RELEASED,
    Kind.RUN_SUCCEEDED,
    Kind.RUN_FAILED,
}


def _recordable(value: Any) -> Any:
    return sdk.dump_model(value) if isinstance(value, BaseModel) else value
