"""One named action of a run, as the run's events left it."""

from typing import Any

from django.db import models

from runs.models import content
from runs.models.run import Run


class StepStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    WAITING = "waiting", "Waiting"
    RETRYING = "retrying", "Retrying"
    SUCCEEDED = "succeeded", "Succeeded"
    SKIPPED = "skipped", "Skipped"
    FAILED = "failed", "Failed"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    CANCELLED = "cancelled", "Cancelled"


class Step(models.Model):
    """A projection: rebuilt from events by `manage.py reproject`, changed by nothing else.

    Its input, output and proposal are in the events alone, written once: `event_log.with_payloads` puts them on steps.
    """

    input: Any
    output: Any
    proposal: Any
    # checking the run of each step would lock a row that the same statement has just changed; its unique index serves joins
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="steps", db_constraint=False, db_index=False)
    position = models.IntegerField()
    name = content.ContentChar(max_length=120)
    worker = models.CharField(max_length=120)
    title = content.Title(max_length=200)
    fingerprint = models.CharField(max_length=64)
    status = models.CharField(max_length=12, choices=StepStatus)
    effect = models.CharField(max_length=12, default="none")
    confidence = models.FloatField(null=True)
    threshold = models.FloatField(null=True)
    why = content.ContentText(blank=True, default="")
    source = content.ContentChar(max_length=120, blank=True, default="")
    alternatives = content.ContentJSON(default=dict)
    attempt = models.IntegerField(default=0)
    error = content.Error(null=True)
    cause = models.CharField(max_length=20, blank=True, default="")
    decision = models.CharField(max_length=20, blank=True, default="")
    decided_by = models.CharField(max_length=150, blank=True, default="")
    reason = content.ContentText(blank=True, default="")
    fallback = models.CharField(max_length=120, blank=True, default="")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["run_id", "position"]
        constraints = [
            # a replay finds a recorded step by its place, a person by its name: neither may be doubled
            models.UniqueConstraint(fields=["run", "position"], name="step_position_once"),
            models.UniqueConstraint(fields=["run", "name"], name="step_name_once"),
        ]

    def __str__(self) -> str:
        return f"Run {self.run_id}, step {self.position} {self.name}"

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from the start of the first attempt to the end, waits for people included."""
        if not (self.started_at and self.finished_at):
            return None
        return round((self.finished_at - self.started_at).total_seconds() * 1000)
