"""Who may decide a review, and why somebody may not: the rules, in words for the person whom they hold back."""

from django.contrib.auth.models import User
from django.utils.functional import cached_property

from reviews.models import Cause, Decision, Review
from runs import access, commands

Kind = Decision.Kind
# What lets something happen, or a run go on with a person's word: for these there may have to be two people.
LETS_GO_ON = frozenset(
    {Kind.APPROVE, Kind.EDIT, Kind.TAKE_OVER, Kind.ANSWER, Kind.HAPPENED, Kind.NOT_HAPPENED, Kind.SKIP, Kind.RAISE}
)
LEFT = {  # to who is barred from those
    Kind.REJECT: "reject it",
    Kind.RETRY: "have it tried again",
    Kind.SEND_BACK: "send it back",
    Kind.FINISH: "have the run finish with what there is",
    Kind.CANCEL: "cancel the run",
}
HIDDEN_FROM_YOU = "What this is about is hidden from you, so you cannot decide it: that needs the permission to see payloads."


class NotYours(commands.Refused):
    """This person may not decide this review; the message says who may."""


def lets_go_on(review: Review, kind: str) -> bool:
    """Whether the decision is one that four eyes, or one's own request, are about."""
    once_more = kind == Kind.RETRY and review.cause == Cause.OUTCOME_UNKNOWN
    return kind in LETS_GO_ON or once_more


def needs_reason(review: Review, kind: str) -> bool:
    """At high risk whatever lets the run go on needs one; of a new limit the number says it."""
    return review.is_high_risk and kind != Kind.RAISE and lets_go_on(review, kind)


class Eligibility:
    """What one person may do with one review; each question is asked of the database once, and only where it matters."""

    def __init__(self, review: Review, actor: User) -> None:
        self.review, self.actor = review, actor

    def why_not(self, kind: str = "") -> str:
        """The sentence for who may not take this decision (without a kind: any), or ""."""
        return self.why_not_see or self.why_not_by_role(kind)

    @property
    def why_not_see(self) -> str:
        """Nobody decides about what is hidden from them."""
        return "" if access.sees_payloads(self.actor, self.review.run_id) else HIDDEN_FROM_YOU

    def why_not_by_role(self, kind: str = "") -> str:
        """The same for who has seen what it is about."""
        if not self.is_asked:
            return f"This review is for the group {self.review.group}. Ask one of its members, or have it reassigned to you."
        return self._why_not_go_on() if kind and lets_go_on(self.review, kind) else ""

    @cached_property
    def is_asked(self) -> bool:
        review, actor = self.review, self.actor
        if review.group_id is None or review.assignee_id == actor.pk or access.may_configure(actor):
            return True
        asked = [review.group_id, review.second_group_id if review.escalated_at else None]
        return actor.groups.filter(pk__in=[group for group in asked if group]).exists()

    def _why_not_go_on(self) -> str:
        four_eyes, name = self.review.approvals > 1, self.actor.get_username()
        if (four_eyes or self.review.is_high_risk) and self.review.run.started_by == name:
            return f"You started this run, so somebody else must approve it.{self._what_is_left}"
        if four_eyes and name in self._authors:
            return f"You made the last change of the rule that asks here, so two others must approve it.{self._what_is_left}"
        return ""

    @property
    def _what_is_left(self) -> str:
        words = LEFT | ({Kind.REJECT: "say that it was wrong"} if self.review.cause == Cause.SAMPLE else {})
        left = [words.get(Kind(kind), "") for kind in self.review.allowed if not lets_go_on(self.review, kind)]
        return f" You may still {' or '.join(filter(None, left))}." if any(left) else ""

    @cached_property
    def _authors(self) -> set[str]:
        return commands.authors(self.review.run_id, self.review.worker)
