"""Filters that somebody kept under a name."""

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.urls import reverse

from runs.models import SavedViewQuerySet


class SavedView(models.Model):
    """A filter of the inbox under a name; its group's members see it too, and only its owner changes it."""

    name = models.CharField(max_length=60)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views")
    group = models.ForeignKey(Group, on_delete=models.SET_NULL, null=True, blank=True)
    query = models.TextField(help_text="The filter, as the address of the inbox carries it.")

    objects = SavedViewQuerySet.as_manager()

    class Meta:
        constraints = [
            # a name must say which one is meant
            models.UniqueConstraint(fields=["owner", "name"], name="saved_view_name_once"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"{reverse('inbox')}?{self.query}"
