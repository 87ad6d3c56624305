"""Names of what is measured, what is to be reached, and a table of both for people."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Taken = dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """`least`: the figure is to be at least this; otherwise at most."""

    figure: str
    value: float
    title: str
    least: bool = False

    def reached(self, measured: float) -> bool:
        return measured >= self.value if self.least else measured <= self.value


ENGINE = [
    Target("commits_per_step", 1.0, "transactions per step"),
    Target("round_trips_per_step", 1.5, "round trips per step"),
    Target("ratio_1x1", 0.60, "1 process, 1 thread: share of the limit with 1 client", least=True),
    Target("ratio_best", 0.40, "2 processes, in process: share of the limit with 8 clients", least=True),
    Target("rq_ratio_best", 0.40, "2 job processes, through RQ: share of the limit with 8 clients", least=True),
    Target("gap_ms_p50", 1.0, "from one step's start to the next, p50 ms"),
    Target("gap_ms_p95", 3.0, "from one step's start to the next, p95 ms"),
    Target("start_ms_p50", 10.0, "start command to first step, idle, p50 ms"),
    Target("start_ms_p95", 50.0, "start command to first step, idle, p95 ms"),
    Target("decision_ms_p50", 15.0, "decision to next step, idle, another process, p50 ms"),
    Target("decision_ms_p95", 50.0, "decision to next step, idle, another process, p95 ms"),
    Target("takeover_seconds_p95", 15.0, "killed process, another alive: its runs continue, p95 s"),
    Target("waiting_steps_per_second", 300.0, "1,000 runs whose steps wait 2 s: steps per second", least=True),
    Target("waiting_peak_mb", 1536.0, "the same: memory of all job processes, MB"),
    Target("waiting_connections", 20.0, "the same: connections to PostgreSQL"),
]
INBOX = [
    Target("list_ms_p95", 120.0, "the list, its filters and its second page, p95 ms"),
    Target("list_queries", 10.0, "questions to the database for the list"),
    Target("next_ms_p95", 100.0, "the next item, claimed and shown, p95 ms"),
    Target("decide_ms_p95", 60.0, "a decision, p95 ms"),
    Target("screen_ms_p95", 500.0, "from a decision to the other reviewers' screens, p95 ms"),
]
PAGES = [
    Target("runs_ms_p95", 150.0, "the list of runs with each of its filters, p95 ms"),
    Target("runs_kb", 300.0, "the list of runs, its largest page, kB"),
    Target("dashboard_ms_p95", 200.0, "the dashboard, p95 ms"),
    Target("timeline_100_ms_p95", 200.0, "the page of a run of 100 steps at the server, p95 ms"),
    Target("timeline_1000_ms_p95", 400.0, "the same of 1,000 steps, p95 ms"),
    Target("timeline_20000_ms_p95", 800.0, "the same of 20,000 steps, p95 ms"),
    Target("watch_ms_p95", 500.0, "an event of a run to the pages of all who look at it, p95 ms"),
    Target("watch_ms_p99", 1500.0, "the same, p99 ms"),
    Target("watch_wrong_pages", 0.0, "the same: pages with a gap or a double"),
    Target("watch_mb_a_viewer", 1.0, "the same: memory of the web server for each of them, MB"),
]
TARGETS = ENGINE + INBOX + PAGES


def spread(name: str, values: Iterable[float]) -> Taken:
    """The middle value and the one that 95 of 100 stay under."""
    ordered = sorted(values)
    return {f"{name}_p50": statistics.median(ordered), f"{name}_p95": at(0.95, ordered)}


def at(share: float, ordered: Sequence[float]) -> float:
    """What this share of the values stays under."""
    return ordered[int(share * (len(ordered) - 1) + 0.5)]


def summary(taken: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Figure -> median, min, max, how often it was taken, and its target where it has one."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in taken.items():
        middle = statistics.median(values)
        found[name] = {"median": _round(middle), "min": _round(min(values)), "max": _round(max(values)), "taken": len(values)}
        if target := next((one for one in TARGETS if one.figure == name), None):
            found[name] |= {"target": target.value, "reached": target.reached(middle)}
    return found


def table(result: dict[str, Any]) -> str:
    """The targets first, then every figure."""
    figures = result["figures"]
    lines = [f"limit: {result['limit']}; {result['server']}; {result['rounds']} rounds, medians (least .. most)", ""]
    for target in TARGETS:
        if one := figures.get(target.figure):
            bound, mark = "at least" if target.least else "at most", "reached" if one["reached"] else "MISSED"
            lines.append(f"{target.title:<66} {bound:>8} {target.value:>7g} {_text(one):>34}  {mark}")
    lines.append("")
    return "\n".join([*lines, *(f"{name:<32} {_text(one):>38}" for name, one in figures.items())])


def _text(one: dict[str, Any]) -> str:
    return f"{one['median']:g} ({one['min']:g} .. {one['max']:g})" if one["taken"] > 1 else f"{one['median']:g}"


def _round(value: float) -> float:
    return round(value, 4 if abs(value) < 10 else 1)
