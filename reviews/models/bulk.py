"""Reviews that one person decides together, and what came of each."""

from typing import Self

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.urls import reverse

from reviews.models.decision import Decision
from reviews.models.review import Review
from runs.models import Bulk, BulkQuerySet
from runs.models.content import ContentText


class BulkDecision(Bulk):
    """One decision about many reviews."""

    kind = models.CharField(max_length=20, choices=Decision.Kind)
    reason = ContentText(blank=True, default="")
    tag = models.CharField(max_length=40, choices=Decision.Tag, blank=True, default="")

    objects = BulkQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.get_kind_display()} together by {self.actor}"

    def get_absolute_url(self) -> str:
        return reverse("bulk_result", args=[self.pk])

    @property
    def word(self) -> str:
        """What was decided: of samples "It was right", of all else "Approved"; they have one cause."""
        first = self.items.select_related("review").order_by("pk").first()
        return Decision(review=first.review, kind=self.kind).get_kind_display() if first else self.get_kind_display()

    @property
    def can_be_undone(self) -> bool:
        """Some of it is not carried out yet."""
        taken = Decision.objects.filter(bulk=self.pk, revoked_at=None, effective_at__gt=Now())
        return taken.exists() or self.left > 0


class BulkItemQuerySet(models.QuerySet["BulkItem"]):
    def untouched(self) -> Self:
        """Those that nobody has come to; one is not among them whose process decided it and ended before it said so."""
        decided = Decision.objects.filter(bulk=OuterRef("bulk"), review=OuterRef("review"), revoked_at=None)
        return self.filter(~Exists(decided), outcome="")


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
    said = ContentText(blank=True, default="", help_text="Why it was not decided.")
    at = models.DateTimeField(null=True)

    objects = BulkItemQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["bulk", "review"], name="bulk_item_once")]
        # what is left of one
        indexes = [models.Index(fields=["bulk", "id"], condition=Q(outcome=""), name="bulk_item_left")]

    def __str__(self) -> str:
        return f"Review {self.review_id}: {self.get_outcome_display() or 'waits'}"
