"""Keeps the leases of this process with one statement, and watches how long its steps take."""

import atexit
import ctypes
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections

from runs import event_log, live, pen
from runs.engine.events import Draft, Kind
from runs.engine.outcome import Ending, crashed
from runs.engine.state import RunState, Status

logger = structlog.get_logger()
TICK_SECONDS = 0.5
STUBBORN_SECONDS = 4.0  # how long a step that was cut off may go on before its process is ended
LEAVE_SECONDS = 10.0  # how long the other runs of that process may take for their present step
STUCK = 75  # exit code of a process that was ended with a step in hand
hand_over = threading.Event()  # set when this process is asked to stop: runs are given back between two steps
leaving = threading.Event()  # set when this process is to end because of a step that does not


class CutOff(BaseException):
    """The attempt took too long, or its run was cancelled: for the step, its process ended here."""

    reason = "by the watchdog"
    seconds = 0.0
    by_person = False


class Cancelled(CutOff):
    """A person wanted it so: what it was calling is none the worse for that."""

    by_person = True


class Watch:
    """One attempt under way in this thread, which may take `limit` seconds. It is cut off once at most."""

    def __init__(self, held: "Held", position: int, limit: float) -> None:
        self.held, self.position, self.limit = held, position, limit
        self.reason, self.fired_at, self.over = "", 0.0, False
        self.since, self.thread = time.monotonic(), threading.get_ident()
        self._lock = threading.Lock()
        held.watches.append(self)

    def cut_off(self, reason: str, kind: type[CutOff] = CutOff) -> None:
        """Raise it in the thread, unless the attempt has just ended."""
        with self._lock:
            if not (self.over or self.fired_at):
                self.reason, self.fired_at = reason, time.monotonic()
                _raise_in(self.thread, kind)

    def end(self) -> None:
        """Once this has returned, nothing is raised in the thread any more."""
        with self._lock:
            if not self.over:
                if self.fired_at:
                    _raise_in(self.thread, None)
                self.over = True
                self.held.watches.remove(self)
                self.held.between = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise it at the thread's next instruction of Python; None takes back what was not yet raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)


class Held:
    """A run whose lease this process has, since `asked` by the monotonic clock."""

    def __init__(self, run_id: int, fence: int | None, asked: float) -> None:
        self.run_id, self.fence = run_id, fence or 0
        self.until = asked + settings.LEASE_SECONDS
        self.between = asked  # since when it executes no step
        self.cancelled_at: float | None = None  # when this process first saw that it is to be cancelled
        self.watches: list[Watch] = []
        self.taken = False  # by another process, or given back

    @property
    def lost(self) -> bool:
        """Another process may have the run: also when this one was stopped for longer than its lease."""
        return self.taken or time.monotonic() > self.until

    def check(self) -> None:
        """Raise LeaseLost where no effect may begin any more."""
        if self.lost:
            raise event_log.LeaseLost(f"the lease of run {self.run_id} ran out before its next step")

    def let_go(self) -> None:
        """Nothing can be recorded here any more: the lease runs out. What is under way is still watched."""
        self.fence, self.taken = 0, True

    def renewed(self, asked: float) -> None:
        self.until = max(self.until, asked + settings.LEASE_SECONDS)

    def attempt(self, position: int, limit: float | None, worker: Callable[[], Any]) -> Any:
        """Call the worker, if the lease still holds. Raises CutOff where it takes longer than `limit` or STEP_TIMEOUT_SECONDS."""
        pen.rest()
        self.check()
        watch = Watch(self, position, limit or settings.STEP_TIMEOUT_SECONDS)
        try:
            try:
                return worker()
            finally:
                watch.end()
        except CutOff as cut:
            cut.reason, cut.seconds = watch.reason, watch.seconds
            raise
        finally:
            watch.end()  # again, because the first may itself have been cut off


def not_kept(run_id: int, fence: int | None) -> Held:
    """For who needs no keeper: the lease is neither renewed nor watched."""
    held = Held(run_id, fence, 0.0)
    held.until = float("inf")
    return held


@contextmanager
def kept(run_id: int, fence: int | None, asked: float) -> Iterator[Held]:
    """Renew the lease and watch the steps until the block ends."""
    held = Held(run_id, fence, asked)
    keeper = _the_keeper()
    keeper.add(held)
    try:
        yield held
    finally:
        keeper.remove(held)


def end_process_when_it_stalls() -> None:
    """From now on: a process whose threads cannot run (a call that keeps Python's lock) has lost its leases, and ends."""
    keeper = _the_keeper()
    if not keeper.guards:
        keeper.guards = True
        atexit.register(keeper.stop_guarding)


def when_leaving(tell: Callable[[], None]) -> None:
    """Call this when the process is to end: it then ends itself, a little after LEAVE_SECONDS at the latest."""
    _the_keeper().tell = tell


def is_busy() -> bool:
    """Some run is being carried here, other than those that were given up."""
    return _the_keeper().held != []


class Keeper:
    """Two threads: one renews, the other watches, so that a slow database does not blind the watch."""

    def __init__(self) -> None:
        self.guards = False
        self.tell: Callable[[], None] | None = None
        self.held: list[Held] = []
        self._some = threading.Event()
        self._leaves_at = float("inf")
        for loop in (self._renew_for_ever, self._watch_for_ever):
            threading.Thread(target=loop, name=loop.__name__.strip("_"), daemon=True).start()

    def add(self, held: Held) -> None:
        self.held.append(held)
        self._some.set()

    def remove(self, held: Held) -> None:
        if held in self.held:
            self.held.remove(held)

    # --- leases ---------------------------------------------------------------------------------------------------

    def _renew_for_ever(self) -> None:
        while True:
            self._some.wait()
            time.sleep(settings.LEASE_RENEW_SECONDS)  # what was just taken is fresh
            try:
                self._renew(list(self.held))
            except DatabaseError as error:
                logger.warning("leases_not_renewed", error=str(error))

    def _renew(self, mine: list[Held]) -> None:
        asked = time.monotonic()
        found = event_log.renew_all([(held.run_id, held.fence) for held in mine]) if mine else {}
        for held in mine:
            if lease := found.get((held.run_id, held.fence)):
                held.taken = not lease.ours
                if lease.renewed:
                    held.renewed(asked)
                if lease.cancel_requested and held.cancelled_at is None:
                    held.cancelled_at = asked

    # --- steps ----------------------------------------------------------------------------------------------------

    def _watch_for_ever(self) -> None:
        while True:
            if not self.held and not leaving.is_set():
                self._rest()
            if self.guards:
                faulthandler.dump_traceback_later(settings.LEASE_SECONDS * 1.5, exit=True)
            time.sleep(TICK_SECONDS)
            for held in list(self.held):
                self._watch(held)
            if leaving.is_set() and self._is_time_to_leave():
                give_back()
                live.flush()
                os._exit(STUCK)

    def stop_guarding(self) -> None:
        """The end of Python itself is no stall."""
        self.guards = False
        faulthandler.cancel_dump_traceback_later()

    def _is_time_to_leave(self) -> bool:
        return time.monotonic() > self._leaves_at or (self.tell is None and not self.held)

    def _rest(self) -> None:
        if self.guards:
            faulthandler.cancel_dump_traceback_later()
        self._some.clear()
        if not self.held:  # what was added before the line above is seen here
            self._some.wait()

    def _watch(self, held: Held) -> None:
        watches = list(held.watches)
        for watch in watches:
            reason = _too_long(held, watch.since, watch.limit)
            if watch.fired_at and time.monotonic() - watch.fired_at > STUBBORN_SECONDS:
                self._give_up(held, watch, watch.reason)
            elif reason:
                watch.cut_off(reason, Cancelled if held.cancelled_at else CutOff)
        if not watches and (reason := _too_long(held, held.between, settings.STEP_TIMEOUT_SECONDS)):
            self._give_up(held, None, reason)

    def _give_up(self, held: Held, watch: Watch | None, reason: str) -> None:
        """A thread that cannot be stopped: write how its run ends here, let the others finish their steps, end the process."""
        self.remove(held)
        if not held.lost:
            _write_end(held, lambda state: _given_up(state, watch, reason))
        if not leaving.is_set():
            logger.error("process_ends", run=held.run_id, reason=reason)
            self._leaves_at = time.monotonic() + LEAVE_SECONDS + 2 * bool(self.tell)
            already_asked = hand_over.is_set()
            hand_over.set()
            leaving.set()
            if self.tell and not already_asked:
                self.tell()


def _too_long(held: Held, since: float, limit: float) -> str:
    at = time.monotonic()
    if at - since > limit:
        return f"because it took longer than {limit:g} s"
    if held.cancelled_at and at - max(since, held.cancelled_at) > settings.CANCEL_SECONDS:
        return "because its run was cancelled"
    return ""


def give_back() -> None:
    """This process ends at once: what it has in hand is cut off by that, and its runs go on elsewhere."""
    keeper = _the_keeper()
    for held in list(keeper.held):
        keeper.remove(held)
        if not held.lost and not _write_end(held, _handed_over):
            return


def _write_end(held: Held, drafts_of: Callable[[RunState], list[Draft]]) -> bool:
    """Write how the run ends here, which also begins no effect any more; False when the database is away."""
    held.taken = True
    try:
        event_log.RunLog.load(held.run_id, fence=held.fence).append_last(drafts_of)
    except (DatabaseError, event_log.LeaseLost) as error:
        logger.warning("end_not_written", run=held.run_id, error=str(error))
        return isinstance(error, event_log.LeaseLost)
    finally:
        connections.close_all()
    return True


def _given_up(state: RunState, watch: Watch | None, reason: str) -> list[Draft]:
    """The attempt crashed; its run is cancelled if asked for, fails if no step is to blame, and else goes on elsewhere."""
    step = state.steps.get(watch.position) if watch else None
    crash = [] if watch is None or step is None else [crashed(step.position, step.attempt, Ending(reason, watch.seconds))]
    if state.cancel_requested or crash:
        return [*crash, _cancelled_or_released(state)]
    message = f"The supervisor was ended between two steps, {reason}."
    error: dict[str, Any] = {"kind": "overtime", "message": message, "trace": ""}
    withdrawn = [Draft(Kind.STEP_WITHDRAWN, {}, step.position) for step in state.steps.values() if step.asked]
    return [*withdrawn, Draft(Kind.RUN_FAILED, {"error": error})]


def _handed_over(state: RunState) -> list[Draft]:
    """Nobody is to blame. Of a run of which nothing was recorded since it was taken there is nothing to say."""
    if state.status != Status.RUNNING:
        return []
    cut = [step for step in state.steps.values() if step.status == Status.RUNNING]
    seconds = [(event_log.now() - (step.attempted_at or event_log.now())).total_seconds() for step in cut]
    endings = [Ending("because its job process was asked to stop", took, counts=False) for took in seconds]
    crashes = [crashed(step.position, step.attempt, ending) for step, ending in zip(cut, endings, strict=True)]
    return [*crashes, _cancelled_or_released(state)]


def _cancelled_or_released(state: RunState) -> Draft:
    return Draft(Kind.RUN_CANCELLED if state.cancel_requested else Kind.RUN_RELEASED)


_keeper: Keeper | None = None
_one_at_a_time = threading.Lock()


def _the_keeper() -> Keeper:
    global _keeper
    with _one_at_a_time:
        if _keeper is None:
            _keeper = Keeper()
        return _keeper


def _after_fork() -> None:
    """Threads do not survive a fork: the child gets a keeper of its own when it first carries a run."""
    global _keeper, _one_at_a_time
    _keeper, _one_at_a_time = None, threading.Lock()
    hand_over.clear()
    leaving.clear()


os.register_at_fork(after_in_child=_after_fork)
