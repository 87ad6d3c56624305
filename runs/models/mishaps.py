"""How often the steps of each worker did not go as they should: asked of the events that say so."""

from datetime import datetime

from django.db.models import Count, OuterRef, Subquery

from runs.engine.events import Kind
from runs.models.event import MISHAPS, Event
from runs.models.step import Step

FAILURES = (Kind.ATTEMPT_FAILED, Kind.ATTEMPT_CRASHED)


def counts(since: datetime) -> dict[tuple[str, str], tuple[int, int]]:
    """(agent, worker) -> attempts that failed since then, and steps that took their fallback or were skipped."""
    of_its_step = Step.objects.filter(run=OuterRef("run_id"), position=OuterRef("step")).values("worker")[:1]
    found = Event.objects.filter(kind__in=MISHAPS, at__gte=since).order_by().annotate(worker=Subquery(of_its_step))
    counted: dict[tuple[str, str], tuple[int, int]] = {}
    for agent, worker, kind, number in found.values_list("run__agent", "worker", "kind").annotate(Count("pk")):
        failed, degraded = counted.get((agent, worker), (0, 0))
        is_failure = kind in FAILURES
        counted[agent, worker] = (failed + number * is_failure, degraded + number * (not is_failure))
    return counted
