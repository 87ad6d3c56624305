"""One immutable fact in a run's log, and the large payloads beside it; the database refuses to change either,
and to delete it while its run has no tombstone."""

import pgtrigger
from django.db import models
from django.db.models import Q

from runs.engine.events import Kind
from runs.models.content import EventData
from runs.models.retention import kept_until_removed, never_emptied
from runs.models.run import Run

# what a step says when it did not go as it should
MISHAPS = [str(kind) for kind in (Kind.ATTEMPT_FAILED, Kind.ATTEMPT_CRASHED, Kind.FALLBACK_TAKEN, Kind.STEP_SKIPPED)]
NEVER_CHANGED = pgtrigger.Protect(name="append_only", operation=pgtrigger.Update)


class Event(models.Model):
    """`seq` counts from 1 within the run; `hash` covers the event and the hash before it (engine/events.py)."""

    # no row is written but by the statement that changes its run's row, so nothing is checked twice
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    seq = models.IntegerField()
    kind = models.CharField(max_length=40)
    step = models.IntegerField(null=True)
    actor = models.CharField(max_length=150, blank=True, default="")
    data = EventData()
    at = models.DateTimeField()
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["run_id", "seq"]
        constraints = [
            # two writers cannot both have the last word: the second insert fails
            models.UniqueConstraint(fields=["run", "seq"], name="event_seq_once"),
        ]
        indexes = [
            # those of the last day, on the page of all operations: small, because what goes well is not in it
            models.Index(fields=["at"], name="event_mishaps", condition=Q(kind__in=MISHAPS)),
        ]
        triggers = [NEVER_CHANGED, kept_until_removed(), never_emptied()]

    def __str__(self) -> str:
        return f"Run {self.run_id}, event {self.seq} {self.kind}"


class Payload(models.Model):
    """A value of an event that is too large to stand in it: canonical JSON text, found by its SHA-256."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    hash = models.CharField(max_length=64)
    body = models.TextField()

    class Meta:
        # Django's own "view" is of all that agents, tools and people wrote, wherever it is kept
        permissions = [("reveal_payload", "May reveal the payloads of one run, with a reason")]
        constraints = [
            # the same value of one run is kept once
            models.UniqueConstraint(fields=["run", "hash"], name="payload_once"),
        ]
        triggers = [NEVER_CHANGED, kept_until_removed(), never_emptied()]

    def __str__(self) -> str:
        return f"Run {self.run_id}, payload {self.hash[:12]}"
