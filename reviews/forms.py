"""The small forms of decisions: a reason, a remark, a confirmation, a new limit."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import forms

from reviews.models import Decision
from runs.engine.budget import raised, shown

Kind = Decision.Kind
REASON_LETTERS = 4000
REASONS = {
    Kind.APPROVE: ("Why you approve it", "The risk is high, so the history carries your reason."),
    Kind.REJECT: ("Reason", "The supervisor reads it and may go another way; else the run fails with it."),
    Kind.NOT_HAPPENED: ("How you know", "The supervisor reads it, and the run's history carries it."),
    Kind.CANCEL: ("Reason", "The run's history carries it."),
    Kind.FINISH: ("Reason", "The run's history carries it."),
    Kind.SKIP: ("Reason", "The run's history carries it."),
    Kind.RETRY: ("Remark for the worker", "What to do better. The worker reads it."),
    Kind.SEND_BACK: ("Remark for the worker", "What is to be changed. The worker reads it and begins anew."),
}
NOT_READ = ("Reason", "The worker takes no remarks: the run's history carries it.")
AT_RISK = ("Why you decide so", "The risk is high, so the history carries your reason.")
REQUIRED = {
    Kind.REJECT: "Say why: a rejection needs a reason.",
    Kind.SEND_BACK: "Say what is to be changed: whoever sends a result back says why.",
}


class ReasonForm(forms.Form):
    """Why it is decided so, how one knows, or what the worker should do better."""

    reason = forms.CharField(max_length=REASON_LETTERS)
    tag = forms.ChoiceField(label="What is wrong", required=False, choices=[("", "Choose, to be counted"), *Decision.Tag.choices])

    def __init__(
        self, kind: str, data: Mapping[str, Any] | None = None, *, draft: Mapping[str, Any] | None = None, name: str = "",
        at_risk: bool = False, is_read: bool = True,
    ) -> None:  # fmt: skip
        """`at_risk`: it must be said why, because the risk is high. `is_read`: the worker takes remarks."""
        super().__init__(data, auto_id=f"id_{name or kind}_%s", initial=dict(draft or {}))
        reason = self.fields["reason"]
        reason.widget = forms.Textarea({"class": "form-control", "rows": 2, "maxlength": REASON_LETTERS})
        is_no_remark = at_risk and kind == Kind.RETRY
        is_unread = kind in (Kind.RETRY, Kind.SEND_BACK) and not is_read
        told = NOT_READ if is_unread else REASONS.get(Kind(kind), AT_RISK)
        reason.label, reason.help_text = AT_RISK if is_no_remark else told
        reason.error_messages["required"] = REQUIRED.get(Kind(kind), "Say why: the risk is high.")
        reason.required = reason.widget.is_required = at_risk or kind in REQUIRED
        self.fields["tag"].widget.attrs["class"] = "form-select"
        if kind != Kind.REJECT:
            del self.fields["tag"]


class TwiceForm(forms.Form):
    """The confirmation without which nothing is carried out that may have happened before."""

    twice = forms.BooleanField(label="I know that it may happen twice.")

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        self.fields["twice"].error_messages["required"] = "Confirm it, or choose another decision."


class RaiseForm(forms.Form):
    """The new limit, twice the old one unless something else is typed."""

    limit = forms.CharField(max_length=30)

    def __init__(self, asked: Any, data: Mapping[str, Any] | None = None, *, draft: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial={"limit": asked["double"]} | dict(draft or {}))
        self.asked, limit = asked, self.fields["limit"]
        limit.widget = forms.TextInput({"class": "form-control", "inputmode": "decimal", "autocomplete": "off"})
        limit.label = f"New limit ({UNITS[asked['unit']].format(currency=asked['currency'])})"
        present = (shown(asked["unit"], Decimal(asked[name]), asked["currency"]) for name in ("limit", "used"))
        limit.help_text = "It is {} now. Used or reserved: {}.".format(*present)
        limit.error_messages["required"] = "Enter a number."

    def clean_limit(self) -> str:
        try:
            return raised(self.asked, self.cleaned_data["limit"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


UNITS = {
    "children": "runs that it starts",
    "depth": "runs below one another",
    "money": "{currency}",
    "tokens": "tokens",
    "calls": "calls",
    "seconds": "seconds",
    "steps": "steps",
    "repeats": "times",
}
