"""When steps of an agent need a person: one row for a worker, or for all those that have none; every version is kept."""

from typing import Any

import pghistory
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from runs.engine.policy import Policy as Terms
from runs.engine.policy import Subject

MOST_SECONDS = 366 * 86_400  # as the author of an agent may declare


class PolicyQuerySet(models.QuerySet["Policy"]):
    """Named questions about policies."""

    def in_force(self, agent: str) -> list[dict[str, Any]]:
        """As a run keeps them from its start to its end."""
        return [row.terms() for row in self.filter(agent=agent, enabled=True).order_by("worker")]


@pghistory.track(append_only=True)
class Policy(models.Model):
    """A run keeps the policies with which it started. The row of a worker wins, whole, over that of its agent."""

    class When(models.TextChoices):
        THRESHOLD = "threshold", "its confidence is under a threshold"
        CONDITION = "condition", "a condition holds, or its confidence is under a threshold"
        ALWAYS = "always", "always"
        NEVER = "never", "never (what the code gates, and what fails, comes all the same)"

    class About(models.TextChoices):
        INPUT = Subject.INPUT.value, "its input, before it is executed"
        OUTPUT = Subject.OUTPUT.value, "its result, before the run goes on with it"

    class Operator(models.TextChoices):
        MORE = ">", "is more than"
        AT_LEAST = ">=", "is at least"
        LESS = "<", "is less than"
        AT_MOST = "<=", "is at most"
        EQUAL = "=", "is"
        UNEQUAL = "!=", "is not"
        CONTAINS = "contains", "contains"
        EMPTY = "is empty", "is empty"

    class Risk(models.TextChoices):
        BY_STEP = "", "by the step: high where it may happen only once or the code says so, else normal"
        LOW = "low", "low"
        NORMAL = "normal", "normal"
        HIGH = "high", "high"

    class Default(models.TextChoices):
        EXPIRE = "expire", "it expires: the supervisor hears that nobody decided"
        SKIP = "skip", "it is skipped, as its worker's fallback says"
        APPROVE = "approve", "it is approved (only what changes nothing outside)"

    agent = models.SlugField(max_length=80)
    worker = models.CharField(max_length=120, blank=True, default="", help_text="Empty: all that have no policy of their own.")
    enabled = models.BooleanField(default=True, help_text="One that is disabled counts as if it were not there.")
    when = models.CharField("Ask a person when", max_length=10, choices=When, default=When.THRESHOLD)
    threshold = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="A confidence under this number, from 0 to 1, needs a person. Empty: the agent's threshold.",
    )  # fmt: skip
    subject = models.CharField("A person sees", max_length=10, choices=About, default=About.OUTPUT)
    path = models.CharField(
        "Field", max_length=200, blank=True, default="",
        help_text="Where the value stands: names and places in lists, with dots, as in items.0.amount. Empty: the whole of it.",
    )  # fmt: skip
    operator = models.CharField(max_length=10, choices=Operator, blank=True, default="")
    value = models.JSONField("Value", null=True, blank=True, help_text="With what the field is compared.")
    sample_share = models.FloatField(
        default=0.0, validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="Share, from 0 to 1, of the steps that pass and are shown to a person afterwards. 0.05: one in twenty.",
    )  # fmt: skip
    risk = models.CharField(
        max_length=10, choices=Risk, blank=True, default="",
        help_text="What is riskier comes first. What the code says is of high risk stays so.",
    )  # fmt: skip
    approvals = models.PositiveSmallIntegerField(
        default=1, choices=[(1, "one person"), (2, "two different people (four eyes)")], help_text="How many must approve."
    )
    within_seconds = models.PositiveIntegerField(
        "Time to decide", null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(MOST_SECONDS)],
        help_text="Seconds, from the moment a person is asked. Empty: as long as it takes.",
    )  # fmt: skip
    default = models.CharField(
        "When nobody has decided by then", max_length=10, choices=Default, default=Default.EXPIRE,
        help_text="Nothing irreversible, and nothing of high risk, is approved by the clock.",
    )  # fmt: skip
    version = models.PositiveIntegerField(default=1, editable=False)
    changed_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    changed_at = models.DateTimeField(auto_now=True)

    objects = PolicyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "policies"
        ordering = ["agent", "worker"]
        constraints = [
            # which of two would count?
            models.UniqueConstraint(
                fields=["agent", "worker"],
                condition=Q(enabled=True),
                name="policy_once",
                violation_error_message="This worker has a policy already: change or disable that one.",
            ),
            models.CheckConstraint(name="policy_threshold_is_a_share", condition=Q(threshold__gte=0, threshold__lte=1)),
            models.CheckConstraint(name="policy_sample_is_a_share", condition=Q(sample_share__gte=0, sample_share__lte=1)),
            models.CheckConstraint(name="policy_approvals_known", condition=Q(approvals__in=[1, 2])),
            # a condition without an operator could be neither true nor false
            models.CheckConstraint(name="policy_condition_whole", condition=~Q(when="condition") | ~Q(operator="")),
            # the clock approves nothing risky
            models.CheckConstraint(name="policy_clock_is_careful", condition=~Q(default="approve", risk="high")),
        ]

    def __str__(self) -> str:
        return f"Policy {self.pk} of {self.worker or self.agent} (version {self.version})"

    def terms(self) -> dict[str, Any]:
        """As the engine reads it."""
        names = (name for name in Terms.__dataclass_fields__ if name != "id")
        return {"id": self.pk or 0} | {name: getattr(self, name) for name in names}
