"""Reviews that one person decides together, and what came of each."""

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from reviews.models.decision import Decision
from reviews.models.review import Review

SILENT_AFTER = timedelta(seconds=15)  # a process that carries it out says something of each review


class BulkDecision(models.Model):
    """One decision about many reviews. Its id is that of the preview which the person saw: sent twice, it is the same."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    kind = models.CharField(max_length=20, choices=Decision.Kind)
    reason = models.TextField(blank=True, default="")
    tag = models.CharField(max_length=40, choices=Decision.Tag, blank=True, default="")
    previewed_at = models.DateTimeField()
    begun_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.get_kind_display()} together by {self.actor}"

    def get_absolute_url(self) -> str:
        return reverse("bulk_result", args=[self.pk])

    @property
    def left(self) -> int:
        """How many nobody has come to yet."""
        return self.items.filter(outcome="").count()

    @property
    def can_be_undone(self) -> bool:
        """Some of it is not carried out yet."""
        taken = Decision.objects.filter(bulk=self.pk, revoked_at=None, effective_at__gt=Now())
        return taken.exists() or self.left > 0

    @property
    def is_silent(self) -> bool:
        """Nothing has been heard for so long that whoever carried it out must have ended."""
        latest = self.items.aggregate(at=models.Max("at"))["at"] or self.begun_at
        return bool(latest < timezone.now() - SILENT_AFTER)


class BulkItem(models.Model):
    """One of its reviews, with what was seen of it and what came of it; no outcome: nobody has come to it yet."""

    class Outcome(models.TextChoices):
        DECIDED = "decided", "Decided"
        TOO_LATE = "too_late", "Somebody was first"
        CHANGED = "changed", "It has changed"
        REFUSED = "refused", "Refused"
        UNDONE = "undone", "Taken back"

    bulk = models.ForeignKey(BulkDecision, on_delete=models.CASCADE, related_name="items")
    review = models.ForeignKey(Review, on_delete=models.PROTECT, related_name="+")
    seen = models.CharField(max_length=64)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True, default="")
    said = models.TextField(blank=True, default="", help_text="Why it was not decided.")
    at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["bulk", "review"], name="bulk_item_once")]
        # what is left of one
        indexes = [models.Index(fields=["bulk", "id"], condition=Q(outcome=""), name="bulk_item_left")]

    def __str__(self) -> str:
        return f"Review {self.review_id}: {self.get_outcome_display() or 'waits'}"
