"""What an admin wants of an agent: one row per agent, every version of it kept."""

import pghistory
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q


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
        ]

    def __str__(self) -> str:
        return f"{self.slug} (version {self.version})"
