"""What a person may answer to a review: one choice per allowed decision, with the form it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from reviews.models import Cause, Decision, Review
from runs import commands, sdk
from runs.engine.policy import Subject
from runs.forms import SchemaForm

Kind = Decision.Kind
REASON_LETTERS = 4000


class ReasonForm(forms.Form):
    """Why it is rejected, or what the worker should do better."""

    reason = forms.CharField(max_length=REASON_LETTERS)

    def __init__(self, kind: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, auto_id=f"id_{kind}_%s")
        reason = self.fields["reason"]
        reason.widget = forms.Textarea({"class": "form-control", "rows": 2, "maxlength": REASON_LETTERS})
        if kind == Kind.REJECT:
            reason.label, reason.error_messages["required"] = "Reason", "Say why: a rejection needs a reason."
            reason.help_text = "The supervisor reads it and may go another way; else the run fails with it."
        else:
            reason.label, reason.required = "Remark for the worker", False
            reason.help_text = "What to do better. A worker that makes text or judgements takes it into account."
        reason.widget.is_required = reason.required


@dataclass
class Choice:
    """One decision that the review allows. Without a form it is a mere button."""

    kind: str
    title: str
    button: str
    tone: str
    key: str
    form: SchemaForm | ReasonForm | None = None
    gone: bool = False
    is_open: bool = False

    @property
    def is_typed(self) -> bool:
        return isinstance(self.form, SchemaForm)

    def is_valid(self) -> bool:
        return self.form is None or self.form.is_valid()

    def asks_for_rows(self) -> bool:
        return isinstance(self.form, SchemaForm) and bool(self.form.more)

    def value(self) -> Any:
        return self.form.value() if isinstance(self.form, SchemaForm) else None

    def reason(self) -> str:
        return str(self.form.cleaned_data["reason"]) if isinstance(self.form, ReasonForm) else ""

    def typed(self) -> Any:
        """What the person wrote, fit to be shown again although it was not recorded."""
        if self.form is None:
            return None
        if isinstance(self.form, SchemaForm) and self.form.is_valid():
            return self.form.value()
        return {field.name.removeprefix("value."): field.data for field in self.form if field.data}


EDIT_TITLES = {
    Cause.GATED: ("Edit the input, then approve", "Approve as edited"),
    Cause.LOW_CONFIDENCE: ("Correct the result, then approve", "Approve as corrected"),
    Cause.FAILED: ("Give the result yourself", "Go on with this result"),
}


def choices(review: Review, *, chosen: str = "", data: Mapping[str, Any] | None = None) -> list[Choice]:
    """What the review allows, in the order it names them; `data` is what was typed into the form of the `chosen` one."""
    return [_choice(review, kind, data if kind == chosen else None) for kind in review.allowed]


def _choice(review: Review, kind: str, data: Mapping[str, Any] | None) -> Choice:
    bound = data is not None
    match kind:
        case Kind.APPROVE:
            return Choice(kind, "Approve", "Approve", "success", "a")
        case Kind.REJECT:
            return Choice(kind, "Reject", "Reject", "danger", "r", ReasonForm(kind, data), is_open=bound)
        case Kind.RETRY:
            return Choice(kind, "Try again", "Try again", "primary", "t", ReasonForm(kind, data), is_open=bound)
        case Kind.ANSWER:
            form = editor(review, data)
            return Choice(kind, "Your answer", "Send the answer", "success", "e", form, form is None, is_open=True)
        case _:
            title, button = EDIT_TITLES.get(Cause(review.cause), ("Edit, then approve", "Approve as edited"))
            form = editor(review, data)
            return Choice(kind, title, button, "success", "e", form, form is None, is_open=bound)


def editor(review: Review, data: Mapping[str, Any] | None = None) -> SchemaForm | None:
    """A typed form of what is decided about; None when the code no longer has the worker that knows the type."""
    worker = sdk.find_worker(review.worker)
    if worker is None:
        return None
    about_input = review.subject == Subject.INPUT
    schema = worker.input_model.model_json_schema() if about_input else worker.output.json_schema()

    def check(value: Any) -> Any:
        return commands.check_value(review.worker, review.subject, value)

    return SchemaForm(schema, data, check=check, initial=review.proposal)
