"""What a reviewer has typed and not sent."""

from django.conf import settings
from django.db import models

from reviews.models.review import Review
from runs.models.content import ContentJSON


class Draft(models.Model):
    """The form of one decision as its reviewer left it: fields by their names. Sent, it is gone."""

    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="drafts")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=20)
    data = ContentJSON(default=dict)
    saved_at = models.DateTimeField()

    class Meta:
        constraints = [
            # each keystroke is saved into the row of its form
            models.UniqueConstraint(fields=["review", "reviewer", "kind"], name="draft_of_kind_once"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of review {self.review_id}, by {self.reviewer}"
