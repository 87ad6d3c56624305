"""The door of the admin, and people in it: an admin makes groups, puts people into them, and may not make anybody a superuser."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from runs.access import GROUPS

admin.site.site_header = "agentops admin"
admin.site.site_title = "agentops admin"
admin.site.index_title = "Agents, people and queues"
admin.site.site_url = "/"
admin.site.unregister(User)
admin.site.unregister(Group)


def sign_in(request: HttpRequest) -> HttpResponse:
    """Where Django's admin sends all it does not let in; to sign in again would not help those who have."""
    index = reverse("admin:index")
    if admin.site.has_permission(request):
        return redirect(index)
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next") or index)


@admin.register(User)
class PersonAdmin(UserAdmin):  # type: ignore[type-arg]
    """What only a superuser may give away stays out of sight for everybody else."""

    list_display = ("username", "first_name", "last_name", "is_active", "is_staff", "last_login")
    FOR_SUPERUSERS = frozenset({"is_superuser", "user_permissions"})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if request.user.is_superuser or obj is None:
            return fieldsets
        return [
            (name, options | {"fields": tuple(field for field in options["fields"] if field not in self.FOR_SUPERUSERS)})
            for name, options in fieldsets
        ]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change a superuser's password is one."""
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)


@admin.register(Group)
class ReviewersAdmin(GroupAdmin):
    """Groups say who is asked about which reviews. The four roles, and what a group may do, are for superusers."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_fields(request, obj) if request.user.is_superuser else ("name",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.name in GROUPS and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)
