"""The first page: what needs a person, how the runs are, and whether the machinery works."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import django_rq
from django.core.cache import cache
from django.db.models import Count, F, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.results import Result
from rq.worker import BaseWorker

from reviews.models import Cause, Review
from runs import access, sdk, waiting
from runs.dispatch import SILENT_AFTER
from runs.listing import WAITS
from runs.models import Alert, Run, RunStatus, held
from runs.models.run import ENDED, OPEN
from runs.sweeper import BEAT
from runs.views import alerts as alert_pages
from runs.views import dependencies, trends

OLDEST_REVIEWS = 6
RECENT_RUNS = 10
LAST_ALERTS = 5
DEPENDENCIES = 8
SILENT = "silent"
LOOK_BACK = timedelta(hours=24)  # ended runs are counted this far back
MOST_FAILURES = 1000  # jobs that are asked how they failed


@dataclass(frozen=True, slots=True)
class JobProcess:
    """An RQ worker process; `run_id` is the run it advances now."""

    name: str
    state: str
    run_id: int | None
    beat: datetime

    @property
    def silent(self) -> bool:
        """It was killed, or its machine is away."""
        return self.state == SILENT


@dataclass(frozen=True, slots=True)
class Machinery:
    """What carries the runs; `problem` is a sentence when Redis cannot be asked.

    Of the last hour: `failed` jobs raised an error, `lost` ones ended with their process.
    """

    problem: str = ""
    processes: tuple[JobProcess, ...] = ()
    queued: int = 0
    failed: int = 0
    lost: int = 0
    sweeping: bool = False

    @property
    def alive(self) -> bool:
        return any(not process.silent for process in self.processes)


@require_GET
@access.permits(access.may_look)
def dashboard(request: HttpRequest) -> HttpResponse:
    """`?part=` answers with one part, for the page that is open."""
    parts = {
        "people": _people, "runs": _runs, "machinery": _machinery, "dependencies": _dependencies, "trends": trends.shown,
        "alerts": _alerts,
    }  # fmt: skip
    part = request.GET.get("part", "")
    if part in parts:
        return render(request, f"dashboard/_{part}.html", parts[part](request))
    shown: dict[str, Any] = {}
    for collect in parts.values():
        shown |= collect(request)
    return render(request, "dashboard.html", shown)


def _people(request: HttpRequest) -> dict[str, Any]:
    """Open reviews by cause, and the oldest of them."""
    if not access.may_review(request.user):
        return {"may_review": False}
    counted = dict(Review.objects.open().order_by().values_list("cause").annotate(Count("pk")))
    causes = [(cause.value, counted.get(cause.value, 0)) for cause in Cause]
    oldest = list(Review.objects.open().order_by("opened_at", "pk").select_related("run")[:OLDEST_REVIEWS])
    total = sum(counted.values())
    return {"may_review": True, "causes": causes, "reviews": oldest, "open_count": total, "further": total - len(oldest)}


def _runs(request: HttpRequest) -> dict[str, Any]:
    """Runs that are open, and those of the last day that have ended, by status; the newest. Their children are only counted."""
    since = timezone.now() - LOOK_BACK
    # apart, each finds an index: with OR between them the whole table would be read
    wanted = Run.objects.filter(status__in=OPEN), Run.objects.filter(status__in=ENDED, created_at__gte=since)
    of_open, of_ended = (
        some.order_by().values_list("status", "waiting_cause").annotate(all=Count("pk"), top=Count("pk", filter=Q(parent=None)))
        for some in wanted
    )
    told = of_open.union(of_ended, all=True)
    every, top, waits = Counter[str](), Counter[str](), Counter[str]()
    for status, cause, all_of_it, of_the_top in told:
        every[status] += all_of_it
        top[status] += of_the_top
        if status in (RunStatus.WAITING, RunStatus.RETRYING):
            waits[WAITS.get(cause, cause)] += all_of_it
    counts = [(status.value, top[status]) for status in RunStatus]
    shown = {"counts": counts, "child_count": every.total() - top.total(), "waits_for": waits.most_common()}
    recent = list(Run.objects.top_level().with_child_count().order_by("-created_at", "-id")[:RECENT_RUNS])
    shown |= {"runs": recent, "waits": waiting.answers(recent), "held_counts": sorted(held.counts().items())}
    return shown | {"may_start": access.may_start(request.user), "agents": sdk.agents()}


def _alerts(request: HttpRequest) -> dict[str, Any]:
    """Open ones first, then those that ended last."""
    last = Alert.objects.order_by(F("ended_at").desc(nulls_first=True), "-pk")
    return {"alerts": alert_pages.with_looks(list(last[:LAST_ALERTS]))}


def _dependencies(request: HttpRequest) -> dict[str, Any]:
    """Those first that are not as they should be."""
    found = sorted(dependencies.present(), key=lambda one: one.is_calm)
    return {"dependencies": found[:DEPENDENCIES], "further_dependencies": len(found[DEPENDENCIES:])}


def _machinery(request: HttpRequest) -> dict[str, Any]:
    try:
        return {"machinery": _asked()}
    except (RedisError, OSError) as error:
        kept = "No run is lost, but none moves and no page is live until it is back"
        return {"machinery": Machinery(f"Redis cannot be reached ({type(error).__name__}). {kept}.")}


def _asked() -> Machinery:
    redis = django_rq.get_connection("default")
    queue = Queue("default", connection=redis)
    processes = sorted(_processes(Worker.all(connection=redis)), key=lambda process: (process.silent, process.name))
    failed, lost = _failures(queue)
    sweeping = bool(cache.get(BEAT))
    return Machinery(processes=tuple(processes), queued=queue.count, failed=failed, lost=lost, sweeping=sweeping)


def _failures(queue: Queue) -> tuple[int, int]:
    """Jobs that failed, and those lost with their process, which RQ keeps as failures that no process has signed."""
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job_id in queue.failed_job_registry.get_job_ids(0, MOST_FAILURES - 1, desc=True):
            pipeline.xrevrange(Result.get_key(job_id), count=1)  # type: ignore[no-untyped-call]
        results = [fields for entries in pipeline.execute() for _, fields in entries]
    lost = sum(not fields.get(b"worker_name") for fields in results)
    return len(results) - lost, lost


def _processes(workers: list[BaseWorker]) -> Iterator[JobProcess]:
    """RQ leaves out those whose key has expired; one without a heartbeat expired while it was being read."""
    now = timezone.now()
    for worker in workers:
        if worker.last_heartbeat:
            job = re.match(r"advance-(\d+)-", worker.get_current_job_id() or "")
            state = SILENT if now - worker.last_heartbeat > SILENT_AFTER else str(worker.get_state())
            yield JobProcess(worker.name, state, int(job[1]) if job else None, worker.last_heartbeat)
