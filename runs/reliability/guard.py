"""The one door through which everything leaves the process."""

import contextvars
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import structlog

from runs import values
from runs.engine.errors import GiveUp, HeldBack, LeftTooLate, TryLater
from runs.reliability import budget, entry, renewer, store, waits
from runs.reliability import terms as known
from runs.reliability.budget import NOT_SAID, Payer, Spending
from runs.reliability.classify import classify
from runs.reliability.limiter import TooLarge
from runs.reliability.terms import Terms, declare

__all__ = ["Spending", "call", "connected", "declare", "is_calling", "terms", "unspent", "used"]
T = TypeVar("T")
logger = structlog.get_logger()
IN_SUPERVISOR = "The supervisor called {} itself, and it would do so on every replay: nothing was sent. Call it in a @worker."
MOST_LATE = 5  # times that a step is let in and does not leave in time: then that is an attempt, which failed
LOOK_SECONDS = 0.5  # a thread that only waits hears no CutOff


@dataclass(slots=True)
class _Call:
    """One call under way; `tokens` is what it really used, as far as its adapter says. `real` is for its budget.

    Two threads have it: the caller's, which may give it up, and its own, in which the function cannot be stopped.
    """

    terms: Terms
    entered: entry.Entered | None = None
    tokens: int | None = None
    real: Spending | None = None
    answer: Future[Any] = field(default_factory=Future)
    left_at: float | None = None  # by the monotonic clock
    runs_on: bool = False  # it was given up and has not ended
    retry_after: float | None = None  # so long the other side asked us to wait
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def leave(self) -> bool:
        """Of its thread: False where nobody waits for it any more."""
        with self._lock:
            self.left_at = None if self._over else time.monotonic()
            return not self._over

    def end(self) -> None:
        """Of the caller: from now on it does not leave, if it has not yet."""
        with self._lock:
            self._over = True
            self.runs_on = self.left_at is not None and not self.answer.done()

    def stay(self) -> None:
        """Of its thread: it has not left after all."""
        with self._lock:
            self.left_at = None

    def is_awaited(self) -> bool:
        """Its caller has neither got an answer nor given up."""
        with self._lock:
            return not self._over

    def is_over(self) -> bool:
        """Nothing is held for it any more, also where its caller was cut off before it could say so."""
        return self.answer.done() or (self._over and not self.runs_on)

    @property
    def seconds(self) -> float:
        """Since it left."""
        return time.monotonic() - self.left_at if self.left_at is not None else 0.0

    def was_given_up(self) -> bool:
        """Of its thread, at its end."""
        with self._lock:
            return self.runs_on


_call: contextvars.ContextVar[_Call] = contextvars.ContextVar("call")


def call(dependency: str, function: Callable[[], T], *, tokens: int = 0, most: Spending | None = None) -> T:
    """Return what the function returns; whatever it raises arrives here as TryLater, GiveUp or AskHuman.

    Raises HeldBack where nothing was called, because there is no room now, and where this call was the one that tried whether
    an open breaker may close. `tokens` is the most that a model may use; `most` is reserved in budgets before the call.
    The function's own client should give up earlier than `attempt_timeout_seconds`: that is the last resort, for a peer that
    sends one byte a minute. After it the function may still be running, and keeps its slot until it ends; so what it does must
    be idempotent.
    """
    step = _step_in_hand()
    if values.in_supervisor():
        raise GiveUp(IN_SUPERVISOR.format(dependency))
    if step and step.uses is not None and dependency not in step.uses:
        raise GiveUp(_unnamed(dependency, step))
    wanted = known.of(dependency)
    before = list(step.called) if step else []
    try:
        with _inside(wanted, _enter(wanted, step, tokens), step) as made, _paid(made, step, most):
            if step:
                step.called.append(dependency)
            return _answer(made, function)
    except HeldBack as held:
        if isinstance(held, LeftTooLate) and (step is None or step.late + 1 >= MOST_LATE):
            raise waits.always_too_late(wanted, MOST_LATE if step else 1) from None  # who is no step counts attempts alone
        raise (_after_another(held, step, before) if step and before else held) from None


def terms() -> Terms:
    """What an admin wants of the dependency that is being called: its timeouts are for the adapter's client."""
    return _call.get().terms


def is_calling() -> bool:
    """Whether this is within a call."""
    return _call.get(None) is not None


def connected() -> None:
    """Say within a call that its connection is made, and what it asks goes out now: where that took long, it counts from now on.

    Raises HeldBack, and nothing is to be sent, where its place in the window has passed meanwhile, or nobody waits any more.
    """
    made = _call.get()
    try:
        if not made.is_awaited():
            raise waits.left_too_late(made.terms)
        _leave_in_time(made)
    except HeldBack:
        made.stay()
        raise


def used(tokens: int, money: Decimal | None = None) -> None:
    """Say within a call how many tokens it used, and what that costs."""
    made = _call.get()
    made.tokens = tokens
    if made.real:
        made.real.tokens, made.real.money, made.real.calls = tokens, money, 1


def unspent() -> None:
    """Say within a call that it cost nothing: the other side did not take it. What is said of nothing costs the most it may."""
    made = _call.get()
    made.tokens = 0
    if made.real:
        made.real.tokens, made.real.money, made.real.calls = 0, Decimal(0), 0


# --- before the call ----------------------------------------------------------------------------------------------


def _step_in_hand() -> values.StepContext | None:
    try:
        return values.current_step()
    except LookupError:
        return None


def _unnamed(dependency: str, step: values.StepContext) -> str:
    return f'{step.worker} called {dependency} without naming it, so nothing was sent: add uses="{dependency}" to its @worker.'


def _enter(wanted: Terms, step: values.StepContext | None, tokens: int) -> entry.Entered | None:
    """None where the counters are away and nothing needs them. Raises HeldBack, and GiveUp for what is too large for ever."""
    if not wanted.enabled:
        raise waits.switched_off(wanted)
    try:
        answer = entry.enter(
            wanted.name,
            entry.fair_key(step.agent, step.tenant) if step else "",
            _ticket(step),
            limits=wanted.limits,
            terms=wanted.breaker,
            tokens=tokens,
            lease_seconds=renewer.LEASE_SECONDS,
            attempt_seconds=wanted.attempt_timeout_seconds,
            known_since=wanted.known_since,
            held_open=wanted.held_open,
        )
    except TooLarge as error:
        raise GiveUp(f"{error} Nothing was sent.") from error
    except store.Unavailable as error:
        if wanted.has_limits or known.is_held_open(wanted):
            raise waits.unknown(wanted) from error
        return None
    if not isinstance(answer, entry.Entered):
        raise waits.refused(wanted, answer)
    return answer


def _ticket(step: values.StepContext | None) -> str:
    """The same when the step comes back, so that it keeps its place; another for each call that it makes."""
    if step is None:
        return f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
    return f"{step.key}#{len(step.called) + 1}" if step.called else step.key


def _paid(made: _Call, step: values.StepContext | None, most: Spending | None) -> AbstractContextManager[object]:
    """Reserve what the call may cost, for the run of this step and the runs above it, and its agent's day."""
    if most is None or step is None or not step.run_id:
        return nullcontext()
    made.real = Spending(NOT_SAID, calls=0)
    return budget.reserved(most, made.real, Payer(step.run_id, step.fence, step.position, step.agent), made.terms.name)


def _after_another(held: HeldBack, step: values.StepContext, called: list[str]) -> Exception:
    """The attempt begins anew after a wait: where it may happen only once, and something has, that is no way."""
    if step.effect != "once":
        return held
    return GiveUp(f"{held} Before that it had called {', '.join(called)}, so it is not begun again by itself.")


# --- the call -----------------------------------------------------------------------------------------------------


@contextmanager
def _inside(wanted: Terms, entered: entry.Entered | None, step: values.StepContext | None) -> Iterator[_Call]:
    """Hold what was taken, and give it back with what the call says of the dependency."""
    made = _Call(wanted, entered)
    works: bool | None = None
    try:
        renewer.keep(entered.lease if entered else None, made.is_over)
        yield made
        works = True
    except HeldBack:
        raise  # nothing was called
    except TryLater as error:
        works = error.seconds is not None  # "not yet" is an answer
        made.retry_after = error.retry_after
        error.terms = error.terms or wanted.retry
        if entered and entered.canary and not works and not (step and step.effect == "once"):
            raise waits.still_away(wanted, error) from error  # it was called for all who wait: no attempt of this step's own
        raise
    except Exception:
        works = True  # it answered: that it refused, or that its answer is not understood, is no outage
        raise
    except BaseException as error:  # its step was cut off: while it tried for all, or after longer than an answer may take
        tried = entered and entered.canary and not getattr(error, "by_person", False)
        works = False if tried or made.seconds > wanted.read_timeout_seconds else None
        raise
    finally:
        if entered:
            _leave(made, entered, works)


def _leave(made: _Call, entered: entry.Entered, works: bool | None) -> None:
    """The changes of the breaker are recorded afterwards: PostgreSQL may be slow, and others wait for what this call holds."""
    made.end()
    sent, changes = made.left_at is not None, [entered.change]
    if not made.runs_on:
        renewer.let_go(entered.lease)
    try:
        change = entry.leave(
            entered,
            ok=works if sent else None,
            duration=made.seconds,
            tokens=made.tokens,
            unsent=not sent,
            runs_on=made.runs_on,
            retry_after=made.retry_after,
        )
        changes.append(change)
    except store.Unavailable as error:  # the slot comes back by its lease
        logger.warning("call_not_counted", dependency=entered.dependency, error=str(error))
    for change in filter(None, changes):
        known.record(made.terms, change)


def _ended_at_last(made: _Call, entered: entry.Entered) -> None:
    """Of a call that was given up, by its own thread."""
    renewer.let_go(entered.lease)
    try:
        if entered.holds_slot or entered.canary:
            entry.free(entered)
    except store.Unavailable as error:
        logger.warning("call_not_given_back", dependency=entered.dependency, error=str(error))


def _answer(made: _Call, function: Callable[[], T]) -> T:
    name, seconds, answer = made.terms.name, made.terms.attempt_timeout_seconds, made.answer
    _start(made, function)
    end = time.monotonic() + seconds
    try:
        while not answer.done() and (left := end - time.monotonic()) > 0:
            wait([answer], timeout=min(left, LOOK_SECONDS))
    finally:
        _is_over(made)
    if made.left_at is None and not answer.done():
        raise waits.left_too_late(made.terms)
    if made.runs_on:
        raise TryLater(f"{name} gave no answer within {seconds:g} s.")
    error = answer.exception()
    if error is None:
        result: T = answer.result()
        return result
    if not isinstance(error, Exception):
        raise error
    raise classify(error, dependency=name) from error


def _is_over(made: _Call) -> None:
    """From now on it does not leave, if it has not yet; if it has, and has not said what it cost, it counts in full."""
    made.end()
    if made.left_at is not None and made.real and made.real.tokens == NOT_SAID:
        made.real.calls = 1


def _leave_in_time(made: _Call) -> None:
    """Where this machine, or the way there, was slow, it counts from now on: else the other side might see too many at once."""
    try:
        while made.entered and made.entered.is_late:
            restamped = entry.restamped(made.entered)
            if restamped is None:
                raise waits.left_too_late(made.terms)
            made.entered = restamped
    except store.Unavailable as error:
        raise waits.unknown(made.terms) from error


def _start(made: _Call, function: Callable[[], object]) -> None:
    """Run the function in a thread of its own: only so can the caller stop waiting for it."""
    context = contextvars.copy_context()
    context.run(_call.set, made)

    def run() -> None:
        try:
            _leave_in_time(made)
            if made.leave():
                made.answer.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, which raises it
            made.answer.set_exception(error)
        if made.entered and made.was_given_up():
            _ended_at_last(made, made.entered)

    # A daemon, so that a call which hangs does not keep a stopping process alive.
    threading.Thread(target=run, name=f"guard {made.terms.name}", daemon=True).start()
