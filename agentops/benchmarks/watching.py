"""How soon the events of a run are on the pages of many who look at it, whether each gets every one, and what a page costs."""

import json
import random
import time
from itertools import cycle, islice
from typing import Any

from django.contrib.auth.models import User

from agentops.benchmarks import processes
from agentops.benchmarks.figures import Taken, at, spread
from agentops.visitor import Visitor
from runs import commands, event_log
from runs.engine.events import Draft, Kind

AWAY_SHARE, SLOW_SECONDS = 0.07, 0.3  # of the whole time: about two seconds of thirty; between two messages
SLOW = 10  # one in so many reads slowly
STEP = {"worker": "agentops.benchmarks.agents.act", "title": "Act", "fingerprint": "", "effect": "none", "attempt": 1}


def measure(users: list[User], *, viewers: int, seconds: float, a_second: float) -> Taken:
    """One run that writes so many events a second, and so many who look at it, each in a session of their own.

    Each loses its network once.
    """
    run_id = commands.start("bench-steps", {}, by="bench").pk
    taken = event_log.take(run_id, owner="bench")
    if taken is None:
        raise RuntimeError(f"run {run_id} is owned by somebody")
    log, opening = taken
    log.append(opening)
    count = round(seconds * a_second)
    first, last = log.state.seq + 1, log.state.seq + count
    with processes.web_process() as (port, web):
        visitors = [Visitor(port, user) for user in islice(cycle(users), viewers)]
        for one in visitors[:4]:
            one.get(f"/runs/{run_id}/")  # what it imports and keeps for anybody
        memory = processes.memory_mb(web)
        pages = [_page(one, run_id, after=first - 1, seconds=seconds, is_slow=not n % SLOW) for n, one in enumerate(visitors)]
        with processes.process("-m", "agentops.benchmarks.onlookers", piped=True) as onlookers:
            processes.tell(onlookers, json.dumps({"first": first, "last": last, "pages": pages}))
            processes.heard(onlookers)
            cpu = processes.cpu_seconds(web.pid)
            _write(log, count, a_second)
            processes.heard(onlookers)
            cpu = processes.cpu_seconds(web.pid) - cpu
            memory = processes.memory_mb(web) - memory
            written = {fact.seq: fact.at.timestamp() for fact in event_log.facts(run_id) if fact.seq >= first}
            processes.tell(onlookers, json.dumps(written))
            said = json.loads(processes.heard(onlookers))
    figures = {"watch_viewers": float(viewers), "watch_events": float(count), "watch_wrong_pages": float(said["wrong"])}
    each = 1e6 / (count * viewers)  # microseconds
    figures |= {"watch_cpu_us": cpu * each, "watch_own_cpu_us": said["cpu_seconds"] * each}
    figures |= {"watch_ms_p99": at(0.99, sorted(said["late"])), "watch_mb_a_viewer": memory / viewers}
    return spread("watch_ms", said["late"]) | figures


def _page(visitor: Visitor, run_id: int, *, after: int, seconds: float, is_slow: bool) -> dict[str, Any]:
    """What onlookers.Page is."""
    return {
        "address": f"ws://127.0.0.1:{visitor.port}/ws/runs/{run_id}/?after={{}}",
        "headers": visitor.headers,
        "cursor": after,
        "leaves_after": seconds * (1 - AWAY_SHARE) * random.random(),  # noqa: S311 - not for secrets
        "stays_away": seconds * AWAY_SHARE,
        "reads_every": SLOW_SECONDS if is_slow else 0.0,
    }


def _write(log: event_log.RunLog, count: int, a_second: float) -> None:
    """A step begins and ends in turn, each in a statement of its own."""
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / a_second - time.monotonic()))
        place, ends = number // 2 + 1, number % 2
        said = {"output": {"number": place}} if ends else STEP | {"name": f"act_{place}", "input": {"number": place}}
        log.append(Draft(Kind.STEP_SUCCEEDED if ends else Kind.STEP_STARTED, said, place))
