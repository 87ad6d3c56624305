"""Which runs are held back from a dependency now, and what was said of it: asked of the event that parked them."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, QuerySet
from django.db.models.fields.json import KT

from runs.models.event import Event
from runs.models.run import HELD_BACK, Run, RunStatus

CAUSES = HELD_BACK
NAME = KT("data__dependency")


def runs() -> QuerySet[Run]:
    """Those that wait for a dependency, whichever it is."""
    return Run.objects.filter(status=RunStatus.WAITING, waiting_cause__in=CAUSES)


def behind(dependency: str) -> QuerySet[Run]:
    """Those that wait for this one."""
    parked = Event.objects.filter(run=OuterRef("pk"), seq=OuterRef("last_seq"), data__dependency=dependency)
    return runs().filter(Exists(parked))


def counts() -> dict[str, int]:
    """Dependency -> how many runs wait for it."""
    return dict(_parked().values_list(NAME).annotate(Count("pk")))


def reasons() -> list[tuple[str, str]]:
    """Which dependencies hold runs back, each with a cause."""
    return list(_parked().values_list(NAME, "run__waiting_cause").distinct())


def _parked() -> QuerySet[Event]:
    """The events that parked them."""
    return Event.objects.filter(run__in=runs(), seq=F("run__last_seq"), data__has_key="dependency").order_by()


def said(given: Iterable[Run]) -> dict[int, dict[str, Any]]:
    """Run -> what parked it: `dependency` and `why`. Nothing is asked where none of them is held back."""
    held = [run.pk for run in given if run.status == RunStatus.WAITING and run.waiting_cause in CAUSES]
    if not held:
        return {}
    parked = Event.objects.filter(run__in=held, seq=F("run__last_seq"))
    return dict(parked.values_list("run_id", "data"))
