"""How often a recipient of messages is written to, and how the last sending went."""

from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


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
