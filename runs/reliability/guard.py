"""The one door through which everything leaves the process."""

import contextvars
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

import structlog

from runs import values
from runs.engine.errors import GiveUp, HeldBack, TryLater
from runs.reliability import budget, entry, renewer, store, waits
from runs.reliability import terms as known
from runs.reliability.budget import NOT_SAID, Payer, Spending
from runs.reliability.classify import classify
from runs.reliability.limiter import TooLarge
from runs.reliability.terms import Terms, declare

__all__ = ["Spending", "call", "declare", "is_calling", "terms", "unspent", "used"]
T = TypeVar("T")
logger = structlog.get_logger()
LOOK_SECONDS = 0.5  # a thread that only waits hears no CutOff


@dataclass(slots=True)
class _Call:
    """One call under way; `tokens` is what it really used, as far as its adapter says. `real` is for its budget."""

    terms: Terms
    entered: entry.Entered | None = None
    tokens: int | None = None
    real: Spending | None = None
    departure: threading.Lock = field(default_factory=threading.Lock)  # who has it decides whether the call leaves
    left: bool = False


_call: contextvars.ContextVar[_Call] = contextvars.ContextVar("call")


def call(dependency: str, function: Callable[[], T], *, tokens: int = 0, most: Spending | None = None) -> T:
    """Return what the function returns; whatever it raises arrives here as TryLater, GiveUp or AskHuman.

    Raises HeldBack where nothing was called, because there is no room now, and where this call was the one that tried whether
    an open breaker may close. `tokens` is the most that a model may use; `most` is reserved in budgets before the call.
    The function's own client should give up earlier than `attempt_timeout_seconds`: that is the last resort, for a peer that
    sends one byte a minute. After it the function may still be running, so what it does must be idempotent.
    """
    step = _step_in_hand()
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
        raise (_after_another(held, step, before) if step and before else held) from None


def terms() -> Terms:
    """What an admin wants of the dependency that is being called: its timeouts are for the adapter's client."""
    return _call.get().terms


def is_calling() -> bool:
    """Whether this is within a call."""
    return _call.get(None) is not None


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
            step.agent if step else "",
            _ticket(step),
            limits=wanted.limits,
            terms=wanted.breaker,
            tokens=tokens,
            lease_seconds=renewer.LEASE_SECONDS,
            attempt_seconds=wanted.attempt_timeout_seconds,
            known_since=wanted.known_since,
        )
    except TooLarge as error:
        raise GiveUp(f"{error} Nothing was sent.") from error
    except store.Unavailable as error:
        if wanted.has_limits:
            raise waits.unknown(wanted) from error
        return None
    if not isinstance(answer, entry.Entered):
        raise waits.refused(wanted, answer)
    return answer


def _ticket(step: values.StepContext | None) -> str:
    """The same when the step comes back, so that it keeps its place; another for each call that it makes."""
    if step is None:
        return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
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
    made, since = _Call(wanted, entered), time.monotonic()
    slot = renewer.held(entered.dependency, entered.ticket) if entered and entered.holds_slot else nullcontext()
    if entered and entered.change:
        known.record(wanted, entered.change)
    works: bool | None = None
    try:
        with slot:
            yield made
        works = True
    except HeldBack:
        raise  # nothing was called
    except TryLater as error:
        works = error.seconds is not None  # "not yet" is an answer
        error.terms = error.terms or wanted.retry
        if entered and entered.canary and not works and not (step and step.effect == "once"):
            raise waits.still_away(wanted, error) from error  # it was called for all who wait: no attempt of this step's own
        raise
    except Exception:
        works = True  # it answered: that it refused, or that its answer is not understood, is no outage
        raise
    finally:
        seconds = time.monotonic() - since
        if works is None and seconds > wanted.read_timeout_seconds:
            works = False  # its step was cut off, after longer than an answer may take
        if entered:
            _leave(made, entered, works=works, seconds=seconds)


def _leave(made: _Call, entered: entry.Entered, *, works: bool | None, seconds: float) -> None:
    try:
        change = entry.leave(entered, ok=works, duration=seconds, tokens=made.tokens, unsent=not made.left)
    except store.Unavailable as error:  # the slot comes back by its lease
        logger.warning("call_not_counted", dependency=entered.dependency, error=str(error))
        return
    if change:
        known.record(made.terms, change)


def _answer(made: _Call, function: Callable[[], T]) -> T:
    name, seconds = made.terms.name, made.terms.attempt_timeout_seconds
    answer = _started(made, function)
    end = time.monotonic() + seconds
    try:
        while not answer.done() and (left := end - time.monotonic()) > 0:
            wait([answer], timeout=min(left, LOOK_SECONDS))
    finally:
        _is_over(made)
    if not answer.done():
        raise TryLater(f"{name} gave no answer within {seconds:g} s.")
    error = answer.exception()
    if error is None:
        return answer.result()
    if not isinstance(error, Exception):
        raise error
    raise classify(error, dependency=name) from error


def _is_over(made: _Call) -> None:
    """From now on it does not leave, if it has not yet; if it has, and has not said what it cost, it counts in full."""
    made.left = not made.departure.acquire(blocking=False)
    if made.left and made.real and made.real.tokens == NOT_SAID:
        made.real.calls = 1


def _leave_in_time(made: _Call) -> None:
    """Where this machine was slow meanwhile, the call counts from now on: else the other side might see too many at once."""
    try:
        while made.entered and made.entered.is_late:
            made.entered = entry.restamped(made.entered)
            if made.entered is None:
                raise waits.left_too_late(made.terms)
    except store.Unavailable as error:
        raise waits.unknown(made.terms) from error


def _started(made: _Call, function: Callable[[], T]) -> Future[T]:
    """Run the function in a thread of its own: only so can the caller stop waiting for it."""
    answer: Future[T] = Future()
    context = contextvars.copy_context()
    context.run(_call.set, made)

    def run() -> None:
        try:
            _leave_in_time(made)
            if not made.departure.acquire(blocking=False):
                return  # nobody waits for it any more
            answer.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, which raises it
            answer.set_exception(error)

    # A daemon, so that a call which hangs does not keep a stopping process alive.
    threading.Thread(target=run, name=f"guard {made.terms.name}", daemon=True).start()
    return answer
