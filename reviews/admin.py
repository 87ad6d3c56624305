"""Reviews and decisions in the admin site: to look at, never to change."""

from django.contrib import admin
from django.http import HttpRequest

from reviews.models import Decision, Review


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """What people decided is history."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Review)
class ReviewAdmin(ReadOnly):
    list_display = ("id", "title", "cause", "state", "run", "confidence", "opened_at", "closed_at")
    list_filter = ("state", "cause", "run__agent")
    list_select_related = ("run",)
    search_fields = ("title", "run__input_text")
    date_hierarchy = "opened_at"


@admin.register(Decision)
class DecisionAdmin(ReadOnly):
    list_display = ("review", "kind", "actor", "decided_at", "reason")
    list_filter = ("kind", "actor")
    list_select_related = ("review", "actor")
    date_hierarchy = "decided_at"
