"""One immutable fact in a run's log; the database refuses to change, delete or truncate it."""

import pgtrigger
from django.db import models

from runs.models.run import Run


class Event(models.Model):
    """`seq` counts from 1 within the run; `hash` covers the event and the hash before it (engine/events.py)."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+")
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=40)
    step = models.PositiveIntegerField(null=True)
    actor = models.CharField(max_length=150, blank=True, default="")
    data = models.JSONField()
    at = models.DateTimeField()
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["run_id", "seq"]
        constraints = [
            # two writers cannot both have the last word: the second insert fails
            models.UniqueConstraint(fields=["run", "seq"], name="event_seq_once"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            pgtrigger.Trigger(
                name="no_truncate",
                level=pgtrigger.Statement,
                when=pgtrigger.Before,
                operation=pgtrigger.Truncate,
                func="RAISE EXCEPTION 'events are append-only: TRUNCATE is refused';",
            ),
        ]

    def __str__(self) -> str:
        return f"Run {self.run_id}, event {self.seq} {self.kind}"
