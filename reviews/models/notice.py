"""What people are told about reviews, by the bell, by mail and in channels."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from reviews.models.review import Review


def validate_zone(name: str) -> None:
    if name not in available_timezones():
        raise ValidationError("No such time zone is known. Write it as Europe/Berlin, America/New_York or UTC.")


class Pace(models.Model):
    """How often somebody is written to, and how the last sending went."""

    digest_minutes = models.PositiveSmallIntegerField(
        "collect for minutes",
        default=15,
        validators=[MaxValueValidator(1440)],
        help_text="What happens within so many minutes comes in one message. 0: at once.",
    )
    hourly_cap = models.PositiveSmallIntegerField(
        "most messages in an hour",
        default=12,
        validators=[MinValueValidator(1), MaxValueValidator(120)],
        help_text="What comes beyond it waits for the next message; nothing is lost.",
    )
    quiet_from = models.TimeField(null=True, blank=True, help_text="Nothing is sent from this time of day on ...")
    quiet_until = models.TimeField(null=True, blank=True, help_text="... until this one. Both empty: no quiet hours.")
    zone = models.CharField(
        "time zone", max_length=64, default="UTC", validators=[validate_zone], help_text="Such as Europe/Berlin or UTC."
    )
    # -------- written by whoever sends
    sending_until = models.DateTimeField(null=True, editable=False, help_text="Somebody is sending until then at most.")
    retry_at = models.DateTimeField(null=True, editable=False, help_text="After a failure nothing is tried before.")
    failures = models.PositiveSmallIntegerField(default=0, editable=False)
    failing_since = models.DateTimeField(null=True, editable=False, help_text="The first failure of the message that waits.")
    gave_up_at = models.DateTimeField(
        null=True, editable=False, help_text="What waited then is sent with what comes later, or when this is saved anew."
    )
    last_error = models.TextField(default="", editable=False)
    last_sent_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True

    def begin_anew(self) -> None:
        """Whoever has changed something wants to see whether it works now; to be saved with the change."""
        self.retry_at, self.failures, self.failing_since, self.gave_up_at, self.last_error = None, 0, None, None, ""

    def clean(self) -> None:
        if (self.quiet_from is None) != (self.quiet_until is None):
            raise ValidationError({"quiet_until": "Give both times of the quiet hours, or neither."})

    def local(self, at: datetime) -> datetime:
        """The same moment by the clock of that time zone."""
        return at.astimezone(ZoneInfo(self.zone))

    def is_quiet(self, at: datetime) -> bool:
        """Whether it is a quiet hour there; they may go across midnight."""
        if self.quiet_from is None or self.quiet_until is None:
            return False
        time = self.local(at).time()
        if self.quiet_from <= self.quiet_until:
            return self.quiet_from <= time < self.quiet_until
        return time >= self.quiet_from or time < self.quiet_until


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
