"""What pages cost on a long history: the list of runs with each of its filters, the dashboard, timelines of many steps, and
one run at which many look.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from agentops import people
from agentops.benchmarks import processes, watching
from agentops.benchmarks.engine import server
from agentops.benchmarks.figures import Taken, spread, summary
from agentops.seeding import filling
from agentops.seeding.story import Story
from agentops.visitor import Visitor
from runs.engine.events import Kind
from runs.models import Run

DAYS = 30
WARM_UP = 2
FILTERS = (
    "", "agent=night-report", "status=failed", "status=waiting", "waits=person", "version=2", "by=api", "until={day}",
    "longer=3600", "shorter=0.1", "dearer=0.05", "cheaper=0.01", "text=card", "text=loan 1234", "status=failed&longer=10",
    "children=show", "tag=channel:phone", "tag=campaign:spring", "tag=vip,region:eu",
)  # fmt: skip
STEPS = (100, 1_000, 20_000)


@dataclass(frozen=True, slots=True)
class Form:
    """How long the history is, and how much is measured."""

    runs: int = 1_000_000
    rounds: int = 5
    samples: int = 10
    viewers: int = 200  # of one run, which writes so many events a second for so long
    events: int = 20
    seconds: float = 30.0


QUICK = Form(runs=100_000, rounds=1, samples=3, viewers=10, seconds=1.0)


@dataclass
class Pages:
    """The server, and who looks at it."""

    form: Form
    visitor: Visitor
    users: dict[str, User]
    timelines: dict[int, int] = field(default_factory=dict)  # steps -> run


def measure(form: Form, *, only: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure with its median, least and most over the rounds."""
    about, begun = server(), time.perf_counter()
    users = _accounts()
    say(f"making {form.runs:,} runs")
    filling.fill(form.runs, days=DAYS, seed=1, tell=lambda done, of: None)
    made = form.runs / (time.perf_counter() - begun)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    taken = {"made_runs_per_second": [made]}
    with processes.web() as port:
        pages = Pages(form, Visitor(port, users["operator"]), users)
        for number in range(form.rounds):
            for name, take in MEASURES.items():
                if not only or name in only:
                    say(f"round {number + 1} of {form.rounds}: {name}")
                    for figure, value in take(pages).items():
                        taken.setdefault(figure, []).append(value)
    limit = "signed-in requests of one person, one after the other, from the same machine"
    return {"limit": limit, "server": about, "rounds": form.rounds, "form": str(form), "figures": summary(taken)}


def _accounts() -> dict[str, User]:
    people.ensure_groups()
    return {name: people.ensure_account(name, "") for name in people.CAST}


def _long(steps: int) -> Story:
    now = timezone.now()
    story = Story(random.Random(1), now - timedelta(hours=2), now)  # noqa: S311 - not for secrets
    data = {"agent": "long", "agent_version": "1", "input": {}, "summary": f"A run of {steps:,} steps", "config": {"version": 1}}
    story.requested(data, by="operator")
    for number in range(steps):
        story.begins(f"look_{number}", "long.look", "Look", {"number": number})
        story.gives({"number": number}, seconds=0.01)
    story.say(Kind.RUN_SUCCEEDED, {"output": None})
    return story


# --- measures -----------------------------------------------------------------------------------------------------


def _list(pages: Pages) -> Taken:
    """Every filter as often, with the second page; of the slowest filter also its own time."""
    day = (timezone.now() - timedelta(days=DAYS // 2)).date().isoformat()
    took: dict[str, list[float]] = {}
    largest = 0.0
    for query in FILTERS:
        path = f"/runs/?{query.format(day=day).replace(' ', '+')}"
        took[query], size = _taken(pages, path)
        largest = max(largest, size)
    everything = [value for values in took.values() for value in values]
    slowest = max(spread("", values)["_p50"] for values in took.values())
    return spread("runs_ms", everything) | {"runs_slowest_filter_ms": slowest, "runs_kb": largest}


def _dashboard(pages: Pages) -> Taken:
    return spread("dashboard_ms", _taken(pages, "/")[0])


def _agents(pages: Pages) -> Taken:
    return spread("agent_ms", _taken(pages, "/agents/card-desk/")[0]) | spread("agents_ms", _taken(pages, "/agents/")[0])


def _timeline(pages: Pages) -> Taken:
    found: Taken = {}
    for steps in STEPS:
        if steps not in pages.timelines:
            pages.timelines[steps] = filling.write_one(_long(steps))
        run_id = pages.timelines[steps]
        took, size = _taken(pages, Run(pk=run_id).get_absolute_url())
        found |= spread(f"timeline_{steps}_ms", took) | {f"timeline_{steps}_kb": size}
    return found


def _watch(pages: Pages) -> Taken:
    who = [user for name, user in pages.users.items() if people.CAST[name]]
    return watching.measure(who, viewers=pages.form.viewers, seconds=pages.form.seconds, a_second=pages.form.events)


def _taken(pages: Pages, path: str) -> tuple[list[float], float]:
    """Milliseconds of each request, and kilobytes of the page."""
    took, size = [], 0
    for _ in range(WARM_UP + pages.form.samples):
        begun = time.perf_counter()
        answer = pages.visitor.get(path)
        took.append((time.perf_counter() - begun) * 1000)
        size = len(answer.body.encode())
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}: {answer.body[:2000]}")
    return took[WARM_UP:], size / 1000


MEASURES: dict[str, Callable[[Pages], Taken]] = {
    "list": _list,
    "dashboard": _dashboard,
    "agents": _agents,
    "timeline": _timeline,
    "watch": _watch,
}
