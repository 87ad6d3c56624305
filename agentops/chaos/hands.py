"""The reviewers of a trial, with sessions of their own at web servers of its own, who do things at the same moment."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import connections

from agentops.benchmarks.processes import web
from agentops.visitor import Answer, Visitor
from reviews.models import Review

PATIENCE_SECONDS = 60.0
EDITED = -1  # the number that an edit puts in the place of the proposed one: no run has it


REVIEWERS = 20


@dataclass(slots=True)
class Hands:
    """Each reviewer sits at another of the servers than the one before. `took` is how long the last decision took."""

    visitors: list[Visitor]
    pool: ThreadPoolExecutor
    took: float = 0.05

    def together(self, *actions: Callable[[], Any]) -> list[Any]:
        """What each returned. None begins before all are there."""
        barrier = threading.Barrier(len(actions))
        waiting = [self.pool.submit(_act, barrier, action) for action in actions]
        return [one.result(PATIENCE_SECONDS) for one in waiting]

    def decide(self, visitor: Visitor, review: Review, kind: str) -> Answer:
        """As the form of the review's page sends it."""
        begun = time.monotonic()
        sent: dict[str, Any] = {"decision": kind, "seen": review.fingerprint, "reason": f"by {visitor.user}"}
        if kind == "edit":
            proposal = dict(review.proposal or {}) | {"number": EDITED}
            sent |= {f"value.{name}": value for name, value in proposal.items()}
        answer = visitor.post(f"/reviews/{review.pk}/decision/", **sent)
        self.took = time.monotonic() - begun
        return answer


@contextmanager
def hands() -> Iterator[Hands]:
    """The reviewers, and two web servers for as long."""
    with ExitStack() as stack:
        ports = [stack.enter_context(web()) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(REVIEWERS + 1))
        yield Hands([Visitor(ports[number % 2], _reviewer(number)) for number in range(REVIEWERS)], pool)


def _reviewer(number: int) -> User:
    user, _ = User.objects.get_or_create(username=f"reviewer-{number}")
    user.groups.add(Group.objects.get(name="Reviewer"))
    return user


def _act(barrier: threading.Barrier, action: Callable[[], Any]) -> Any:
    barrier.wait(PATIENCE_SECONDS)
    try:
        return action()
    finally:
        connections.close_all()
