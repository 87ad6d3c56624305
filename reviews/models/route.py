"""Which group is asked about which reviews."""

import pghistory
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q

from reviews.models.review import Cause


@pghistory.track(append_only=True)
class Route(models.Model):
    """One line of "who is asked": an empty agent or cause stands for any, and the more precise line wins."""

    agent = models.SlugField(max_length=80, blank=True, default="", help_text="Empty: every agent.")
    cause = models.CharField(max_length=20, choices=Cause, blank=True, default="", help_text="Empty: every cause.")
    group = models.ForeignKey(
        Group, on_delete=models.PROTECT, related_name="+", help_text="Who is asked first. They still need the role of a reviewer."
    )
    second_group = models.ForeignKey(
        Group,
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        help_text="Who is asked too when half of the time has passed and nobody has decided.",
    )

    class Meta:
        ordering = ["agent", "cause"]
        constraints = [
            # two lines for the same reviews would leave it to chance who is asked
            models.UniqueConstraint(
                fields=["agent", "cause"], name="route_once", violation_error_message="There is a route for these already."
            ),
            models.CheckConstraint(
                condition=Q(second_group=None) | ~Q(second_group=models.F("group")),
                name="route_two_groups",
                violation_error_message="The second group is the first: choose another, or leave it empty.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent or 'every agent'}, {self.get_cause_display() or 'every cause'}: {self.group}"
