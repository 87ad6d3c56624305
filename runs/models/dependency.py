"""What an admin wants of a system outside: one row per dependency, every version of it kept."""

from typing import Any

import pghistory
import pgtrigger
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

DAY_SECONDS = 86_400
HOUR_SECONDS = 3600
LEAST_SECONDS = 0.1


class DependencyKind(models.TextChoices):
    MODEL = "model", "Model"
    API = "api", "API"
    DATABASE = "database", "Database"
    MAIL = "mail", "Mail"


# What a dependency is given when it is first seen; a model may think for a minute and be asked a second time.
DEFAULTS: dict[str, dict[str, float]] = {
    DependencyKind.MODEL: {"connect_timeout_seconds": 5, "read_timeout_seconds": 60, "attempt_timeout_seconds": 130},
    DependencyKind.API: {"connect_timeout_seconds": 2, "read_timeout_seconds": 5, "attempt_timeout_seconds": 8},
    DependencyKind.DATABASE: {"connect_timeout_seconds": 5, "read_timeout_seconds": 5, "attempt_timeout_seconds": 12},
    DependencyKind.MAIL: {"connect_timeout_seconds": 5, "read_timeout_seconds": 30, "attempt_timeout_seconds": 60},
}


def _seconds(most: float, help_text: str, **options: Any) -> "models.FloatField[Any, Any]":
    validators = [MinValueValidator(LEAST_SECONDS), MaxValueValidator(most)]
    return models.FloatField(validators=validators, help_text=f"In seconds. {help_text}", **options)


def _count(most: int, help_text: str, **options: Any) -> "models.PositiveIntegerField[Any, Any]":
    return models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(most)], help_text=help_text, **options)


TIMEOUTS = ("connect_timeout_seconds", "read_timeout_seconds", "attempt_timeout_seconds")
LIMITS = ("limit_requests", "limit_period_seconds", "limit_tokens_per_minute", "concurrency")
BREAKER = ("breaker_failure_ratio", "breaker_minimum_calls", "breaker_window_seconds", "breaker_open_seconds")
RETRY = ("retry_attempts", "retry_first_wait_seconds", "retry_longest_wait_seconds", "retry_total_seconds")
CHANGEABLE = ("enabled", *TIMEOUTS, *LIMITS, *BREAKER, *RETRY)
TIMES = tuple(name for name in CHANGEABLE if name.endswith("_seconds"))
COUNTS = tuple(name for name in CHANGEABLE if name not in (*TIMES, "enabled", "breaker_failure_ratio"))


def _all_within(names: tuple[str, ...], least: float, most: float) -> Q:
    """What is empty is no limit, and passes."""
    return Q(*(Q((f"{name}__gte", least), (f"{name}__lte", most)) for name in names))


@pghistory.track(append_only=True)
class Dependency(models.Model):
    """Read by guard before each call (runs/reliability/terms.py). An empty limit means none."""

    name = models.SlugField(max_length=80, unique=True, editable=False)
    kind = models.CharField(max_length=12, choices=DependencyKind, default=DependencyKind.API, editable=False)
    enabled = models.BooleanField(
        default=True, help_text="While it is switched off nothing is called: runs that need it wait, and go on afterwards."
    )
    connect_timeout_seconds = _seconds(300, "How long to wait for a connection.", default=2)
    read_timeout_seconds = _seconds(HOUR_SECONDS, "How long to wait for the next part of an answer.", default=5)
    attempt_timeout_seconds = _seconds(HOUR_SECONDS, "How long one call may take in all; the last resort.", default=8)
    limit_requests = _count(10_000_000, "Most calls in any period of the length below. Empty: no limit.", null=True, blank=True)
    limit_period_seconds = _seconds(DAY_SECONDS, "The length of that period.", default=60)
    limit_tokens_per_minute = _count(
        1_000_000_000, "Most tokens of a model in any minute. Empty: no limit.", null=True, blank=True
    )
    concurrency = _count(100_000, "Most calls under way at once, of all job processes. Empty: no limit.", null=True, blank=True)
    breaker_failure_ratio = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.01), MaxValueValidator(1)],
        help_text="A share from 0.01 to 1: when so many of the calls failed, the breaker opens. 0.5 is every second one.",
    )
    breaker_minimum_calls = _count(100_000, "It never opens on fewer calls than these.", default=10)
    breaker_window_seconds = _seconds(HOUR_SECONDS, "How far back calls are counted.", default=30)
    breaker_open_seconds = _seconds(HOUR_SECONDS, "How long it stays open before one call tries again.", default=10)
    retry_attempts = _count(
        20, "Most attempts of a step that fails here. Empty: as its agent's configuration says.", null=True, blank=True
    )
    retry_first_wait_seconds = _seconds(HOUR_SECONDS, "The longest first wait before another attempt; it doubles.", default=2)
    retry_longest_wait_seconds = _seconds(DAY_SECONDS, "No wait is longer, unless the other side asks for it.", default=300)
    retry_total_seconds = _seconds(30 * DAY_SECONDS, "No attempt begins later than this after the first.", default=DAY_SECONDS)
    version = models.PositiveIntegerField(default=1, editable=False)
    changed_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    changed_at = models.DateTimeField(auto_now=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "dependencies"
        ordering = ["name"]
        constraints = [
            # a limit of zero would hold back every run for ever; a timeout of zero would fail every call
            models.CheckConstraint(name="dependency_limits_allow_something", condition=_all_within(COUNTS, 1, 1_000_000_000)),
            models.CheckConstraint(
                name="dependency_times_are_times", condition=_all_within(TIMES, LEAST_SECONDS, 30 * DAY_SECONDS)
            ),
            # a ratio of 3 would never open the breaker, one of 0 would never let it close
            models.CheckConstraint(
                name="dependency_ratio_is_a_share", condition=Q(breaker_failure_ratio__gte=0.01, breaker_failure_ratio__lte=1)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (version {self.version})"

    def clean(self) -> None:
        """Numbers that contradict one another; each that is out of its own range is told by its validator."""
        told: dict[str, str] = {}
        if _is_less(self.attempt_timeout_seconds, self.connect_timeout_seconds, self.read_timeout_seconds):
            told["attempt_timeout_seconds"] = "A call as a whole takes at least as long as connecting, and as reading."
        if _is_less(self.retry_longest_wait_seconds, self.retry_first_wait_seconds):
            told["retry_longest_wait_seconds"] = "The longest wait is at least as long as the first."
        if told:
            raise ValidationError(told)


def _is_less(number: float | None, *others: float | None) -> bool:
    """What is empty where a number must be is told elsewhere."""
    return number is not None and any(other is not None and number < other for other in others)


YOUNG_OR_BY_HAND = "OLD.by <> '' OR OLD.at > now() - interval '1 day'"


class BreakerChanges(models.QuerySet["BreakerChange"]):
    def held_open(self) -> list["BreakerChange"]:
        """What people opened and nobody has closed: the last that a person did to each breaker."""
        last = self.exclude(by="").order_by("dependency_id", "-at", "-pk").distinct("dependency_id").select_related("dependency")
        return [change for change in last if change.new == "open"]


class BreakerChange(models.Model):
    """The breaker of a dependency went from one state to another. `by` is a username, "" where calls brought it about."""

    dependency = models.ForeignKey(Dependency, on_delete=models.PROTECT, related_name="changes", db_index=False)
    old = models.CharField(max_length=12)
    new = models.CharField(max_length=12)
    why = models.CharField(max_length=300)
    by = models.CharField(max_length=150, blank=True, default="")
    at = models.DateTimeField(auto_now_add=True)
    objects = BreakerChanges.as_manager()

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [
            # the newest of one dependency, for its page
            models.Index(fields=["dependency", "-at", "-id"], name="breaker_changes"),
            # what people did, of which the sweeper asks every second
            models.Index(fields=["dependency", "-at", "-id"], name="breaker_by_hand", condition=~Q(by="")),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update),
            # what people did is kept for ever; what calls brought about goes some time (runs/dependencies.py)
            pgtrigger.Protect(name="kept", operation=pgtrigger.Delete, condition=pgtrigger.Condition(YOUNG_OR_BY_HAND)),
        ]

    def __str__(self) -> str:
        return f"{self.dependency_id}: {self.old} to {self.new}"
