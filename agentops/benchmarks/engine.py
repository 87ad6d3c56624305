"""What the durable engine costs: every figure taken in interleaved rounds, rates between two looks at the server's limit."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection

from agentops.benchmarks import endurance, latency, throughput
from agentops.benchmarks.figures import Taken, summary
from agentops.benchmarks.limit import Limit

FEW, MANY = 1, 8  # clients of the limit


@dataclass(frozen=True, slots=True)
class Form:
    """How much is measured."""

    rounds: int = 5
    limit_seconds: float = 2.0
    runs: int = 150  # per figure of one process and one thread; four times as many with two processes
    threads: tuple[int, ...] = (4, 8, 16)
    samples: int = 15
    waiting_runs: int = 1000
    waiting_steps: int = 10
    waiting_seconds: float = 2.0
    waiting_threads: int = 500
    waiting_rounds: int = 1
    kills: int = 3


QUICK = Form(1, 1.0, 4, (4,), 3, waiting_runs=20, waiting_steps=2, waiting_seconds=0.1, waiting_threads=16, kills=1)
Measure = Callable[[Form, Limit], Taken]


def measure(form: Form, *, only: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure with its median, least and most over the rounds."""
    limit, taken = Limit(form.limit_seconds), dict[str, list[float]]()
    for number in range(form.rounds):
        for name, take in MEASURES.items():
            if (only and name not in only) or number >= _rounds(name, form):
                continue
            say(f"round {number + 1} of {_rounds(name, form)}: {name}")
            for figure, value in take(form, limit).items():
                taken.setdefault(figure, []).append(value)
    figures = summary(dict(_with_best(taken)))
    return {"limit": limit.means, "server": server(), "rounds": form.rounds, "form": str(form), "figures": figures}


def _rounds(name: str, form: Form) -> int:
    """Counts do not vary, kills are several by themselves, and the long wait is long."""
    return {"counts": 1, "kill": 1, "waiting": form.waiting_rounds}.get(name, form.rounds)


def _one(form: Form, limit: Limit) -> Taken:
    before = limit.rate(FEW)
    taken = throughput.one_thread(form.runs)
    bound = statistics.mean([before, limit.rate(FEW)])
    return taken | {"limit_1_client": bound, "ratio_1x1": taken["steps_per_second_1x1"] / bound}


def _two(form: Form, limit: Limit) -> Taken:
    def rate(threads: int) -> float:
        return throughput.in_process(runs=form.runs * 4, processes_=2, threads=threads)[0].steps_per_second

    return _swept(form, limit, rate, "")


def _two_through_rq(form: Form, limit: Limit) -> Taken:
    return _swept(form, limit, lambda threads: throughput.through_rq(runs=form.runs * 4, processes_=2, threads=threads), "rq_")


def _swept(form: Form, limit: Limit, rate: Callable[[int], float], prefix: str) -> Taken:
    """Each number of threads between two looks at the limit."""
    taken, before = Taken(), limit.rate(MANY)
    for threads in form.threads:
        reached, after = rate(threads), limit.rate(MANY)
        bound, before = statistics.mean([before, after]), after
        taken |= {f"{prefix}steps_per_second_2x{threads}": reached, f"{prefix}ratio_2x{threads}": reached / bound}
    return taken | {"limit_8_clients": before}


def _waiting(form: Form, limit: Limit) -> Taken:
    return endurance.waiting(
        runs=form.waiting_runs, steps=form.waiting_steps, seconds=form.waiting_seconds, threads=form.waiting_threads
    )


MEASURES: dict[str, Measure] = {
    "one": _one,
    "two": _two,
    "rq": _two_through_rq,
    "latency": lambda form, limit: latency.measure(form.samples),
    "counts": lambda form, limit: throughput.counts(),
    "kill": lambda form, limit: endurance.takeover(form.kills),
    "waiting": _waiting,
}


def _with_best(taken: dict[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
    """The number of threads with the best median stands for the sweep."""
    yield from taken.items()
    for prefix in ("", "rq_"):
        swept = {name: values for name, values in taken.items() if name.startswith(f"{prefix}ratio_2x")}
        if swept:
            best = max(swept, key=lambda name: statistics.median(swept[name]))
            yield f"{prefix}ratio_best", swept[best]
            yield f"{prefix}threads_best", [float(best.rpartition("x")[2])]


def server() -> str:
    """Its version, and what makes it durable."""
    with connection.cursor() as cursor:
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
        version, *switches = cursor.fetchone()
    return f"PostgreSQL {version.split()[0]} " + ", ".join(f"{n}={v}" for n, v in zip(names[1:], switches, strict=True))
