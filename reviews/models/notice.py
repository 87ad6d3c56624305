"""What people are told about reviews, by the bell, by mail and in channels."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from reviews.models.review import Review
from runs.models import Pace as Pace
from runs.models import validate_zone as validate_zone  # by this name in a migration


class NoticeSettings(Pace):
    """How one person wants to be told; the bell rings in any case."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notice_settings")
    mail = models.BooleanField("also by mail", default=False)

    class Meta:
        verbose_name_plural = "notice settings"

    def __str__(self) -> str:
        return f"{self.user}"

    @classmethod
    def of(cls, user: Any) -> "NoticeSettings":
        """Those of this person, or the defaults, not yet saved."""
        return cls.objects.filter(user=user).first() or cls(user=user)


class Channel(Pace):
    """A place that many read, such as a channel of Slack, or a program behind a webhook."""

    name = models.CharField(max_length=80, unique=True)
    url = models.TextField()
    groups = models.ManyToManyField(
        Group, blank=True, related_name="+", help_text="Told of the reviews of these groups. None chosen: of every review."
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Notice(models.Model):
    """One sentence to one person or one channel: this review, for this reason."""

    class Kind(models.TextChoices):
        NEW = "new", "New"
        ASSIGNED = "assigned", "Assigned to you"
        TAKEN_OVER = "taken_over", "Taken over from you"
        ESCALATED = "escalated", "Your group is asked too"
        HALF = "half", "Half of the time has passed"
        LAST = "last", "Little time is left"

    class Delivery(models.TextChoices):
        NONE = "none", "Nobody asked for it"
        WAITS = "waits", "Not sent yet"
        SENT = "sent", "Sent"
        DROPPED = "dropped", "No longer needed"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="notices", db_index=False
    )
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, null=True, related_name="notices")
    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=12, choices=Kind)
    at = models.DateTimeField(db_default=Now())
    read_at = models.DateTimeField(null=True)
    delivery = models.CharField(max_length=8, choices=Delivery, default=Delivery.NONE)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # whoever reads it is a person or a channel
            models.CheckConstraint(
                condition=Q(user=None, channel__isnull=False) | Q(user__isnull=False, channel=None), name="notice_to_one"
            ),
        ]
        indexes = [
            models.Index(fields=["user", "-at", "-id"], name="notice_of_user"),  # the page of notices
            models.Index(fields=["user"], condition=Q(read_at=None, user__isnull=False), name="notice_unread"),  # the bell
            models.Index(fields=["at"], condition=Q(delivery="waits"), name="notice_waits"),  # whoever sends
            models.Index(fields=["sent_at"], condition=Q(delivery="sent"), name="notice_sent"),  # the most of an hour
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: review {self.review_id}"

    @property
    def is_unread(self) -> bool:
        """What is told of a closed review needs no reading."""
        return self.read_at is None and self.review.is_open
