"""Somebody who may not see payloads had those of one run revealed: an exception that is kept, with its reason."""

from datetime import timedelta
from typing import Self

import pgtrigger
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models.functions import Now

from runs.models.content import ContentChar
from runs.models.retention import never_emptied
from runs.models.run import Run

GOOD_FOR = timedelta(minutes=30)


class RevealQuerySet(models.QuerySet["Reveal"]):
    def in_force(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """Those of this person, by the database's clock."""
        return self.filter(by=user.get_username(), person=user.pk, at__gt=Now() - GOOD_FOR)


class Reveal(models.Model):
    """It ends by itself. It outlives its run, as the name of who did it outlives the account."""

    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, related_name="reveals", db_constraint=False)
    by = models.CharField(max_length=150)
    person = models.IntegerField(null=True, help_text="The account: another may come to have that name.")
    reason = ContentChar(max_length=300)
    at = models.DateTimeField(db_default=Now())

    objects = RevealQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["by", "-at"], name="reveal_by")]  # what somebody may see now
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            never_emptied(),
        ]

    def __str__(self) -> str:
        return f"Run {self.run_id} was revealed to {self.by}"
