"""Configuration of agents with its history, and runs and steps to look at; nothing else of a run can be changed here."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from pghistory.models import Events
from pydantic import ValidationError as Misfit

from runs import access, commands, sdk
from runs.models import AgentConfig, Run, Step

HISTORY_SHOWN = 20
CHANGEABLE = ("enabled", "threshold", "attempts", "values")


class AgentConfigForm(forms.ModelForm):  # type: ignore[type-arg]
    """Checks `values` with the agent's own model, so that no run meets settings it cannot read."""

    class Meta:
        model = AgentConfig
        fields = CHANGEABLE

    def clean_values(self) -> dict[str, Any]:
        agent = sdk.AGENTS.get(self.instance.slug)
        if agent is None:
            raise ValidationError("This agent is not installed here, so its settings cannot be checked.")
        try:
            checked: dict[str, Any] = sdk.dump_model(agent.config_model.model_validate(self.cleaned_data["values"]))
        except Misfit as misfit:
            raise ValidationError([f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in misfit.errors()]) from misfit
        return checked


@admin.register(AgentConfig)
class AgentConfigAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = AgentConfigForm
    list_display = ("slug", "enabled", "threshold", "attempts", "version", "changed_by", "changed_at")
    readonly_fields = ("slug", "version", "changed_by", "changed_at", "history")
    fieldsets = (
        (None, {"fields": ("slug", *CHANGEABLE)}),
        ("Versions", {"fields": ("version", "changed_by", "changed_at", "history")}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A configuration is made from the agent's declaration, on first sight."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AgentConfig | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: AgentConfig, form: Any, change: bool) -> None:
        """Through the command, which raises the version."""
        changes = {name: form.cleaned_data[name] for name in CHANGEABLE}
        saved = commands.configure(obj.slug, by=request.user.get_username(), **changes)
        obj.version = saved.version

    @admin.display(description="History")
    def history(self, config: AgentConfig) -> SafeString:
        """Every version that was in force, the newest first, with what changed and who did it."""
        tracked = Events.objects.tracks(config)  # type: ignore[no-untyped-call]
        found = tracked.order_by("-pgh_created_at", "-pgh_id")[:HISTORY_SHOWN]
        return render_to_string("admin/_config_history.html", {"events": found})


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Runs and steps are what their events say: to be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may_look(request.user)


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = ("id", "agent", "status", "started_by", "created_at", "input_text")
    list_filter = ("status", "agent")
    search_fields = ("input_text",)
    show_full_result_count = False


@admin.register(Step)
class StepAdmin(ReadOnly):
    list_display = ("id", "run", "position", "name", "worker", "status", "confidence", "attempt")
    list_filter = ("status", "worker")
    list_select_related = ("run",)
    show_full_result_count = False
