"""How soon things happen while nothing else does: the first step, the step after a decision, an event on a page."""

import asyncio
import json
import random
import time
from datetime import datetime

from django.conf import settings
from django.contrib.auth.models import User
from websockets.asyncio.client import connect

from agentops import people
from agentops.benchmarks import marks
from agentops.benchmarks.figures import Taken, spread
from agentops.benchmarks.processes import PATIENCE_SECONDS, job_processes, until, web
from agentops.visitor import session_of
from reviews import decisions
from reviews.models import Review
from runs import commands, event_log
from runs.models import Run


def measure(samples: int) -> Taken:
    """Two job processes, idle before each sample; milliseconds by one machine's clock."""
    people.ensure_groups()
    with marks.kept(), job_processes(2):
        taken = spread("start_ms", [_start_to_first_step() for _ in range(samples)])
        taken |= spread("decision_ms", [_decision_to_next_step() for _ in range(samples)])
        return taken | spread("page_ms", _event_to_page(max(1, samples // 2)))


def _start_to_first_step() -> float:
    _idle()
    begun = time.time()
    run = commands.start("bench-steps", {}, by="")
    until(lambda: Run.objects.get(pk=run.pk).ended)
    return _milliseconds_to_call(run.pk, begun)


def _decision_to_next_step() -> float:
    (run, review), actor = _at_its_gate(), _somebody()
    _idle()
    begun = time.time()
    decisions.decide(review.pk, actor=actor, kind="approve", seen=review.fingerprint)
    until(lambda: Run.objects.get(pk=run.pk).ended)
    return _milliseconds_to_call(run.pk, begun)


def _at_its_gate() -> tuple[Run, Review]:
    run = commands.start("bench-gate", {}, by="")
    until(lambda: Review.objects.filter(run=run).exists())
    return run, Review.objects.get(run=run)


def _milliseconds_to_call(run_id: int, begun: float) -> float:
    return (next(mark.at for mark in marks.read() if mark.run_id == run_id) - begun) * 1000


def _idle() -> None:
    time.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - so that no sample falls into step with a timer


# --- a page -------------------------------------------------------------------------------------------------------


def _event_to_page(pages: int) -> list[float]:
    """From the time of the newest event in a message to its arrival at a browser's socket, over some runs."""
    with web() as port:
        return [late for _ in range(pages) for late in _page(port)]


def _page(port: int) -> list[float]:
    """One run that waits at its gate, a page that looks at it, and a decision."""
    run, review = _at_its_gate()
    seen = asyncio.run(_look(port, run.pk, review))
    times = {fact.seq: fact.at for fact in event_log.facts(run.pk)}
    return [(at - times[seq]).total_seconds() * 1000 for seq, at in seen.items()]


async def _look(port: int, run_id: int, review: Review) -> dict[int, datetime]:
    """Sequence number -> database time at which the socket brought it, for what follows the decision."""
    cursor, actor, session = await asyncio.to_thread(lambda: (_row(run_id).last_seq, _somebody(), session_of(_somebody())))
    headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session}", "Origin": f"http://127.0.0.1:{port}"}
    seen: dict[int, datetime] = {}
    url = f"ws://127.0.0.1:{port}/ws/runs/{run_id}/?after={cursor}"
    async with connect(url, additional_headers=headers) as page:
        await asyncio.to_thread(decisions.decide, review.pk, actor=actor, kind="approve", seen=review.fingerprint)
        row = await asyncio.to_thread(_row, run_id)
        while not row.ended or row.last_seq not in seen:
            message = json.loads(await asyncio.wait_for(page.recv(), PATIENCE_SECONDS))
            if (seq := message.get("seq") or 0) > cursor:
                seen.setdefault(seq, await asyncio.to_thread(event_log.now))
            row = await asyncio.to_thread(_row, run_id)
    return seen


def _row(run_id: int) -> Run:
    return Run.objects.get(pk=run_id)


def _somebody() -> User:
    return people.ensure_account("operator", "not used")
