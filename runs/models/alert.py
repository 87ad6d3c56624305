"""What an admin wants to hear of (rules), what was found (alerts, with their history), and where it is said (channels)."""

from typing import Any, Self

import pghistory
import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse

from runs.engine.anomaly import Kind as Terms
from runs.engine.anomaly import Side as Sides
from runs.models.content import ContentChar, Evidence
from runs.models.pace import Pace, validate_zone
from runs.models.retention import kept_until

EACH = "*"  # each agent or dependency by itself; "" is all together
MOST = 1_000_000_000_000.0
# the history of an alert goes with it (runs/retention.py), which takes none that ended in the last day, whatever the clocks say
OVER = """EXISTS (SELECT FROM runs_alert AS alert WHERE alert.id = OLD.alert_id AND alert.state = 'resolved'
  AND alert.ended_at < now() - interval '12 hours')"""


def _number(help_text: str, **options: Any) -> "models.FloatField[Any, Any]":
    validators = [MinValueValidator(-MOST), MaxValueValidator(MOST)]
    return models.FloatField(validators=validators, help_text=help_text, **options)


def _count(most: int, help_text: str, **options: Any) -> "models.PositiveIntegerField[Any, Any]":
    return models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(most)], help_text=help_text, **options)


@pghistory.track(append_only=True)
class AlertRule(models.Model):
    """One condition to watch, of each agent or dependency that it is about; what becomes of it is an alert."""

    class Kind(models.TextChoices):
        THRESHOLD = Terms.THRESHOLD.value, "passes a limit"
        ABSENCE = Terms.ABSENCE.value, "stays at zero"
        CHANGE = Terms.CHANGE.value, "changes fast"
        ANOMALY = Terms.ANOMALY.value, "is unusual for this hour"

    class Side(models.TextChoices):
        ABOVE = Sides.ABOVE.value, "above it"
        BELOW = Sides.BELOW.value, "below it"
        EITHER = Sides.EITHER.value, "either"

    class Act(models.TextChoices):
        NONE = "", "nothing: people decide"
        PAUSE_AGENT = "pause_agent", "disable an agent: it starts no new runs until somebody enables it"
        LOWER_LIMIT = "lower_limit", "lower a dependency's limit of requests"
        OPEN_BREAKER = "open_breaker", "open a dependency's breaker until somebody closes it"

    name = models.CharField(max_length=120, unique=True)
    built_in = models.SlugField(max_length=40, unique=True, null=True, editable=False, help_text="Of those that ship.")
    enabled = models.BooleanField(default=True, help_text="A rule that is disabled opens no alerts; its open ones end.")
    measure = models.CharField(max_length=40)
    subject = models.CharField("of", max_length=80, blank=True, default="")
    kind = models.CharField("when it", max_length=12, choices=Kind, default=Kind.THRESHOLD)
    side = models.CharField(max_length=8, choices=Side, default=Side.ABOVE)
    limit = _number(
        "Of a limit: the value. Of a change: percent. Of the unusual: a robust z-score; 4 is rare, 8 very rare.", default=0
    )
    least_value = _number("What changes, or is unusual, counts only where one of the two values is at least this.", default=0)
    least_count = _count(1_000_000, "A window with fewer runs (or steps) than these is not judged.", default=1)
    window_minutes = models.PositiveSmallIntegerField(
        "window", default=15, choices=[(5, "5 minutes"), (15, "15 minutes"), (60, "an hour"), (1440, "a day")],
        help_text="What ended within it is taken together. What is read at one moment, as the queue, is read each minute.",
    )  # fmt: skip
    back = _count(288, "A change is that against so many windows (or minutes) before.", default=1)
    breaches = _count(60, "So many windows (or minutes) in which it holds ...", default=1)
    of = _count(60, "... among so many open the alert; it ends when it holds in none of so many.", default=3)
    hours_from = models.TimeField(null=True, blank=True, help_text="Only from this time of day on ...")
    hours_until = models.TimeField(null=True, blank=True, help_text="... until this one. Both empty: all day.")
    weekdays_only = models.BooleanField(default=False, help_text="Not on Saturdays and Sundays.")
    zone = models.CharField(
        "time zone", max_length=64, default="UTC", validators=[validate_zone], help_text="Such as Europe/Berlin."
    )
    channels = ArrayField(models.BigIntegerField(), default=list, blank=True, help_text="None chosen: every channel.")
    act = models.CharField("and then", max_length=16, choices=Act, blank=True, default=Act.NONE)
    act_on = models.CharField(
        "what it acts on", max_length=80, blank=True, default="",
        help_text="The agent or dependency. Empty: the one that the alert is about.",
    )  # fmt: skip
    act_limit = models.PositiveIntegerField(
        "lower the limit to", null=True, blank=True, validators=[MinValueValidator(1)],
        help_text="Requests in the dependency's own period.",
    )  # fmt: skip
    version = models.PositiveIntegerField(default=1, editable=False)
    changed_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            # more breaches than points could never open it
            models.CheckConstraint(name="alert_rule_can_open", condition=Q(breaches__gte=1, of__gte=models.F("breaches"))),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("alert_rule", args=[self.pk])

    @property
    def actor(self) -> str:
        """Who did what it did."""
        return f"alert rule {self.pk} ({self.name})"

    @property
    def act_in_short(self) -> str:
        """As a table has it."""
        return self.get_act_display().partition(":")[0].partition(" until ")[0]

    def clean(self) -> None:
        """What contradicts itself; each value out of its own range is told by its validator."""
        told: dict[str, str] = {}
        if self.breaches and self.of and self.breaches > self.of:
            told["of"] = "There must be at least as many windows as must be breaches."
        if (self.hours_from is None) != (self.hours_until is None):
            told["hours_until"] = "Give both times, or neither."
        if self.side == self.Side.EITHER and self.kind == self.Kind.THRESHOLD:
            told["side"] = "A limit is passed above it or below it."
        if self.kind in (self.Kind.CHANGE, self.Kind.ANOMALY) and self.limit is not None and self.limit <= 0:
            told["limit"] = "Give a number above zero."
        if self.kind == self.Kind.CHANGE and self.side == self.Side.BELOW and (self.limit or 0) >= 100:
            told["limit"] = "Nothing falls by more than 100 %: give less."
        if self.kind == self.Kind.CHANGE and self.side != self.Side.BELOW and self.least_value == 0:
            told["least_value"] = "From none to some is without an end: say from which value on a change counts."
        if self.act == self.Act.LOWER_LIMIT and self.act_limit is None:
            told["act_limit"] = "Say to how many requests."
        if told:
            raise ValidationError(told)


class AlertQuerySet(models.QuerySet["Alert"]):
    """Named questions about alerts."""

    def open(self) -> Self:
        return self.exclude(state=Alert.State.RESOLVED)


class Alert(models.Model):
    """A condition that a rule found, from its beginning to its end."""

    class State(models.TextChoices):
        FIRING = "firing", "Firing"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        SNOOZED = "snoozed", "Snoozed"
        NO_DATA = "no_data", "No data"
        RESOLVED = "resolved", "Ended"

    rule = models.ForeignKey(AlertRule, on_delete=models.PROTECT, related_name="alerts", db_index=False)
    rule_version = models.PositiveIntegerField()
    subject = models.CharField(max_length=80, blank=True, default="")
    state = models.CharField(max_length=12, choices=State, default=State.FIRING)
    title = models.CharField(max_length=300, help_text="What is wrong and how bad, in one sentence.")
    value = models.FloatField(null=True, help_text="The latest that was read.")
    evidence = Evidence(default=list, help_text="The rows that caused it: text and address of each.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False)
    snoozed_until = models.DateTimeField(null=True)
    opened_at = models.DateTimeField(db_default=Now())
    read_at = models.DateTimeField(db_default=Now(), help_text="When it was last judged by data.")
    ended_at = models.DateTimeField(null=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        permissions = [("handle_alert", "May acknowledge and snooze alerts")]
        constraints = [
            # one open alert for each condition: two evaluations cannot both open one
            models.UniqueConstraint(fields=["rule", "subject"], condition=~Q(state="resolved"), name="alert_open_once"),
        ]
        indexes = [
            models.Index(fields=["-opened_at", "-id"], name="alert_newest"),  # the list of those that ended
            models.Index(fields=["-opened_at"], condition=~Q(state="resolved"), name="alert_open"),  # count on every page
        ]

    def __str__(self) -> str:
        return f"Alert {self.pk}: {self.title}"

    def get_absolute_url(self) -> str:
        return reverse("alert", args=[self.pk])

    @property
    def is_open(self) -> bool:
        return self.state != self.State.RESOLVED


class AlertEvent(models.Model):
    """Something that happened to an alert. `by` is a username, "" for the evaluation, or the rule that acted."""

    class Kind(models.TextChoices):
        OPENED = "opened", "Opened"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        SNOOZED = "snoozed", "Snoozed"
        FIRING = "firing", "Goes on"
        NO_DATA = "no_data", "No data any more"
        RESOLVED = "resolved", "Ended"
        CLOSED = "closed", "Closed without an answer"
        ACTED = "acted", "Acted"
        NOT_ACTED = "not_acted", "Could not act"

    alert = models.ForeignKey(Alert, on_delete=models.PROTECT, related_name="events")
    kind = models.CharField(max_length=12, choices=Kind)
    by = models.CharField(max_length=150, blank=True, default="")
    note = ContentChar(max_length=300, blank=True, default="")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["at", "pk"]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update),
            kept_until(OVER, name="kept"),
        ]

    def __str__(self) -> str:
        return f"{self.alert_id}: {self.get_kind_display()}"


class AlertChannel(Pace):
    """Where alerts are said: a mail address, a channel of a service, a program behind a webhook."""

    digest_minutes = None  # type: ignore[assignment] # an alert waits for no other
    name = models.CharField(max_length=80, unique=True)
    url = models.TextField()
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class AlertNotice(models.Model):
    """That an alert began, or ended, is to be said in one channel."""

    class Kind(models.TextChoices):
        START = "start", "Started"
        END = "end", "Ended"

    class Delivery(models.TextChoices):
        WAITS = "waits", "Not sent yet"
        SENT = "sent", "Sent"
        DROPPED = "dropped", "Not sent"

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notices")
    channel = models.ForeignKey(AlertChannel, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=8, choices=Kind)
    delivery = models.CharField(max_length=8, choices=Delivery, default=Delivery.WAITS)
    at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["at"], condition=Q(delivery="waits"), name="alert_notice_waits"),  # whoever sends
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: alert {self.alert_id}"
