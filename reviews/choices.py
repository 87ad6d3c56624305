"""What a person may answer to a review: one choice per allowed decision, with what follows from it and the form it needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User

from reviews import consequences, decisions
from reviews.eligibility import Eligibility, lets_go_on, needs_reason
from reviews.forms import RaiseForm, ReasonForm, TwiceForm
from reviews.models import Cause, Decision, Draft, Review
from runs import commands, sdk
from runs.engine.act import Part
from runs.engine.canonical import digest
from runs.engine.comparison import Change, changes
from runs.engine.policy import Subject
from runs.forms import SchemaForm

Kind = Decision.Kind
Typed = Mapping[str, Any]
EDITED = {Subject.INPUT: "Approve as edited", Subject.OUTPUT: "Approve as corrected"}
ANEW = "It takes the place of the approval by {first}, and somebody else must approve it."
OF_A_SAMPLE = {Kind.APPROVE: "It was right", Kind.EDIT: "Say what would have been right", Kind.REJECT: "It was wrong"}


@dataclass
class Choice:
    """One decision that the review allows. Without a form it is a mere button; `says` is what follows from it.

    `act` names what is carried out, for the button. `why_not` is why this person may not choose it. `changes` are shown
    before an edit of high risk is sent: it carries `checked`, the fingerprint of what was shown. `why` is asked beside a form
    that has no reason of its own, at high risk.
    """

    kind: str
    title: str
    button: str
    tone: str
    key: str
    form: SchemaForm | ReasonForm | TwiceForm | RaiseForm | None = None
    why: ReasonForm | None = None
    gone: bool = False
    is_open: bool = False
    says: str = ""
    act: list[Part] = field(default_factory=list)
    why_not: str = ""
    seen: str = ""
    must_check: bool = False
    changes: list[Change] | None = None
    checked: str = ""

    @property
    def is_mere_button(self) -> bool:
        """Nothing is asked and nothing need be said before it is pressed; all others unfold."""
        return self.form is None and not self.gone and not self.says

    @property
    def about_proposal(self) -> bool:
        """What is typed takes the place of the proposal."""
        return self.kind in (Kind.EDIT, Kind.ANSWER)

    @property
    def is_typed(self) -> bool:
        return isinstance(self.form, SchemaForm)

    def is_valid(self) -> bool:
        return all(form.is_valid() for form in (self.form, self.why) if form)

    def asks_for_rows(self) -> bool:
        return isinstance(self.form, SchemaForm) and bool(self.form.more)

    def is_checked(self, review: Review, checked: str) -> bool:
        """Whether what it would change has been shown; a valid form that was not is given its changes to be shown now."""
        if not isinstance(self.form, SchemaForm):
            return True
        self.checked = digest(self.form.value())
        if checked == self.checked:
            return True
        self.changes = changes(review.proposal if self.about_proposal else None, self.form.value())
        self.is_open = True
        if self.kind == Kind.EDIT and review.subject == Subject.INPUT:
            self.act = consequences.parts(review, self.form.value())
        return False

    def value(self) -> Any:
        if isinstance(self.form, RaiseForm):
            return self.form.cleaned_data["limit"]
        return self.form.value() if isinstance(self.form, SchemaForm) else None

    def reason(self) -> str:
        form = self.why or self.form
        return str(form.cleaned_data["reason"]) if isinstance(form, ReasonForm) else ""

    def tag(self) -> str:
        """A rejection has a class, "other" where none was chosen."""
        found = self.form.cleaned_data.get("tag", "") if isinstance(self.form, ReasonForm) else ""
        return str(found or Decision.Tag.OTHER) if self.kind == Kind.REJECT else ""

    def typed(self) -> Any:
        """What the person wrote, fit to be shown again although it was not recorded."""
        if self.form is None:
            return None
        if isinstance(self.form, SchemaForm) and self.form.is_valid():
            return self.form.value()
        return {one.name.removeprefix("value."): one.data for one in self.form if one.data}


def choices(
    review: Review, *, chosen: str = "", data: Typed | None = None, drafts: Sequence[Draft] = (), actor: User | None = None
) -> list[Choice]:
    """What the review allows, in the order it names them.

    `data` is what was typed into the form of the `chosen` one, `drafts` what this person had typed before, the last
    first: its form is open. For an `actor` each says why they may not choose it, where that is so.
    """
    first = decisions.pending(review) if review.approvals > 1 and review.is_open else None
    kinds = [Kind.APPROVE, *(kind for kind in review.allowed if kind != Kind.APPROVE)] if first else review.allowed
    eligibility = Eligibility(review, actor) if actor else None
    made = []
    for kind in kinds:
        kept = next((draft.data for draft in drafts if draft.kind == kind), None) if data is None else None
        choice = _Maker(review, data if kind == chosen else None, kept).choice(kind)
        choice.is_open = choice.is_open and (kept is None or kind == drafts[0].kind)
        choice.seen = decisions.seen(review, first)
        choice.act = _act(review, kind, first)
        choice.why_not = eligibility.why_not(kind) if eligibility else ""
        if first and kind != Kind.APPROVE and lets_go_on(review, kind):
            choice.says = f"{choice.says} {ANEW.format(first=first.actor)}".strip()
        if first and actor and kind == Kind.APPROVE and first.actor_id == actor.pk:
            choice.why_not = "You have approved it. Somebody else must approve it too."
        made.append(choice)
    return made


def _act(review: Review, kind: str, first: Decision | None) -> list[Part]:
    """Named on the button of what is carried out, or would be."""
    if kind != Kind.APPROVE or not (review.subject == Subject.INPUT or review.is_high_risk):
        return []
    if first and first.kind not in (Kind.APPROVE, Kind.EDIT):
        return [Part(f"“{first.get_kind_display()}” by {first.actor}")]
    return consequences.parts(review, first.value if first else None)


class _Maker:
    """Makes the choices of one review; `data` was typed and is judged, `draft` was typed and is not."""

    def __init__(self, review: Review, data: Typed | None, draft: Typed | None) -> None:
        self.review, self.data, self.draft = review, data, draft
        self.is_open = data is not None or draft is not None

    def choice(self, kind: str) -> Choice:
        choice = self._of_its_cause(kind) or self._of_any_cause(kind)
        choice.says, choice.is_open = consequences.of(self.review, kind), choice.is_open or self.is_open
        choice.gone = choice.gone or (kind in decisions.CARRIES_VALUE and choice.form is None)
        choice.must_check = choice.is_typed and self.review.is_high_risk and kind == Kind.EDIT
        if needs_reason(self.review, kind) and choice.form and not isinstance(choice.form, ReasonForm):
            choice.why = self._why(kind)
        if self.review.cause == Cause.SAMPLE and kind in OF_A_SAMPLE:
            choice.title = choice.button = OF_A_SAMPLE[Kind(kind)]
        return choice

    def _of_its_cause(self, kind: str) -> Choice | None:
        match (kind, self.review.cause):
            case (Kind.RETRY, Cause.CODE_CHANGED):
                return Choice(kind, "Try again", "Try again", "primary", "t")
            case (Kind.RETRY, Cause.OUTCOME_UNKNOWN):
                return Choice(kind, "Carry it out once more", "Carry it out once more", "danger", "t", TwiceForm(self.data))
        return None

    def _of_any_cause(self, kind: str) -> Choice:
        match kind:
            case Kind.APPROVE:
                return Choice(kind, "Approve", "Approve", "success", "a", self._why_approved())
            case Kind.REJECT:
                return Choice(kind, "Reject", "Reject", "danger", "r", self._reason(kind))
            case Kind.RETRY:
                return Choice(kind, "Try again", "Try again", "primary", "t", self._reason(kind))
            case Kind.SEND_BACK:
                return Choice(kind, "Send back", "Send back", "primary", "b", self._reason(kind))
            case Kind.SKIP:
                return Choice(kind, "Skip", "Skip this step", "primary", "", self._reason(kind))
            case Kind.TAKE_OVER:
                return Choice(kind, "Take over", "Go on with this result", "success", "o", self.editor(Subject.OUTPUT))
            case Kind.ANSWER:
                return Choice(kind, "Your answer", "Send the answer", "success", "q", self.editor(begun=False), is_open=True)
            case Kind.HAPPENED:
                return Choice(kind, "It happened", "Go on with this result", "success", "h", self.editor())
            case Kind.NOT_HAPPENED:
                told = "Tell the supervisor that it did not happen"
                return Choice(kind, "It did not happen", told, "primary", "n", self._reason(kind))
            case Kind.RAISE:
                form = RaiseForm(self.review.proposal, self.data, draft=self.draft)
                return Choice(kind, "Raise the limit", "Raise the limit", "success", "e", form, is_open=True)
            case Kind.FINISH:
                return Choice(kind, "Finish with what there is", "Finish with what there is", "primary", "f", self._reason(kind))
            case Kind.FORK:
                return Choice(kind, "Fork", "Fork the run from this step", "success", "f")
            case Kind.CANCEL:
                return Choice(kind, "Cancel the run", "Cancel the run", "danger", "", self._reason(kind))
        return Choice(kind, "Edit", EDITED[Subject(self.review.subject)], "success", "e", self.editor())

    def _reason(self, kind: str) -> ReasonForm:
        at_risk, is_read = needs_reason(self.review, kind), consequences.reads_remark(self.review)
        return ReasonForm(kind, self.data, draft=self.draft, at_risk=at_risk, is_read=is_read)

    def _why(self, kind: str) -> ReasonForm:
        """Unjudged where the form beside it only asks for more rows."""
        if self.data is None or not self.data.get("more"):
            return self._reason(kind)
        return ReasonForm(kind, draft={"reason": self.data.get("reason", "")}, at_risk=True)

    def _why_approved(self) -> ReasonForm | None:
        return self._reason(Kind.APPROVE) if self.review.is_high_risk else None

    def editor(self, subject: str = "", *, begun: bool = True) -> SchemaForm | None:
        """A typed form of what is decided about, which begins with the proposal unless told otherwise.

        None when the code no longer has the worker that knows the type.
        """
        review, about = self.review, subject or self.review.subject
        worker = sdk.find_worker(review.worker)
        if worker is None:
            return None
        schema = worker.input_model.model_json_schema() if about == Subject.INPUT else worker.output.json_schema()
        data = self.data if self.data is not None or self.draft is None else {**self.draft, "more": "draft"}

        def check(value: Any) -> Any:
            return commands.check_value(review.worker, about, value)

        initial = review.proposal if begun and about == review.subject else None
        return SchemaForm(schema, data, check=check, initial=initial)
