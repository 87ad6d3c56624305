"""Which runs are held back from a dependency now, and what was said of it: asked of the event that parked them."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, QuerySet
from django.db.models.fields.json import KT

from runs.engine.events import Kind
from runs.models.event import Event
from runs.models.run import HELD_BACK, Run, RunStatus

CAUSES = HELD_BACK
BY_A_DEPENDENCY = tuple(cause for cause in CAUSES if cause != "budget")
SAID = (*CAUSES, "reviews")  # causes of waits whose event says why
NAME = KT("data__dependency")
MOST_WAITING = 5000  # of those behind budgets that one sweep looks at


def runs() -> QuerySet[Run]:
    """Those that wait for a dependency, whichever it is, or for a budget."""
    return Run.objects.filter(status=RunStatus.WAITING, waiting_cause__in=CAUSES)


def behind(dependency: str, *, parked_before: datetime | None = None) -> QuerySet[Run]:
    """Those that wait for this one. Who waits for a budget waits for what a person decides."""
    parked = Event.objects.filter(run=OuterRef("pk"), seq=OuterRef("last_seq"), data__dependency=dependency)
    parked = parked.filter(at__lt=parked_before) if parked_before else parked
    return runs().filter(Exists(parked), waiting_cause__in=BY_A_DEPENDENCY)


def counts() -> dict[str, int]:
    """Dependency -> how many runs wait for it."""
    return dict(_parked().filter(run__waiting_cause__in=BY_A_DEPENDENCY).values_list(NAME).annotate(Count("pk")))


def reasons() -> list[tuple[str, str]]:
    """Which dependencies hold runs back, each with a cause."""
    found = _parked().filter(run__waiting_cause__in=BY_A_DEPENDENCY)
    return list(found.values_list(NAME, "run__waiting_cause").distinct())


def _parked() -> QuerySet[Event]:
    """The events that parked them."""
    return Event.objects.filter(run__in=runs(), seq=F("run__last_seq"), data__has_key="dependency").order_by()


def behind_budgets() -> dict[int, list[tuple[int, Decimal]]]:
    """Budget -> the runs that wait for it, the oldest first, each with what it needs."""
    parked = _parked().filter(run__waiting_cause="budget", data__has_key="budget").order_by("run")
    found: dict[int, list[tuple[int, Decimal]]] = {}
    for run_id, budget, needs in parked.values_list("run", KT("data__budget"), KT("data__needs"))[:MOST_WAITING]:
        found.setdefault(int(budget), []).append((run_id, Decimal(needs)))
    return found


def said(given: Iterable[Run]) -> dict[int, dict[str, Any]]:
    """Run -> what parked it: `dependency` and `why`. Nothing is asked where none of them is held back."""
    held = [run.pk for run in given if run.status == RunStatus.WAITING and run.waiting_cause in SAID]
    if not held:
        return {}
    parked = Event.objects.filter(run__in=held, seq=F("run__last_seq"))
    return dict(parked.values_list("run_id", "data"))


def for_a_moment(running: Iterable[Run]) -> list[tuple[int, int, dict[str, Any]]]:
    """Run, step and what was said of it, of those whose last event held a step back without parking them.

    So it is where a worker itself asks for a moment; for a dependency only among steps side by side, while others are at work.
    """
    last = Event.objects.filter(run__in=[run.pk for run in running], seq=F("run__last_seq"), kind=Kind.STEP_DEFERRED)
    return [(run_id, step or 0, data) for run_id, step, data in last.values_list("run_id", "step", "data")]
