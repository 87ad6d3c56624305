"""What admins want of agents, policies and dependencies, with its history; runs and steps to look at, not to change."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, validate_email
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from pydantic import ValidationError as Misfit

from runs import access, commands, dependencies, operations, payloads, policies, previews, sdk
from runs.alerts import delivery
from runs.engine.canonical import Unstorable, stored
from runs.forms.address import AddressForm
from runs.forms.complaints import plain
from runs.integrations import notices as outside
from runs.models import AgentConfig, AlertChannel, Budget, Dependency, Policy, Reveal, Run, Step, dependency, versions
from runs.models.config import CHANGEABLE, DAY_LIMITS, REVIEW_CAPS, RUN_LIMITS
from runs.models.content import are_hidden

HISTORY_SHOWN = 20
POLICY_FIELDS = (
    "agent", "worker", "enabled", "when", "threshold", "subject", "path", "operator", "value", "risk", "approvals",
    "within_seconds", "default", "sample_share",
)  # fmt: skip


class SettingsField(forms.JSONField):
    """JSON that can be kept; what was typed is shown again as it was typed."""

    def __init__(self, **options: Any) -> None:
        """What changed is told by the row, not by what the page says was there when it was opened."""
        super().__init__(**options | {"show_hidden_initial": False})

    def to_python(self, value: Any) -> Any:
        try:
            return stored(json.loads(value or "{}"))
        except json.JSONDecodeError as error:
            raise ValidationError(f"This is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
        except Unstorable as error:
            raise ValidationError(str(error)) from error
        except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits, a thousand brackets
            raise ValidationError("A number is too long here, or the brackets are nested too deeply.") from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        return InvalidJSONInput(data or "")

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, InvalidJSONInput) else json.dumps(value, ensure_ascii=False, indent=2)


class AgentConfigForm(forms.ModelForm):  # type: ignore[type-arg]
    """Checks `values` with the agent's own model, so that no run meets settings it cannot read."""

    class Meta:
        model = AgentConfig
        fields = CHANGEABLE
        field_classes = {"values": SettingsField}

    def clean_values(self) -> Any:
        """Settings that nobody touched stay as they are: an agent can be disabled while its stored settings fit no more."""
        if "values" not in self.changed_data:
            return self.instance.values
        agent = sdk.AGENTS.get(self.instance.slug)
        if agent is None:
            raise ValidationError("This agent is not installed here, so its settings cannot be checked.")
        try:
            return commands.settings_of(agent, self.cleaned_data["values"])
        except Misfit as misfit:
            raise ValidationError([_placed(complaint) for complaint in misfit.errors(include_url=False)]) from misfit
        except (commands.Refused, Unstorable) as refused:
            raise ValidationError(str(refused)) from refused


def _placed(complaint: Any) -> str:
    place = ".".join(map(str, complaint["loc"]))
    return f"{place}: {plain(complaint)}" if place else plain(complaint)


class Versioned(admin.ModelAdmin):  # type: ignore[type-arg]
    """A row that the code makes at first sight, and an admin changes through its command: every version is kept."""

    changeable: tuple[str, ...]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Django says of every save that something was changed."""
        saved = type(obj).objects.get(pk=obj.pk)
        if saved.version != obj.version:
            return super().response_change(request, saved)
        self.message_user(request, f"Nothing was changed: version {saved.version} stays in force.", messages.INFO)
        return redirect(request.path) if "_continue" in request.POST else self.response_post_save_change(request, saved)

    @admin.display(description="History")
    def history(self, row: Any) -> SafeString:
        """Every version that was in force, the newest first, with what changed and who did it."""
        found = versions.versions(row, most=HISTORY_SHOWN)
        shown = [(one, list(versions.changes(one, self.changeable))) for one in found]
        return render_to_string("admin/_config_history.html", {"versions": shown})


@admin.register(AgentConfig)
class AgentConfigAdmin(Versioned):
    form = AgentConfigForm
    changeable = CHANGEABLE
    list_display = ("slug", "enabled", "threshold", "attempts", "version", "changed_by", "changed_at")
    readonly_fields = ("slug", "version", "changed_by", "changed_at", "history")
    fieldsets = (
        (None, {"fields": ("slug", "enabled", "threshold", "attempts", "values")}),
        ("How many reviews may be open", {"fields": REVIEW_CAPS}),
        ("What one run may do before a person is asked", {"fields": RUN_LIMITS}),
        ("What all its runs may spend in a day", {"fields": DAY_LIMITS}),
        ("Versions", {"fields": ("version", "changed_by", "changed_at", "history")}),
    )

    def save_model(self, request: HttpRequest, obj: AgentConfig, form: Any, change: bool) -> None:
        """Through the command, which raises the version where something changes; `obj` keeps the version that was."""
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        commands.configure(obj.slug, by=request.user.get_username(), **changes)


EVERY_WORKER = "every worker that has no policy of its own"


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Checked against the code; with "Preview" it is valid never, so that nothing is saved."""

    agent = forms.ChoiceField()
    worker = forms.ChoiceField(required=False, help_text="Its own policy wins over that of the whole agent.")
    value = forms.CharField(
        required=False, max_length=200, help_text="With what the field is compared: a number, a date, text, yes or no."
    )

    class Meta:
        model = Policy
        fields = POLICY_FIELDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        agents = sdk.agents()
        grouped = [(one.title, [(worker.name, worker.title) for worker in operations.workers_of(one)]) for one in agents]
        for name, choices in (("agent", [(one.slug, one.title) for one in agents]), ("worker", [("", EVERY_WORKER), *grouped])):
            chosen = getattr(self.instance, name)  # what is no longer in the code is still shown
            known = any(chosen in (value, *dict(part if isinstance(part, list) else [])) for value, part in choices)
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101 - declared above
            field.choices = choices if known or not chosen else [*choices, (chosen, chosen)]

    @property
    def is_preview(self) -> bool:
        return "_preview" in self.data

    def is_valid(self) -> bool:
        return super().is_valid() and not self.is_preview

    def clean(self) -> dict[str, Any]:
        """With what the code says of it, so that all that is wrong stands there in one round."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if {"agent", "worker", "when", "subject"} <= said.keys():
            forms.models.construct_instance(self, self.instance, POLICY_FIELDS)
            try:
                self._check_worker()
                policies.check(self.instance)
            except ValidationError as error:
                self.add_error(None, ValidationError({name: e for name, e in error.error_dict.items() if name in said}))
        return said

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            policies.check(self.instance)  # a preview takes it as it would be kept

    def _check_worker(self) -> None:
        row = self.instance
        if row.worker and row.worker not in {worker.name for worker in operations.workers_of(sdk.AGENTS[row.agent])}:
            raise ValidationError({"worker": f"{sdk.AGENTS[row.agent].title} does not name this worker. Choose one of its own."})


@admin.register(Policy)
class PolicyAdmin(Versioned):
    form = PolicyForm
    change_form_template = "admin/runs/policy/change_form.html"
    changeable = POLICY_FIELDS
    list_display = ("agent", "worker", "when", "enabled", "risk", "approvals", "sample_share", "version", "changed_by")
    list_filter = ("agent", "when")
    readonly_fields = ("version", "changed_by", "changed_at", "history")
    fieldsets = (
        (None, {"fields": ("agent", "worker", "enabled")}),
        ("When a person is asked", {"fields": ("when", "threshold", "subject", "path", "operator", "value")}),
        ("How the person decides", {"fields": ("risk", "approvals", "within_seconds", "default")}),
        ("Quality sample", {"fields": ("sample_share",)}),
        ("Versions", {"fields": ("version", "changed_by", "changed_at", "history")}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def save_model(self, request: HttpRequest, obj: Policy, form: Any, change: bool) -> None:
        """As above; a new one also through the command."""
        names = form.changed_data if change else form.cleaned_data
        saved = policies.configure(
            obj.pk, by=request.user.get_username(), **{name: form.cleaned_data[name] for name in names}
        )  # fmt: skip
        obj.pk = saved.pk

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **options: Any) -> HttpResponse:
        """With what it would have done, where that was asked for; by what is hidden nothing can be judged."""
        form = context["adminform"].form
        if isinstance(form, PolicyForm) and form.is_bound and form.is_preview and not form.errors:
            context["previews"] = True
            context["preview"] = None if are_hidden() else previews.preview(form.instance)
        return super().render_change_form(request, context, *args, **options)


@admin.register(Dependency)
class DependencyAdmin(Versioned):
    changeable = dependency.CHANGEABLE
    list_display = ("name", "kind", "enabled", "limit_requests", "limit_period_seconds", "concurrency", "version", "changed_by")
    readonly_fields = ("name", "kind", "version", "changed_by", "changed_at", "history")
    fieldsets = (
        (None, {"fields": ("name", "kind", "enabled")}),
        ("Timeouts", {"fields": dependency.TIMEOUTS}),
        ("Limits, shared by all job processes", {"fields": dependency.LIMITS}),
        ("Circuit breaker", {"fields": dependency.BREAKER}),
        ("Retry", {"fields": dependency.RETRY}),
        ("Versions", {"fields": ("version", "changed_by", "changed_at", "history")}),
    )

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """A limit that is too low is told its own minimum, not that of all whole numbers."""
        least = [one.limit_value for one in db_field.validators if isinstance(one, MinValueValidator)]
        more = {"min_value": max(least)} if least else {}
        return super().formfield_for_dbfield(db_field, request, **options | more)

    def save_model(self, request: HttpRequest, obj: Dependency, form: Any, change: bool) -> None:
        """As above."""
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        dependencies.configure(obj.name, by=request.user.get_username(), **changes)


class AlertChannelForm(AddressForm):
    examples = f"mailto:nights@example.com, {outside.EXAMPLES}"

    class Meta:
        model = AlertChannel
        fields = ("name", "enabled", "url", "hourly_cap", "quiet_from", "quiet_until", "zone")

    def check(self, url: str) -> None:
        """A mail address too."""
        if url.startswith(delivery.MAIL):
            validate_email(url.removeprefix(delivery.MAIL))
        else:
            super().check(url)


@admin.register(AlertChannel)
class AlertChannelAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = AlertChannelForm
    list_display = ("name", "address", "enabled", "last_sent_at", "last_error")
    readonly_fields = ("address", "last_sent_at", "last_error", "retry_at", "gave_up_at")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "address", "url")}),
        ("How often", {"fields": ("hourly_cap", "quiet_from", "quiet_until", "zone")}),
        ("How it went", {"fields": ("last_sent_at", "last_error", "retry_at", "gave_up_at")}),
    )

    def save_model(self, request: HttpRequest, obj: AlertChannel, form: Any, change: bool) -> None:
        obj.begin_anew()
        super().save_model(request, obj, form, change)

    @admin.display(description="present address")
    def address(self, channel: AlertChannel) -> str:
        if channel.url.startswith(delivery.MAIL):
            return channel.url
        return outside.masked(channel.url) if channel.url else "none yet"


class ReadOnly(payloads.LookOnly):
    """Runs and steps are what their events say: to be looked at."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may_look(request.user)


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = ("id", "agent", "status", "started_by", "created_at", "input_text")
    list_filter = ("status", "agent")
    search_fields = ("input_text",)
    show_full_result_count = False


@admin.register(Reveal)
class RevealAdmin(ReadOnly):
    list_display = ("at", "by", "run_id", "reason")
    list_filter = ("by",)
    show_full_result_count = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may_configure(request.user)


@admin.register(Budget)
class BudgetAdmin(ReadOnly):
    list_display = ("scope", "unit", "limit", "used", "reserved", "closed_by", "closed_at")
    list_filter = ("unit",)
    search_fields = ("scope",)
    show_full_result_count = False


@admin.register(Step)
class StepAdmin(ReadOnly):
    list_display = ("id", "run", "position", "name", "worker", "status", "confidence", "attempt")
    list_filter = ("status", "worker")
    list_select_related = ("run",)
    show_full_result_count = False
