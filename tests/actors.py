"""Several real processes that begin at the same moment: for what all processes share in Redis."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from django.db import connections

FORK = multiprocessing.get_context("fork")
PATIENCE_SECONDS = 60.0


def at_once(function: Callable[[int], Any], processes: int = 8) -> list[Any]:
    """What the function returned in each of the processes, which are numbered from 0. It must not touch the database."""
    barrier, answers = FORK.Barrier(processes), []
    for number in range(processes):
        mine, theirs = FORK.Pipe(duplex=False)
        child = FORK.Process(target=_act, args=(function, number, barrier, theirs), daemon=True)
        child.start()
        theirs.close()
        answers.append((child, mine))
    return [_answer(*one) for one in answers]


@contextmanager
def actor(function: Callable[[Connection], Any]) -> Iterator[tuple[int, Connection]]:
    """A process that does this, with a connection to the test: its id and that. It is killed (kill -9) with the block."""
    mine, theirs = FORK.Pipe()
    child = FORK.Process(target=function, args=(theirs,), daemon=True)
    child.start()
    assert child.pid
    try:
        yield child.pid, mine
    finally:
        child.kill()
        child.join()


def own_database() -> None:
    """Of such a process: what it inherited is the test's, and is only forgotten; it connects anew."""
    for inherited in connections.all(initialized_only=True):
        inherited.connection = None


def heard(told: Connection) -> Any:
    """What it says next."""
    assert told.poll(PATIENCE_SECONDS), "the process says nothing"
    return told.recv()


def _act(function: Callable[[int], Any], number: int, barrier: Barrier, told: Connection) -> None:
    try:
        barrier.wait(PATIENCE_SECONDS)
        told.send(function(number))
    except BaseException:  # noqa: BLE001 - shown by the test
        told.send(AssertionError(traceback.format_exc()))
    finally:
        told.close()
        os._exit(0)


def _answer(child: Any, told: Connection) -> Any:
    try:
        assert told.poll(PATIENCE_SECONDS), "a process gave no answer"
        found = told.recv()
        if isinstance(found, AssertionError):
            raise found
        return found
    finally:
        child.kill()
        child.join()
