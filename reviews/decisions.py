"""The only way a review is decided: for the page, the API, bulk and timeouts."""

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from reviews import live
from reviews.models import Claim, Decision, Review
from runs import access, commands
from runs.engine.canonical import stored
from runs.models import Run

CARRIES_VALUE = (Decision.Kind.EDIT, Decision.Kind.ANSWER, Decision.Kind.HAPPENED)


class Conflict(Exception):
    """Somebody else was first, or the run has ended; `review` says who decided what and when."""

    def __init__(self, review: Review) -> None:
        super().__init__(f"Review {review.pk} is no longer open.")
        self.review = review


class Stale(commands.Refused):
    """What is proposed has changed since you looked. Read it again, then decide."""


def decide(review_id: int, *, actor: User, kind: str, seen: str, value: Any = None, reason: str = "") -> Decision:
    """Record the decision and let the run go on, in one transaction that locks the run, then the review.

    `seen` is the fingerprint of what the person saw; `value` the edited or answered JSON value.
    Raises Conflict when the review is no longer open, Stale when what was seen has changed, commands.Refused when the
    decision is not allowed or a rejection has no reason, PermissionDenied, Review.DoesNotExist, Unstorable, and
    pydantic's ValidationError for a value that does not fit.
    """
    if not access.may_decide(actor):
        raise PermissionDenied
    with commands.certain():
        review = _locked(review_id)
        _guard(review, kind, seen, reason)
        reason = stored(reason.strip())
        value = _value(review, kind, value)
        commands.decide(
            review.run_id, review.position, kind, by=actor.get_username(), fingerprint=seen, value=value, reason=reason
        )
        return _record(review, actor, kind, value, reason)


def _locked(review_id: int) -> Review:
    """Run first, then review: the same order everywhere, so that no two lock each other out."""
    Run.objects.select_for_update(of=("self",)).only("pk").filter(reviews__pk=review_id).first()
    return Review.objects.select_for_update().get(pk=review_id)


def _guard(review: Review, kind: str, seen: str, reason: str) -> None:
    if not review.is_open:
        raise Conflict(review)
    if kind not in review.allowed:
        raise commands.Refused(f"This review cannot be decided with {kind!r}. It allows: {', '.join(review.allowed)}.")
    if seen != review.fingerprint:
        raise Stale(Stale.__doc__)
    if kind == Decision.Kind.REJECT and not reason.strip():
        raise commands.Refused("A rejection needs a reason: the supervisor and the run's history carry it.")


def _value(review: Review, kind: str, value: Any) -> Any:
    if kind == Decision.Kind.RAISE:
        return commands.raised(review.proposal, value)
    return stored(commands.check_value(review.worker, review.subject, value)) if kind in CARRIES_VALUE else None


def _record(review: Review, actor: User, kind: str, value: Any, reason: str) -> Decision:
    now = timezone.now()
    review.state, review.closed_at = Review.State.DECIDED, now
    review.save(update_fields=["state", "closed_at"])
    Claim.objects.filter(review=review).delete()
    live.nudge(review.pk)
    return Decision.objects.create(
        review=review, actor=actor, kind=kind, value=value, reason=reason, seen_fingerprint=review.fingerprint, decided_at=now
    )
