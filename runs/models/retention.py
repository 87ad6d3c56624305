"""How long runs are kept: which are held, who had old ones removed, and the tombstone that is left of each."""

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from runs.models.content import ContentChar
from runs.models.run import ENDED, Run

# Only what a tombstone stands for may be deleted of events, payloads and the histories of reviews.
REMOVED = "EXISTS (SELECT FROM runs_tombstone AS stone WHERE stone.run_id = {run})"
ALLOW = "IF {condition} THEN RETURN OLD; END IF; RAISE EXCEPTION 'pgtrigger: Cannot delete rows from % table', TG_TABLE_NAME;"


def kept_until_removed(run: str = "OLD.run_id") -> pgtrigger.Trigger:
    """Refuse to delete a row but of a run that was removed by retention, and has its tombstone; `run` is SQL for its id."""
    return kept_until(REMOVED.format(run=run), name="kept_until_removed")


def kept_until(condition: str, *, name: str) -> pgtrigger.Trigger:
    """Refuse to delete a row unless this SQL, which may ask other tables, says that it may go."""
    func = ALLOW.format(condition=condition)
    return pgtrigger.Trigger(name=name, when=pgtrigger.Before, operation=pgtrigger.Delete, func=func)


def never_emptied() -> pgtrigger.Trigger:
    """Refuse TRUNCATE, which asks no trigger of rows."""
    refuse = "RAISE EXCEPTION '% is history: TRUNCATE is refused', TG_TABLE_NAME;"
    return pgtrigger.Trigger(
        name="no_truncate", level=pgtrigger.Statement, when=pgtrigger.Before, operation=pgtrigger.Truncate, func=refuse
    )


class Hold(models.Model):
    """Somebody wants a run kept, however old it is; released, it stays as a record."""

    # a released hold outlives its run
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, related_name="holds", db_constraint=False, db_index=False)
    by = models.CharField(max_length=150)
    reason = ContentChar(max_length=300)
    at = models.DateTimeField(db_default=Now())
    released_by = models.CharField(max_length=150, blank=True, default="")
    released_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # a run is held once at a time; and whether it is, is asked of each that is old
            models.UniqueConstraint(fields=["run"], condition=Q(released_at=None), name="hold_once"),
        ]
        triggers = [
            pgtrigger.Protect(name="kept", operation=pgtrigger.Delete),
            pgtrigger.Protect(
                name="released_once", operation=pgtrigger.Update, condition=pgtrigger.Q(old__released_at__isnull=False)
            ),
            pgtrigger.ReadOnly(name="as_said", fields=["run", "by", "reason", "at"]),
            never_emptied(),
        ]

    def __str__(self) -> str:
        return f"Run {self.run_id} is held by {self.by}"


class Pruning(models.Model):
    """One going over of old runs: who had it done, and what was removed so far. Its tombstones are a chain."""

    by = models.CharField(max_length=150)
    ended_before = models.DateTimeField()
    archive = models.TextField(default="", help_text="The directory into which runs were written first.")
    night = models.DateField(null=True, unique=True, help_text="Of those that the sweeper makes: one a night.")
    begun_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="When it was last at work.")
    ended_at = models.DateTimeField(null=True)
    runs = models.IntegerField(default=0)
    events = models.BigIntegerField(default=0)
    head_hash = models.CharField(max_length=64, default="", help_text="Of its last tombstone.")
    wrong = models.TextField(default="", db_default="", help_text="What was found to be wrong with its tombstones.")

    def __str__(self) -> str:
        return f"Pruning {self.pk} by {self.by}"


# What a tombstone says must be so at that moment, and nobody may hold the run.
TRUE = f"""
IF NOT EXISTS (SELECT FROM runs_run AS run WHERE run.id = NEW.run_id AND run.last_seq = NEW.last_seq
    AND run.head_hash = NEW.head_hash AND run.status IN ({", ".join(f"'{status}'" for status in ENDED)}))
  OR EXISTS (SELECT FROM runs_hold AS hold WHERE hold.run_id = NEW.run_id AND hold.released_at IS NULL)
THEN RAISE EXCEPTION 'run % is open, held, or not what its tombstone says', NEW.run_id; END IF;
RETURN NEW;"""  # noqa: S608 - made of constants


class Tombstone(models.Model):
    """What is left of a run that retention removed: how long its log was, with which hash it ended, when it went, and by whom."""

    run_id = models.BigIntegerField(primary_key=True)
    pruning = models.ForeignKey(Pruning, on_delete=models.PROTECT, related_name="tombstones", db_index=False)
    place = models.IntegerField()
    last_seq = models.IntegerField()
    head_hash = models.CharField(max_length=64)
    by = models.CharField(max_length=150)
    at = models.DateTimeField()
    archive = models.CharField(max_length=100, blank=True, default="", help_text="The file within the directory.")
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["pruning_id", "place"]
        constraints = [
            # a chain has one tombstone in each place
            models.UniqueConstraint(fields=["pruning", "place"], name="tombstone_place_once"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            pgtrigger.Trigger(name="is_true", when=pgtrigger.Before, operation=pgtrigger.Insert, func=TRUE),
            never_emptied(),
        ]

    def __str__(self) -> str:
        return f"Run {self.run_id} was removed on {self.at:%Y-%m-%d} by {self.by}"


def removed(run_id: int) -> Tombstone | None:
    """What is left of it where retention removed it."""
    return Tombstone.objects.filter(run_id=run_id).first()
