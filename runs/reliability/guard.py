"""The one door through which everything leaves the process."""

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from runs import values
from runs.engine.errors import GiveUp, HeldBack, TryLater
from runs.reliability import terms as known
from runs.reliability.classify import classify
from runs.reliability.terms import Terms, declare

__all__ = ["call", "declare", "is_calling", "terms"]
T = TypeVar("T")
SWITCHED_OFF_SECONDS = 60.0  # how long to wait before looking whether it was switched on again
LOOK_SECONDS = 0.5  # a thread that only waits hears no CutOff
_terms: contextvars.ContextVar[Terms] = contextvars.ContextVar("terms")


def call(dependency: str, function: Callable[[], T]) -> T:
    """Return what the function returns; whatever it raises arrives here as TryLater, GiveUp or AskHuman.

    Raises HeldBack where nothing was called, because there is no room now. The function's own client should give up
    earlier than `attempt_timeout_seconds`: that is the last resort, for a peer that sends one byte a minute. After it the
    function may still be running, so what it does must be idempotent.
    """
    step = _step_in_hand()
    if step and step.uses is not None and dependency not in step.uses:
        raise GiveUp(_unnamed(dependency, step))
    wanted = known.of(dependency)
    try:
        _enter(wanted)
    except HeldBack as held:
        raise (_after_another(held, step) if step and step.called else held) from None
    if step:
        step.called.append(dependency)
    try:
        return _answer(wanted, function)
    except TryLater as error:
        error.terms = error.terms or wanted.retry
        raise


def terms() -> Terms:
    """What an admin wants of the dependency that is being called: its timeouts are for the adapter's client."""
    return _terms.get()


def is_calling() -> bool:
    """Whether this is within a call."""
    return _terms.get(None) is not None


# --- before the call ----------------------------------------------------------------------------------------------


def _step_in_hand() -> values.StepContext | None:
    try:
        return values.current_step()
    except LookupError:
        return None


def _unnamed(dependency: str, step: values.StepContext) -> str:
    return f'{step.worker} called {dependency} without naming it, so nothing was sent: add uses="{dependency}" to its @worker.'


def _enter(wanted: Terms) -> None:
    if not wanted.enabled:
        why = f"{wanted.name} is switched off: an admin can switch it on again."
        raise HeldBack("switched_off", wanted.name, SWITCHED_OFF_SECONDS, why)


def _after_another(held: HeldBack, step: values.StepContext) -> Exception:
    """The attempt begins anew after a wait: where it may happen only once, and something has, that is no way."""
    if step.effect != "once":
        return held
    return GiveUp(f"{held} Before that it had called {', '.join(step.called)}, so it is not begun again by itself.")


# --- the call -----------------------------------------------------------------------------------------------------


def _answer(wanted: Terms, function: Callable[[], T]) -> T:
    answer = _started(wanted, function)
    end = time.monotonic() + wanted.attempt_timeout_seconds
    while not answer.done() and (left := end - time.monotonic()) > 0:
        wait([answer], timeout=min(left, LOOK_SECONDS))
    if not answer.done():
        raise TryLater(f"{wanted.name} gave no answer within {wanted.attempt_timeout_seconds:g} s.")
    error = answer.exception()
    if error is None:
        return answer.result()
    if not isinstance(error, Exception):
        raise error
    raise classify(error, dependency=wanted.name) from error


def _started(wanted: Terms, function: Callable[[], T]) -> Future[T]:
    """Run the function in a thread of its own: only so can the caller stop waiting for it."""
    answer: Future[T] = Future()
    context = contextvars.copy_context()
    context.run(_terms.set, wanted)

    def run() -> None:
        try:
            answer.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, which raises it
            answer.set_exception(error)

    # A daemon, so that a call which hangs does not keep a stopping process alive.
    threading.Thread(target=run, name=f"guard {wanted.name}", daemon=True).start()
    return answer
