"""Who has a review open, and since when."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from reviews.models.review import Review


class Presence(models.Model):
    """One reviewer at one review. `since` is the first opening, from which a decision's time counts."""

    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="presences")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    since = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(null=True, help_text="When the page last said that it is open; empty: it was left.")

    class Meta:
        constraints = [
            # each page that is open says so again and again, into one row
            models.UniqueConstraint(fields=["review", "reviewer"], name="presence_once"),
        ]

    def __str__(self) -> str:
        return f"{self.reviewer} at review {self.review_id}"
