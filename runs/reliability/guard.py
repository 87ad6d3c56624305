"""The one door through which everything leaves the process."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from runs.engine.errors import TryLater
from runs.reliability.classify import classify

T = TypeVar("T")


def call(dependency: str, function: Callable[[], T], *, timeout_seconds: float) -> T:
    """Return what the function returns; whatever it raises arrives here as TryLater, GiveUp or AskHuman.

    The function's own client should give up earlier than timeout_seconds: that is the last resort, for a peer that
    sends one byte a minute. After it the function may still be running, so what it does must be idempotent.
    """
    answer = _started(dependency, function)
    wait([answer], timeout=timeout_seconds)
    if not answer.done():
        raise TryLater(f"{dependency} gave no answer within {timeout_seconds:g} s.")
    error = answer.exception()
    if error is None:
        return answer.result()
    if not isinstance(error, Exception):
        raise error
    raise classify(error, dependency=dependency) from error


def _started(dependency: str, function: Callable[[], T]) -> Future[T]:
    """Run the function in a thread of its own: only so can the caller stop waiting for it."""
    answer: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, which raises it
            answer.set_exception(error)

    # A daemon, so that a call which hangs does not keep a stopping process alive.
    threading.Thread(target=run, name=f"guard {dependency}", daemon=True).start()
    return answer
