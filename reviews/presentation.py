"""What the page of a review says: what will happen, why it is here, what came before, and who decided what."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.urls import reverse
from django.utils.functional import cached_property

from reviews import background, consequences, decisions
from reviews.choices import Choice
from reviews.listing import agent_title
from reviews.models import Cause, Claim, Decision, Review
from reviews.selection import why_alone
from runs import conversations, describe, sdk, timeline
from runs.engine.act import Part
from runs.engine.budget import shown
from runs.engine.comparison import Change
from runs.engine.policy import Subject
from runs.models import Run, RunStatus, Step

STEPS_BEFORE = 3
SAYS_NO = (Decision.Kind.REJECT, Decision.Kind.NOT_HAPPENED, Decision.Kind.FINISH)
REPLACED, REPLACED_LETTERS = 3, 60
STEPS_MOST = 200  # of those that are asked for; the run's page has every one
DEFAULTS = {
    "expire": "Expires",
    "skip": "Skips the step",
    "approve": "Approves",
}

WHAT_HAPPENS = {
    Cause.GATED: "Approve, and “{title}” is carried out with the input below. Nothing has been done yet.",
    Cause.LOW_CONFIDENCE: "Approve, and the run goes on with the result below as if it were certain.",
    Cause.FAILED: (
        "“{title}” did not succeed. Have it tried again, or give its result yourself; then the run goes on. "
        "With another input it goes on in a fork: on the page of its run, at this step."
    ),
    Cause.QUESTION: "The run goes on with your answer.",
    Cause.CODE_CHANGED: "The run stopped where the code no longer asks for what was recorded. Say how it ends or goes on.",
    Cause.OUTCOME_UNKNOWN: "“{title}” may happen only once, and nobody knows whether it did. Look it up outside, then say it.",
    Cause.SAMPLE: "“{title}” was not held up: this is a check of its quality. Say whether it was right; nothing else happens.",
    Cause.BUDGET: "“{title}” would go beyond a limit, so it was not carried out. Raise the limit, or say how the run ends.",
}
DID = {
    Decision.Kind.APPROVE: "approved it",
    Decision.Kind.EDIT: "edited and approved it",
    Decision.Kind.REJECT: "rejected it",
    Decision.Kind.RETRY: "had it tried again",
    Decision.Kind.ANSWER: "answered it",
    Decision.Kind.HAPPENED: "said that it happened",
    Decision.Kind.NOT_HAPPENED: "said that it did not happen",
    Decision.Kind.FORK: "forked the run",
    Decision.Kind.CANCEL: "cancelled the run",
    Decision.Kind.RAISE: "raised the limit",
    Decision.Kind.FINISH: "had the run finish with what there is",
    Decision.Kind.TAKE_OVER: "took it over and gave the result",
    Decision.Kind.SEND_BACK: "sent it back for changes",
    Decision.Kind.SKIP: "skipped it",
}
DONE = {
    Decision.Kind.APPROVE: "Approved review {id}.",
    Decision.Kind.EDIT: "Edited and approved review {id}.",
    Decision.Kind.REJECT: "Rejected review {id}.",
    Decision.Kind.RETRY: "Review {id}: it is tried again.",
    Decision.Kind.ANSWER: "Answered review {id}.",
    Decision.Kind.HAPPENED: "Review {id}: it happened, and the run goes on with your result.",
    Decision.Kind.NOT_HAPPENED: "Review {id}: it did not happen.",
    Decision.Kind.FORK: "Review {id}: a new run goes on, and this one was cancelled.",
    Decision.Kind.CANCEL: "Review {id}: the run was cancelled.",
    Decision.Kind.RAISE: "Review {id}: the limit was raised, and the run goes on.",
    Decision.Kind.FINISH: "Review {id}: the run finishes with what there is.",
    Decision.Kind.TAKE_OVER: "Review {id}: the run goes on with your result.",
    Decision.Kind.SEND_BACK: "Review {id}: sent back for changes.",
    Decision.Kind.SKIP: "Review {id}: skipped, and the run goes on without it.",
}
OF_A_SAMPLE = {  # what its reviewer did, and the message after it
    Decision.Kind.APPROVE: ("said that it was right", "Review {id}: you said that it was right."),
    Decision.Kind.EDIT: ("said what would have been right", "Review {id}: you said what would have been right."),
    Decision.Kind.REJECT: ("said that it was wrong", "Review {id}: you said that it was wrong."),
}


def done(decision: Decision) -> str:
    """The message after a decision."""
    kind = Decision.Kind(decision.kind)
    said = OF_A_SAMPLE[kind][1] if decision.review.cause == Cause.SAMPLE else DONE[kind]
    return said.format(id=decision.review_id)


def run_forked_by(decision: Decision) -> Run | None:
    """The run that goes on where this decision ended its own."""
    if decision.kind != Decision.Kind.FORK:
        return None
    review = decision.review
    forks = Run.objects.filter(forked_from=review.run_id, forked_step=review.position, created_at__lte=decision.decided_at)
    return forks.order_by("-pk").first()


def did(decision: Decision) -> str:
    """What its actor did: "approved it"."""
    kind = Decision.Kind(decision.kind)
    return OF_A_SAMPLE[kind][0] if decision.review.cause == Cause.SAMPLE else DID[kind]


@dataclass
class ReviewPage:
    """A review with what its page shows; each part is asked for when the template wants it."""

    review: Review
    choices: list[Choice]
    first: Decision | None = None  # of two approvals, while the second is awaited

    @property
    def barred(self) -> list[str]:
        """Why this person may not take some of the decisions, which are not shown to them."""
        return list(dict.fromkeys(choice.why_not for choice in self.choices if choice.why_not))

    @property
    def offered(self) -> list[Choice]:
        """The decisions that this person may take."""
        return [choice for choice in self.choices if not choice.why_not]

    @cached_property
    def run(self) -> Run:
        """With its input, however large."""
        return timeline.with_large(self.review.run)

    @property
    def agent(self) -> str:
        return agent_title(self.review.run.agent)

    @property
    def agent_url(self) -> str:
        """ "" where the code no longer has the agent."""
        return reverse("agent", args=[self.review.agent]) if self.review.agent in sdk.AGENTS else ""

    @property
    def act(self) -> list[Part]:
        """What is carried out, by name and content, where its worker says it; else the proposal itself has to."""
        worker = sdk.find_worker(self.review.worker)
        about_input = self.review.subject == Subject.INPUT
        if not (about_input and worker and worker.says) or (self.first and self.first.kind not in Decision.CHANGES):
            return []
        return consequences.parts(self.review, self.edited.value if self.edited else None)

    @property
    def edited(self) -> Decision | None:
        """The first approval, where it puts something else in the place of the proposal."""
        return self.first if self.first and self.first.kind == Decision.Kind.EDIT else None

    @property
    def what_happens(self) -> str:
        if self.first and (said := consequences.of_second(self.review, self.first)):
            return said
        if self.review.cause == Cause.GATED and self.review.subject == Subject.OUTPUT:
            return "Approve, and the run goes on with the result below."
        return WHAT_HAPPENS[Cause(self.review.cause)].format(title=self.review.title)

    @property
    def why(self) -> str:
        """The sentence to decide by; a question in full, which is cut where it stands as a reason."""
        if self.review.cause == Cause.QUESTION and self.step and isinstance(self.step.input, dict):
            return str(self.step.input.get("question", self.review.why))
        return describe.said(self.review.why)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Of what is decided about. The worker's own names the fields in their order; the recorded one has lost it."""
        worker = sdk.find_worker(self.review.worker)
        if worker is None or self.review.cause in (Cause.CODE_CHANGED, Cause.BUDGET):
            return dict(self.review.schema)
        return consequences.schema_of(worker, self.review.subject)

    @cached_property
    def claim(self) -> Claim | None:
        return self.review.held()

    @cached_property
    def step(self) -> Step | None:
        found = Step.objects.filter(run=self.review.run_id, position=self.review.position)
        return next(iter(timeline.steps_of(self.review.run_id, found)), None)

    @property
    def asked_a_model(self) -> bool:
        """Whether there is a conversation to show, which is fetched when somebody opens it."""
        return conversations.is_kept(self.review.run_id, self.review.position)

    @property
    def alternatives(self) -> list[tuple[str, float]]:
        """Other answers the worker thought of, the likeliest first."""
        found = self.step.alternatives if self.step else {}
        return sorted(found.items(), key=lambda pair: -pair[1])[:5]

    @cached_property
    def steps_before(self) -> list[Step]:
        earlier = Step.objects.filter(run=self.review.run_id, position__lt=self.review.position)
        return timeline.steps_of(self.review.run_id, earlier.order_by("-position")[:STEPS_BEFORE])[::-1]

    @cached_property
    def identical(self) -> int:
        """How many other open reviews ask exactly the same and may be decided with it."""
        if not (self.review.is_open and self.review.same) or why_alone(self.review):
            return 0
        return Review.objects.open().filter(same=self.review.same).exclude(pk=self.review.pk).count()

    @property
    def steps_earlier(self) -> int:
        """How many steps came before it; those that are shown at once are the last of them."""
        return self.review.position - 1

    @cached_property
    def all_steps_before(self) -> list[Step]:
        earlier = Step.objects.filter(run=self.review.run_id, position__lt=self.review.position)
        return timeline.steps_of(self.review.run_id, earlier.order_by("-position")[:STEPS_MOST])[::-1]

    @cached_property
    def precedents(self) -> background.Precedents:
        return background.precedents(self.review)

    @cached_property
    def spent(self) -> background.Spent:
        return background.spent(self.review.run)

    @cached_property
    def blocked(self) -> background.Blocked:
        return background.blocked(self.review)

    @property
    def at_the_deadline(self) -> str:
        """What happens by itself when nobody has decided by then."""
        return DEFAULTS.get(self.review.default, DEFAULTS["expire"])

    @cached_property
    def earlier_decisions(self) -> list[Decision]:
        """What was decided about this step before: a step that was sent back comes again."""
        about = {"review__run": self.review.run_id, "review__position": self.review.position}
        others = Decision.objects.filter(final=True, revoked_at=None, **about).exclude(review=self.review)
        return list(others.select_related("actor", "review").order_by("decided_at"))

    @cached_property
    def proposals(self) -> list[Decision]:
        """Those that were sent back for changes, each with its remark; its review has the proposal."""
        return [decision for decision in self.earlier_decisions if decision.kind == Decision.Kind.SEND_BACK]

    @cached_property
    def agreed(self) -> list[Decision]:
        """Who had approved it before the last word."""
        before = self.review.decisions.filter(final=False, revoked_at=None) if self.review.approvals > 1 else []
        return list(before)

    @property
    def deadline(self) -> datetime | None:
        """Until when somebody may decide."""
        return self.review.due_at

    @cached_property
    def asked_anew(self) -> Review | None:
        """The question about this step that is open now, where this one is not."""
        others = Review.objects.open().filter(run=self.review.run_id, position=self.review.position)
        return others.exclude(pk=self.review.pk).first()

    @property
    def why_closed(self) -> str:
        return self.review.why_closed

    @cached_property
    def decision(self) -> Decision | None:
        """None where the review is still open, which need not be asked."""
        return None if self.review.is_open else self.review.decision

    @property
    def failed_run(self) -> Run | None:
        """The run, where it failed after somebody said no."""
        said_no = self.decision and self.decision.kind in SAYS_NO and self.review.cause != Cause.SAMPLE
        return self.review.run if said_no and self.review.run.status == RunStatus.FAILED else None

    @cached_property
    def forked(self) -> Run | None:
        return run_forked_by(self.decision) if self.decision else None

    @property
    def own_undo(self) -> decisions.Undoable | None:
        """Of the decision of this page alone, while it can be taken back."""
        can_be = self.decision and self.decision.can_be_taken_back
        return decisions.Undoable(self.decision, self.decision.effective_at) if self.decision and can_be else None

    @property
    def did(self) -> str:
        return did(self.decision) if self.decision else ""

    @property
    def new_limit(self) -> str:
        """To which a budget was raised."""
        asked = self.review.proposal
        if self.decision is None or self.decision.kind != Decision.Kind.RAISE or asked is None:
            return ""
        return shown(asked["unit"], Decimal(str(self.decision.value)), asked["currency"])

    @property
    def changes(self) -> list[Change]:
        """How the decision differs from the proposal."""
        return self.decision.changes if self.decision else []

    @property
    def replaced(self) -> list[tuple[str, str, str]]:
        """The first changes in short, for whoever has the page open: the field, what it was, what it became."""
        return [(change.name, _short(change, "added"), _short(change, "removed")) for change in self.changes[:REPLACED]]


def _short(change: Change, without: str) -> str:
    text = " ".join("".join(part.text for part in change.parts if part.kind != without).split())
    return text if len(text) <= REPLACED_LETTERS else f"{text[:REPLACED_LETTERS]}…"
