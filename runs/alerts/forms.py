"""The form of a rule: typed fields, checked as the command checks them; with "preview" nothing is saved."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from runs import sdk
from runs.alerts import rules
from runs.alerts.measures import MEASURES
from runs.models import AlertChannel, AlertRule
from runs.models.alert import EACH
from runs.reliability import terms

UNITS = {"share": "a share from 0 to 1", "seconds": "seconds", "money": "money", "bytes": "bytes", "yes": "1 is yes, 0 is no"}
FIELDS = (
    "name", "enabled", "measure", "subject", "kind", "side", "limit", "least_value", "least_count", "window_minutes", "back",
    "breaches", "of", "hours_from", "hours_until", "weekdays_only", "zone", "channels", "act", "act_on", "act_limit",
)  # fmt: skip
HEARS = "Who hears of it, and what is done"
GROUPS = (
    ("What is watched", ("name", "enabled", "measure", "subject", "window_minutes")),
    ("When it is wrong", ("kind", "side", "limit", "least_value", "least_count", "back", "breaches", "of")),
    ("Office hours", ("hours_from", "hours_until", "weekdays_only", "zone")),
    (HEARS, ("channels", "act", "act_on", "act_limit")),
)
NO_CHANNEL = "There is no channel yet, so nobody is told: an admin adds one (Admin, Alert channels)."
TICK = {"class": "form-check-input me-1"}
CLOCK = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")


class Plain(forms.NumberInput):
    """A whole number without ".0"."""

    def format_value(self, value: Any) -> str | None:
        said: str | None = super().format_value(int(value) if isinstance(value, float) and value.is_integer() else value)
        return said


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    measure = forms.ChoiceField(help_text="In brackets the unit in which limits are given.")
    subject = forms.ChoiceField(label="Of what", required=False)
    act_on = forms.ChoiceField(label="What it acts on", required=False)
    channels = forms.TypedMultipleChoiceField(
        coerce=int, required=False, widget=forms.CheckboxSelectMultiple(attrs=TICK), help_text="None chosen: every channel."
    )

    class Meta:
        model = AlertRule
        fields = FIELDS
        labels = {
            "side": "Above or below", "least_value": "Least value", "least_count": "Fewest runs", "back": "Compared with",
            "of": "Among", "hours_from": "From", "hours_until": "Until",
        }  # fmt: skip
        widgets = {"hours_from": CLOCK, "hours_until": CLOCK, "limit": Plain, "least_value": Plain}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        agents = ("Agents", [(one.slug, one.title) for one in sdk.agents()])
        outside = ("Dependencies", [(one.name, one.name) for one in terms.rows()])
        measures = [
            (one.name, f"{one.title} ({UNITS[one.unit]})" if one.unit in UNITS else one.title) for one in MEASURES.values()
        ]
        whose: list[Any] = [("", "everything together"), (EACH, "each agent or dependency by itself"), agents, outside]
        self._offer("measure", measures)
        self._offer("subject", whose)
        self._offer("act_on", [("", "the one that the alert is about"), agents, outside])
        self._offer("channels", list(AlertChannel.objects.values_list("pk", "name")))
        if not self.instance.channels and not AlertChannel.objects.exists():
            del self.fields["channels"]

    def _offer(self, name: str, choices: list[Any]) -> None:
        """What is stored and no longer there is still shown."""
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - declared above
        stored = getattr(self.instance, name, None)
        known = {value for choice, inner in choices for value in (dict(inner) if isinstance(inner, list) else [choice])}
        field.choices = [*choices, *([(stored, stored)] if isinstance(stored, str) and stored not in known and stored else [])]

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            try:
                rules.check(self.instance)
            except ValidationError as error:
                self.add_error(None, error)

    @property
    def groups(self) -> list[tuple[str, list[forms.BoundField], str]]:
        """Title, fields, and what is to be said of them."""
        found = [(title, [self[name] for name in names if name in self.fields]) for title, names in GROUPS]
        return [
            (title, fields, NO_CHANNEL if title == HEARS and "channels" not in self.fields else "") for title, fields in found
        ]

    def saved(self, *, by: str) -> AlertRule:
        """By the command, which raises the version where something changes."""
        return rules.configure(
            self.instance.pk, by=by, **{name: self.cleaned_data[name] for name in FIELDS if name in self.fields}
        )
