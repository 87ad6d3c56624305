"""Reviews and decisions in the admin site, to look at and never to change; routes and channels, to be set up."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest

from reviews import groups
from reviews.listing import agent_title
from reviews.models import Channel, Decision, Review, Route
from runs import sdk
from runs.forms import AddressForm
from runs.integrations import notices as outside
from runs.models import AgentConfig
from runs.payloads import LookOnly


@admin.register(Review)
class ReviewAdmin(LookOnly):
    list_display = ("id", "title", "cause", "state", "run", "confidence", "opened_at", "closed_at")
    list_filter = ("state", "cause", "run__agent")
    list_select_related = ("run",)
    search_fields = ("title", "run__input_text")
    date_hierarchy = "opened_at"


@admin.register(Decision)
class DecisionAdmin(LookOnly):
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


class GroupChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    """Says of a group, where it is chosen, that nobody in it may decide."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.empty = set(groups.without_deciders().values_list("pk", flat=True))

    def label_from_instance(self, group: Any) -> str:
        return f"{group}: {NOBODY}" if group.pk in self.empty else str(group)


NOBODY = "nobody in it may decide"
NOBODY_ASKED = "Nobody in the group {} may decide, so its reviews wait until an admin decides them. Add reviewers to it."


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]
    """Of agents those that are known; one that is gone stays a choice of the route that names it."""

    agent = forms.ChoiceField(required=False)

    class Meta:
        model = Route
        fields = ("agent", "cause", "group", "second_group")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        slugs = {*sdk.AGENTS, *AgentConfig.objects.values_list("slug", flat=True), self.instance.agent} - {""}
        known = sorted(((slug, agent_title(slug)) for slug in slugs), key=lambda one: one[1].casefold())
        field = self.fields["agent"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - declared above
        field.choices = [("", "Every agent"), *known]


@admin.register(Route)
class RouteAdmin(OfGroups):
    form = RouteForm
    list_display = ("__str__", "agent", "cause", "first_asked", "asked_too")
    list_select_related = ("group", "second_group")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_foreignkey(db_field, request, **kwargs | {"form_class": GroupChoice})

    def save_model(self, request: HttpRequest, obj: Route, form: Any, change: Any) -> None:
        super().save_model(request, obj, form, change)
        for group in groups.without_deciders().filter(pk__in=[obj.group_id, obj.second_group_id]):
            messages.warning(request, NOBODY_ASKED.format(group))

    def get_queryset(self, request: HttpRequest) -> Any:
        empty = groups.without_deciders().values("pk")
        return super().get_queryset(request).annotate(first_empty=Q(group__in=empty), second_empty=Q(second_group__in=empty))

    @admin.display(description="group", ordering="group__name")
    def first_asked(self, route: Any) -> str:
        return f"{route.group}: {NOBODY}" if route.first_empty else str(route.group)

    @admin.display(description="second group", ordering="second_group__name")
    def asked_too(self, route: Any) -> str:
        return f"{route.second_group}: {NOBODY}" if route.second_empty else str(route.second_group or "-")


class ChannelForm(AddressForm):
    class Meta:
        model = Channel
        fields = ("name", "enabled", "url", "groups", "digest_minutes", "hourly_cap", "quiet_from", "quiet_until", "zone")


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
