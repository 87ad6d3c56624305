"""Who is at a review now."""

from django.conf import settings
from django.db import models

from reviews.models.review import Review


class Claim(models.Model):
    """A reviewer's lease on a review: courtesy to the others; safety is in decide()."""

    review = models.OneToOneField(Review, on_delete=models.CASCADE, related_name="claim")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.reviewer} until {self.until:%H:%M:%S}"
