"""What may be spent, by a run or by an agent in a day, and what calls under way have reserved of it."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


def _amount(**options: Any) -> "models.DecimalField[Any, Any]":
    return models.DecimalField(max_digits=24, decimal_places=8, **options)


class Budget(models.Model):
    """One unit of one scope ("run:42", "day:card-desk:2026-11-23"): counted also where there is no limit."""

    scope = models.CharField(max_length=120)
    unit = models.CharField(max_length=10)
    limit = _amount(null=True)
    used = _amount(db_default=0)
    reserved = _amount(db_default=0)
    # who asks a person about it, so that many who wait are one question
    asked_run = models.BigIntegerField(null=True)
    asked_step = models.PositiveIntegerField(null=True)
    asked_at = models.DateTimeField(null=True)
    # somebody decided that it is not raised
    closed_by = models.CharField(max_length=150, blank=True, db_default="")
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            # runs list by cost
            models.Index(fields=["used"], name="budget_run_cost", condition=Q(unit="money", scope__startswith="run:")),
        ]
        constraints = [
            # what one call reserves, and what a page shows, is one row
            models.UniqueConstraint(fields=["scope", "unit"], name="budget_once"),
            # a limit of zero would ask a person about every call
            models.CheckConstraint(name="budget_allows_something", condition=Q(limit__isnull=True) | Q(limit__gt=0)),
            # a reservation that is given back twice would let others overshoot
            models.CheckConstraint(name="budget_not_negative", condition=Q(used__gte=0, reserved__gte=0)),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.unit}"


class Reservation(models.Model):
    """What one call under way has reserved. Dead when its run's lease is another's, or nobody's."""

    run_id = models.BigIntegerField()
    fence = models.PositiveIntegerField()
    scopes = ArrayField(models.CharField(max_length=120))
    units = ArrayField(models.CharField(max_length=10))
    amounts = ArrayField(_amount())
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["run_id"], name="reservation_of_run")]  # the sweeper's look at each run that has one

    def __str__(self) -> str:
        return f"Run {self.run_id}: {', '.join(map(str, self.amounts))}"
