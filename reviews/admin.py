"""Reviews and decisions in the admin site, to look at and never to change; routes and channels, to be set up."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from reviews import groups
from reviews.models import Channel, Decision, Review, Route
from runs.integrations import notices as outside


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


class OfGroups(admin.ModelAdmin):  # type: ignore[type-arg]
    """Where a group is chosen, the roles are left out: they say who may decide, not who is asked."""

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in ("group", "second_group", "groups"):
            kwargs["queryset"] = groups.of_reviewers()
        return super().formfield_for_dbfield(db_field, request, **kwargs)


@admin.register(Route)
class RouteAdmin(OfGroups):
    list_display = ("__str__", "agent", "cause", "group", "second_group")
    list_select_related = ("group", "second_group")


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """The address is a secret: it can be replaced, and is never shown."""

    url = forms.CharField(
        label="Address",
        required=False,
        widget=forms.PasswordInput(attrs={"size": 80, "autocomplete": "off"}),
        help_text=f"Such as {outside.EXAMPLES}. It is kept and not shown again; leave it empty to keep the present one.",
    )

    class Meta:
        model = Channel
        fields = ("name", "enabled", "url", "groups", "digest_minutes", "hourly_cap", "quiet_from", "quiet_until", "zone")

    def clean_url(self) -> str:
        url = self.cleaned_data["url"].strip() or str(self.instance.url)
        if not url:
            raise ValidationError(f"Give the address of the channel, such as {outside.EXAMPLES}.")
        try:
            outside.validate(url)
        except outside.NoSuchChannel as error:
            raise ValidationError(str(error)) from error
        return url


@admin.register(Channel)
class ChannelAdmin(OfGroups):
    form = ChannelForm
    list_display = ("name", "address", "enabled", "last_sent_at", "last_error")
    readonly_fields = ("address", "last_sent_at", "last_error", "retry_at", "gave_up_at")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "address", "url", "groups")}),
        ("How often", {"fields": ("digest_minutes", "hourly_cap", "quiet_from", "quiet_until", "zone")}),
        ("How it went", {"fields": ("last_sent_at", "last_error", "retry_at", "gave_up_at")}),
    )

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        obj.begin_anew()
        super().save_model(request, obj, form, change)

    @admin.display(description="present address")
    def address(self, channel: Channel) -> str:
        return outside.masked(channel.url) if channel.url else "none yet"
