"""What a person may answer to a review: one choice per allowed decision, with the form it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms

from reviews import consequences
from reviews.models import Cause, Decision, Review
from runs import commands, sdk
from runs.engine.budget import raised, shown
from runs.engine.policy import Subject
from runs.forms import SchemaForm

Kind = Decision.Kind
REASON_LETTERS = 4000


REASONS = {
    Kind.REJECT: ("Reason", "The supervisor reads it and may go another way; else the run fails with it."),
    Kind.NOT_HAPPENED: ("How you know", "The supervisor reads it, and the run's history carries it."),
    Kind.CANCEL: ("Reason", "The run's history carries it."),
    Kind.FINISH: ("Reason", "The run's history carries it."),
    Kind.RETRY: ("Remark for the worker", "What to do better. A worker that makes text or judgements takes it into account."),
}


class ReasonForm(forms.Form):
    """Why it is rejected or cancelled, how one knows, or what the worker should do better."""

    reason = forms.CharField(max_length=REASON_LETTERS)

    def __init__(self, kind: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, auto_id=f"id_{kind}_%s")
        reason = self.fields["reason"]
        reason.widget = forms.Textarea({"class": "form-control", "rows": 2, "maxlength": REASON_LETTERS})
        reason.label, reason.help_text = REASONS[Kind(kind)]
        reason.error_messages["required"] = "Say why: a rejection needs a reason."
        reason.required = reason.widget.is_required = kind == Kind.REJECT


class TwiceForm(forms.Form):
    """The confirmation without which nothing is carried out that may have happened before."""

    twice = forms.BooleanField(label="I know that it may happen twice.")

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        self.fields["twice"].error_messages["required"] = "Confirm it, or choose another decision."


class RaiseForm(forms.Form):
    """The new limit, twice the old one unless something else is typed."""

    limit = forms.CharField(max_length=30)

    def __init__(self, asked: Any, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial={"limit": asked["double"]})
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
    "money": "{currency}",
    "tokens": "tokens",
    "calls": "calls",
    "seconds": "seconds of work",
    "steps": "steps",
    "repeats": "times",
}


@dataclass
class Choice:
    """One decision that the review allows. Without a form it is a mere button; `says` is what follows from it."""

    kind: str
    title: str
    button: str
    tone: str
    key: str
    form: SchemaForm | ReasonForm | TwiceForm | RaiseForm | None = None
    gone: bool = False
    is_open: bool = False
    says: str = ""

    @property
    def is_mere_button(self) -> bool:
        """Nothing is asked and nothing need be said before it is pressed; all others unfold."""
        return self.form is None and not self.gone and (self.kind == Kind.APPROVE or not self.says)

    @property
    def is_typed(self) -> bool:
        return isinstance(self.form, SchemaForm)

    def is_valid(self) -> bool:
        return self.form is None or self.form.is_valid()

    def asks_for_rows(self) -> bool:
        return isinstance(self.form, SchemaForm) and bool(self.form.more)

    def value(self) -> Any:
        if isinstance(self.form, RaiseForm):
            return self.form.cleaned_data["limit"]
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
    choice = _form_of(review, kind, data)
    choice.says = consequences.of(review, kind)
    return choice


def _form_of(review: Review, kind: str, data: Mapping[str, Any] | None) -> Choice:
    bound = data is not None
    match (kind, review.cause):
        case (Kind.RETRY, Cause.CODE_CHANGED):
            return Choice(kind, "Try again", "Try again", "primary", "t")
        case (Kind.RETRY, Cause.OUTCOME_UNKNOWN):
            return Choice(kind, "Carry it out once more", "Carry it out once more", "danger", "t", TwiceForm(data), is_open=bound)
    return _form_of_any_cause(review, kind, data, bound=bound)


def _form_of_any_cause(review: Review, kind: str, data: Mapping[str, Any] | None, *, bound: bool) -> Choice:
    match kind:
        case Kind.APPROVE:
            return Choice(kind, "Approve", "Approve", "success", "a")
        case Kind.REJECT:
            return Choice(kind, "Reject", "Reject", "danger", "r", ReasonForm(kind, data), is_open=bound)
        case Kind.RETRY:
            return Choice(kind, "Try again", "Try again", "primary", "t", ReasonForm(kind, data), is_open=bound)
        case Kind.ANSWER:
            form = editor(review, data)
            return Choice(kind, "Your answer", "Send the answer", "success", "q", form, form is None, is_open=True)
        case Kind.HAPPENED:
            form = editor(review, data)
            return Choice(kind, "It happened", "Go on with this result", "success", "h", form, form is None, is_open=bound)
        case Kind.NOT_HAPPENED:
            told = "Tell the supervisor that it did not happen"
            return Choice(kind, "It did not happen", told, "primary", "n", ReasonForm(kind, data), is_open=bound)
        case Kind.RAISE:
            raises = RaiseForm(review.proposal, data)
            return Choice(kind, "Raise the limit", "Raise the limit", "success", "e", raises, is_open=True)
        case Kind.FINISH:
            form_ = ReasonForm(kind, data)
            return Choice(kind, "Finish with what there is", "Finish with what there is", "primary", "f", form_, is_open=bound)
        case Kind.FORK:
            return Choice(kind, "Fork", "Fork the run from this step", "success", "f")
        case Kind.CANCEL:
            return Choice(kind, "Cancel the run", "Cancel the run", "danger", "", ReasonForm(kind, data), is_open=bound)
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
