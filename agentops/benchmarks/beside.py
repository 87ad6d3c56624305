"""What a benchmark has done in a thread while it does something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def beside(work: Callable[..., None], *arguments: Any) -> Iterator[threading.Thread]:
    """Called with an event that is set when the block is over, which waits for it. Raises what it raised."""
    over, raised = threading.Event(), list[BaseException]()

    def call() -> None:
        try:
            work(over, *arguments)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            raised.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield thread
    finally:
        over.set()
        thread.join()
        if raised:
            raise raised[0]
