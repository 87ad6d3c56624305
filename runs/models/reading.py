"""What the monitoring has read: small numbers over time, when it last looked, and logs that do not hold."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models.functions import Now

from runs.models.run import Run


class Reading(models.Model):
    """One measure of one agent or dependency ("" is all) in the minutes that begin at `at`, made from `count` things.

    Reading them anew from runs and steps of a month, for each rule each minute, would cost seconds; and what a queue was an
    hour ago stands nowhere else.
    """

    measure = models.CharField(max_length=40)
    subject = models.CharField(max_length=80, blank=True, default="")
    at = models.DateTimeField()
    value = models.FloatField()
    count = models.PositiveIntegerField(default=1)
    # of durations a histogram besides: percentiles of an hour cannot be made from those of its parts (runs/alerts/spread.py)
    bins = ArrayField(models.PositiveSmallIntegerField(), null=True)
    in_bins = ArrayField(models.PositiveIntegerField(), null=True)

    class Meta:
        constraints = [
            # a round that is made twice says the same twice; and the series of one rule is one range of it
            models.UniqueConstraint(fields=["measure", "subject", "at"], name="reading_once"),
        ]
        indexes = [BrinIndex(fields=["at"], name="reading_old")]  # what is deleted after some weeks

    def __str__(self) -> str:
        return f"{self.measure} {self.subject} {self.at:%Y-%m-%d %H:%M}: {self.value}"


class Round(models.Model):
    """One row: when the rules were last evaluated, and what time of runs is read. Whoever moves it makes the round."""

    begun_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, help_text="When the last round came to its end.")
    failed = models.JSONField(default=list, db_default=[], help_text="The parts of it that could not be carried out.")
    outcomes = models.JSONField(default=dict, db_default={}, help_text="What each rule came to when it was last judged.")
    read_until = models.DateTimeField(null=True, help_text="Runs that ended before are in the readings ...")
    read_since = models.DateTimeField(null=True, help_text="... back to here.")

    def __str__(self) -> str:
        return f"Round of {self.begun_at:%Y-%m-%d %H:%M:%S}"


class BrokenLog(models.Model):
    """A run whose log, or whose rows, were found not to be what was written; until they are found in order again."""

    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    wrong = models.TextField()
    found_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"Run {self.run_id}: {self.wrong}"
