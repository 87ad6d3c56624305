"""Filters of the list of runs that somebody kept under a name."""

from typing import Any, Self

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import models
from django.db.models import Q
from django.urls import reverse


class SavedViewQuerySet(models.QuerySet[Any]):
    """Named questions about saved views, of either list."""

    def for_viewer(self, viewer: User) -> Self:
        """Their own, and those that were shared with a group they are in."""
        shared = Group.objects.filter(user=viewer).values("pk")
        return self.filter(Q(owner=viewer) | Q(group__in=shared)).select_related("owner", "group").order_by("name", "pk")


class RunView(models.Model):
    """A filter of the list under a name; its group's members see it too, and only its owner changes it."""

    name = models.CharField(max_length=60)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="run_views")
    group = models.ForeignKey(Group, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    query = models.TextField(help_text="The filter, as the address of the list carries it.")

    objects = SavedViewQuerySet.as_manager()

    class Meta:
        constraints = [
            # a name must say which one is meant
            models.UniqueConstraint(fields=["owner", "name"], name="run_view_name_once"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"{reverse('runs')}?{self.query}"
