"""What an admin wants of an agent: one row per agent, every version of it kept."""

from decimal import Decimal
from typing import Any

import pghistory
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from runs.engine.budget import DAILY, MONEY_PLACES, MOST, UNITS, plain

RUN_LIMITS = tuple(f"run_{unit}" for unit in UNITS)
REVIEW_CAPS = ("reviews_per_run", "reviews_per_agent")
DAY_LIMITS = tuple(f"day_{unit}" for unit in DAILY)
LIMITS = (*RUN_LIMITS, *DAY_LIMITS, *REVIEW_CAPS)
CHANGEABLE = ("enabled", "threshold", "attempts", "values", *REVIEW_CAPS, *RUN_LIMITS, *DAY_LIMITS)
LEAST_MONEY = Decimal("0.01")
ABOVE_ZERO = "A limit must allow something: %(limit_value)s is the least. Leave it empty for no limit."


def _money(help_text: str) -> "models.DecimalField[Any, Any]":
    validators = [MinValueValidator(LEAST_MONEY, message=ABOVE_ZERO), MaxValueValidator(MOST)]
    return models.DecimalField(
        max_digits=20, decimal_places=MONEY_PLACES, null=True, blank=True, validators=validators, help_text=help_text
    )


def _limit(help_text: str, **options: Any) -> "models.BigIntegerField[Any, Any]":
    validators = [MinValueValidator(1, message=ABOVE_ZERO), MaxValueValidator(int(MOST))]
    return models.BigIntegerField(null=True, blank=True, validators=validators, help_text=help_text, **options)


@pghistory.track(append_only=True)
class AgentConfig(models.Model):
    """A run remembers the version it started with and keeps its values to the end."""

    slug = models.SlugField(max_length=80, unique=True, editable=False)
    version = models.PositiveIntegerField(default=1, editable=False)
    enabled = models.BooleanField(default=True, help_text="A disabled agent starts no new runs; its open runs go on.")
    threshold = models.FloatField(
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="A step whose confidence is under this number, from 0 to 1, goes to a reviewer.",
    )
    attempts = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="How often a step is tried before its fallback is taken or a reviewer is asked.",
    )
    run_money = _money("What one run may spend on models, in the currency of the installation. Empty: no limit.")
    run_tokens = _limit("Most tokens of models for one run. Empty: no limit.")
    run_calls = _limit("Most calls of models for one run. Empty: no limit.")
    run_seconds = _limit(
        "Seconds that one run may take, with the runs it starts, looked at before each of its own steps; "
        "waits for people do not count. Empty: no limit."
    )
    run_steps = _limit("Most steps of one run. Empty: no limit.", default=1000)
    run_repeats = _limit("A step that was executed so often with the same input looks like a loop. Empty: no limit.", default=20)
    day_money = _money("What all runs of this agent together may spend on models in a day (UTC). Empty: no limit.")
    day_tokens = _limit("Most tokens of models for all its runs in a day. Empty: no limit.")
    day_calls = _limit("Most calls of models for all its runs in a day. Empty: no limit.")
    day_seconds = _limit(
        "Seconds for which all its runs together may work in a day, counted from when this is set; waits do not count. "
        "Empty: no limit."
    )
    reviews_per_run = _limit(
        "Most open reviews of one run with the runs that it starts. Beyond, its steps wait; what is of high risk waits for "
        "its like alone. Empty: no limit.",
        default=20,
    )
    reviews_per_agent = _limit(
        "So many open reviews pause the agent: its new runs wait until there are fewer. Empty: no limit.", default=200
    )
    values = models.JSONField(default=dict, blank=True, help_text="The agent's own settings, as its declaration names them.")
    changed_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "agent configuration"
        ordering = ["slug"]
        constraints = [
            # a threshold of 90 instead of 0.90 would send every step to a person
            models.CheckConstraint(name="threshold_is_a_share", condition=Q(threshold__gte=0, threshold__lte=1)),
            models.CheckConstraint(name="at_least_one_attempt", condition=Q(attempts__gte=1)),
            # a limit of zero would ask a person about each call; an empty one passes
            models.CheckConstraint(
                name="limits_allow_something",
                condition=Q(*((f"{name}__gt", 0) for name in LIMITS)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slug} (version {self.version})"

    @property
    def run_limits(self) -> dict[str, str]:
        """Unit -> limit of one run, as text, of those that have one."""
        found = {unit: getattr(self, f"run_{unit}") for unit in UNITS}
        return {unit: plain(Decimal(limit)) for unit, limit in found.items() if limit is not None}
