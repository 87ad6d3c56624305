"""What people and the system did with a review besides deciding it; the database refuses to change a line,
and to delete it while its run has no tombstone."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from reviews.models.review import Review
from runs.models import kept_until_removed, never_emptied
from runs.models.content import ContentText


class ReviewEvent(models.Model):
    """One line of a review's history. Its opening and its decisions stand in their own rows, and are not said twice."""

    class Kind(models.TextChoices):
        CLAIMED = "claimed", "claimed it"
        RELEASED = "released", "gave it back"
        TAKEN_OVER = "taken_over", "took it over"
        REASSIGNED = "reassigned", "reassigned it"
        SNOOZED = "snoozed", "snoozed it"
        WOKEN = "woken", "ended the snooze"
        ESCALATED = "escalated", "asked a second group"
        REMINDED = "reminded", "reminded"

    review = models.ForeignKey(Review, on_delete=models.PROTECT, related_name="events")
    at = models.DateTimeField(db_default=Now())
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, help_text="Empty: the system.")
    kind = models.CharField(max_length=12, choices=Kind)
    about = models.CharField(max_length=200, default="", help_text="The person, group or time that it is about.")
    note = ContentText(default="")

    class Meta:
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update),
            never_emptied(),
            kept_until_removed("(SELECT review.run_id FROM reviews_review AS review WHERE review.id = OLD.review_id)"),
        ]

    def __str__(self) -> str:
        return f"{self.actor or 'the system'} {self.get_kind_display()}"


class RemovedReview(models.Model):
    """Of which run a review was that went with it, so that a link to it leads to the tombstone of the run."""

    review_id = models.BigIntegerField(primary_key=True)
    run_id = models.BigIntegerField()

    def __str__(self) -> str:
        return f"Review {self.review_id}, of run {self.run_id}"
