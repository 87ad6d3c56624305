"""What one person does to many runs together, and what came of each; and what is the same wherever many are acted on."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.cache import cache
from django.db import models
from django.db.models import Count, Exists, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now
from django.urls import reverse
from django.utils import timezone

from runs.models.content import ContentText

SILENT_AFTER = timedelta(seconds=15)  # a process that carries it out says something of each item
GIVEN_UP_AFTER = timedelta(days=1)  # of one begun longer ago only its page offers to go on


class BulkQuerySet(models.QuerySet[Any]):
    """Named questions about what is done to many."""

    def under_way(self) -> Self:
        """Begun not long ago, with something left."""
        item = self.model._meta.get_field("items").related_model
        left = item.objects.filter(bulk=OuterRef("pk"), outcome="")
        return self.filter(Exists(left), **{f"{self.model.SINCE}__gt": Now() - GIVEN_UP_AFTER})

    def left_lying(self) -> Iterator[Any]:
        """Each that is under way and silent, because whoever carried it out has ended; it is named once in SILENT_AFTER."""
        for one in self.under_way():
            if one.is_silent and cache.add(f"agentops:bulk:{one.pk}", 1, timeout=SILENT_AFTER.total_seconds()):
                yield one


class Bulk(models.Model):
    """One act on many, its items. Its id is that of the preview which the person saw: sent twice, it is the same."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    previewed_at = models.DateTimeField()
    begun_at = models.DateTimeField()

    SINCE: ClassVar[str] = "begun_at"  # since when somebody should be carrying it out
    items: Any  # each with `outcome` ("": nobody has come to it yet), `said` and `at`

    class Meta:
        abstract = True

    @property
    def left(self) -> int:
        """How many nobody has come to yet."""
        return int(self.items.filter(outcome="").count())

    @property
    def is_silent(self) -> bool:
        """Nothing has been heard for so long that whoever carried it out must have ended."""
        since = getattr(self, self.SINCE)
        latest = self.items.aggregate(at=Max("at"))["at"] or since
        return bool(max(latest, since) < timezone.now() - SILENT_AFTER)

    @property
    def is_given_up(self) -> bool:
        """Nobody takes it up by themselves any more."""
        return bool(getattr(self, self.SINCE) < timezone.now() - GIVEN_UP_AFTER)


class BulkActionQuerySet(BulkQuerySet):
    def under_way(self) -> Self:
        return super().under_way().filter(stopped_at=None)

    def counted(self) -> Self:
        """Each with its actor, how many `runs` it has, and how many are `done`, whatever came of them."""
        own = BulkActionItem.objects.filter(bulk=OuterRef("pk")).order_by().values("bulk")
        done = Coalesce(Subquery(own.exclude(outcome="").values_list(Count("pk"))), 0)
        return self.select_related("actor").annotate(runs=Subquery(own.values_list(Count("pk"))), done=done)


class BulkAction(Bulk):
    """Runs that one person cancels or retries together: those that the preview showed and no other."""

    class Kind(models.TextChoices):
        CANCEL = "cancel", "Cancel"
        RETRY = "retry", "Retry"

    kind = models.CharField(max_length=10, choices=Kind)
    reason = ContentText(blank=True, default="")
    query = models.TextField(blank=True, default="", help_text="The filter they were found by, as an address carries it.")
    asked_at = models.DateTimeField(default=timezone.now, help_text="When it was begun, or last gone on with.")
    stopped_at = models.DateTimeField(null=True)
    stopped_by = models.CharField(max_length=150, blank=True, default="")

    SINCE: ClassVar[str] = "asked_at"
    objects = BulkActionQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["-begun_at", "-id"], name="bulk_action_newest")]  # the page of all, and what is under way

    def __str__(self) -> str:
        return f"{self.get_kind_display()} together by {self.actor}"

    def get_absolute_url(self) -> str:
        return reverse("bulk_action", args=[self.pk])

    @property
    def is_silent(self) -> bool:
        return self.stopped_at is None and super().is_silent


class BulkActionItem(models.Model):
    """One of its runs, with what came of it. No foreign key: when retention removes the run, what was done to it still stands."""

    class Outcome(models.TextChoices):
        DONE = "done", "Done"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"

    bulk = models.ForeignKey(BulkAction, on_delete=models.CASCADE, related_name="items", db_index=False)
    run = models.BigIntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True, default="")
    said = ContentText(blank=True, default="", help_text="Why it was not done.")
    at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["bulk", "run"], name="bulk_action_item_once")]
        indexes = [
            # what is left of one
            models.Index(fields=["bulk", "id"], condition=Q(outcome=""), name="bulk_action_item_left"),
        ]

    def __str__(self) -> str:
        return f"Run {self.run}: {self.get_outcome_display() or 'waits'}"
