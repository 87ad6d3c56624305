"""Verifies a few runs and prunings at a time, and keeps those whose verification failed until they are in order again."""

from django.db import models
from django.db.models import ExpressionWrapper, Q

from runs import audit
from runs.models import BrokenLog, Pruning, Run

LOOKED_AT = 5  # of the runs that ended last, each round
PRUNINGS = 2
WRONG_FIRST = ExpressionWrapper(Q(wrong=""), models.BooleanField())
LARGEST = 2000  # events, or tombstones: what is larger is for `manage.py verify`


def look() -> None:
    """At the newest runs that have ended, and again at some of what was found wrong, so that each has its turn."""
    newest = Run.objects.filter(finished_at__isnull=False, last_seq__lte=LARGEST).order_by("-finished_at")
    broken = list(BrokenLog.objects.order_by("?").values_list("run", flat=True)[:LOOKED_AT])
    for run_id in [*broken, *newest.values_list("pk", flat=True)[:LOOKED_AT]]:
        note(run_id, audit.first_wrong(run_id))
    prunings = Pruning.objects.filter(runs__range=(1, LARGEST)).order_by(WRONG_FIRST, "?").values_list("pk", flat=True)
    for pruning in prunings[:PRUNINGS]:
        note_pruning(pruning, audit.of_pruning(pruning))


def note_pruning(pruning: int, found: audit.Found) -> None:
    """What was found of its tombstones."""
    Pruning.objects.filter(pk=pruning).exclude(wrong=found.sentence).update(wrong=found.sentence)


def clear_prunings() -> None:
    """The tombstones of all were found in order."""
    Pruning.objects.exclude(wrong="").update(wrong="")


def note(run_id: int, wrong: str) -> None:
    """What was found of it: "" when all holds."""
    if wrong:
        BrokenLog.objects.update_or_create(run_id=run_id, defaults={"wrong": wrong})
    else:
        BrokenLog.objects.filter(run=run_id).delete()
