"""The only way a review is decided, and a decision taken back: for the page, the API, bulk and timeouts."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.urls import reverse
from django.utils import timezone

from reviews import drafts, live
from reviews.eligibility import Eligibility, NotYours, lets_go_on, needs_reason
from reviews.models import BulkDecision, BulkItem, Cause, Decision, Review
from runs import access, commands, pen
from runs.engine.canonical import digest, dumps, stored

__all__ = ["Conflict", "NotYours", "Stale", "Unchanged", "Undoable", "decide", "pending", "seen", "undo", "undoable"]

Kind = Decision.Kind
LONGER = timedelta(minutes=5)  # the first of a bulk can be taken back for longer than the last, and clocks differ
CARRIES_VALUE = Decision.CARRIES_VALUE
NEEDS_REASON = {
    Kind.REJECT: "A rejection needs a reason: the supervisor and the run's history carry it.",
    Kind.SEND_BACK: "Say what is to be changed: whoever sends a result back says why.",
}


class Conflict(Exception):
    """Somebody else was first, or the run has ended; `review` says who decided what and when."""

    def __init__(self, review: Review) -> None:
        super().__init__(f"Review {review.pk} is no longer open.")
        self.review = review


class Stale(commands.Refused):
    """What is proposed has changed since you looked. Read it again, then decide."""


class Unchanged(commands.Refused):
    """Nothing is changed, so this is no edit: approve it instead, or change something."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody wants to decide, in the form in which it is kept."""

    actor: User
    kind: str
    seen: str
    value: Any = None
    reason: str = ""
    tag: str = ""
    channel: str = "page"
    bulk: UUID | None = None
    opened_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Undoable:
    """What one act takes back: a decision, or of a bulk all that is not carried out yet; until then, every one of them.

    `count` has those of a bulk that nobody has come to yet: they are not decided then.
    `is_earlier`: this person has decided or taken back something else since.
    """

    last: Decision
    until: datetime | None
    count: int = 1
    bulk: UUID | None = None
    is_earlier: bool = False

    @property
    def url(self) -> str:
        return reverse("undo_bulk", args=[self.bulk]) if self.bulk else reverse("undo_review", args=[self.last.review_id])


def decide(
    review_id: int, *, actor: User, kind: str, seen: str, value: Any = None, reason: str = "", tag: str = "",
    undo_seconds: float = 0.0, channel: str = "page", bulk: UUID | None = None,
    opened_at: datetime | None = None, barred: str = "",
) -> Decision:  # fmt: skip
    """Record the decision and let the run go on, in one transaction that locks the run, then the review.

    `seen` is the fingerprint of what the person saw (see `seen`), `value` the edited or answered JSON value, `tag` the
    class of the reason. The run goes on after `undo_seconds`; until then `undo` takes the decision back. `opened_at` says
    since when the person had it open, where no page has (see `presence`). Where two people must approve, the first approval
    is recorded and the review stays open. The same once more answers as the first did. `barred` is why this person could not
    take it a moment ago, when nothing else was asked of them: it holds, though they may by now.

    Raises Conflict when the review is no longer open, Stale when what was seen has changed, NotYours when this person may
    not take it, commands.Refused when the decision is not allowed or lacks its reason, Unchanged for an edit that is none,
    PermissionDenied, Review.DoesNotExist, Unstorable, and pydantic's ValidationError for a value that does not fit.
    """
    if not access.may_decide(actor):
        raise PermissionDenied
    with commands.certain():
        review = _locked(review_id)
        first = pending(review) if review.approvals > 1 else None
        answer = Answer(actor, kind, seen, value, stored(reason.strip()), tag, channel, bulk, opened_at)
        if before := _the_same(review, first, answer):
            before.is_repeated = True
            return before
        _guard(review, first, answer)
        if barred:
            raise NotYours(barred)
        if review.approvals > 1:
            earlier = review.decisions.filter(final=False)
            _take_back(earlier.exclude(pk=first.pk) if first else earlier, by=None)
        answer = replace(answer, value=_value(review, kind, value))
        if kind == Kind.EDIT and dumps(answer.value) == dumps(review.proposal):
            answer = _not_edited(review, first, answer)
        if review.approvals > 1 and lets_go_on(review, kind) and not (first and kind == Kind.APPROVE):
            return _first_of_two(review, first, answer)
        return _final(review, first, answer, undo_seconds)


def pending(review: Review) -> Decision | None:
    """The first of two approvals, while the second is awaited, and whoever gave it may still give it."""
    first = review.decisions.filter(final=False, revoked_at=None).select_related("actor").order_by("pk").last()
    if first is None or not access.may_decide(first.actor) or Eligibility(review, first.actor).why_not_by_role(first.kind):
        return None
    return first


def seen(review: Review, first: Decision | None = None) -> str:
    """Fingerprint of what a person sees who decides now: the question, and what the first of two has made of it."""
    return digest(review.fingerprint, first.kind, first.value) if first else review.fingerprint


def undo(review_id: int, *, actor: User) -> Review:
    """Take a decision back that is not carried out yet, or the first of two approvals: the review is open as it was.

    Raises NotYours for somebody else's, and commands.Refused when it is too late.
    """
    if not access.may_decide(actor):
        raise PermissionDenied
    with commands.certain():
        review = _locked(review_id)
        decision = review.decision or pending(review)
        if decision is None:
            raise commands.Refused(f"There is no decision about review {review_id} that could be taken back.")
        if decision.actor_id != actor.pk and not access.may_configure(actor):
            raise NotYours(f"{decision.actor} decided this: only they, or an admin, can take it back.")
        if decision.final:
            _revoke(review, decision, actor)
            review.state, review.closed_at = Review.State.OPEN, None
            review.save(update_fields=["state", "closed_at"])
        _take_back(Decision.objects.filter(pk=decision.pk), by=actor)
        if decision.bulk:
            undone = {"outcome": BulkItem.Outcome.UNDONE, "at": timezone.now()}
            BulkItem.objects.filter(bulk=decision.bulk, review=review).update(**undone)
        drafts.bring_back(decision)
        live.nudge(review.pk)
        return review


def undoable(actor: User) -> Undoable | None:
    """This person's last decision, while it can be taken back, with all that was decided together with it.

    A bulk was decided when it was begun, however late a job process comes to each of it. Every page of the inbox asks: what
    is older is not looked at.
    """
    since = Now() - timedelta(seconds=settings.UNDO_SECONDS) - LONGER
    begun = BulkDecision.objects.filter(pk=OuterRef("bulk")).values("begun_at")
    mine = Decision.objects.filter(actor=actor, decided_at__gt=since).annotate(acted_at=Coalesce(Subquery(begun), "decided_at"))
    waits = mine.filter(revoked_at=None, final=True, effective_at__gt=Now())
    newer = Q(acted_at__gt=OuterRef("acted_at")) | Q(revoked_at__gt=OuterRef("acted_at"))
    found = waits.annotate(is_earlier=Exists(mine.filter(newer))).select_related("review")
    last = found.order_by("-decided_at", "-pk").first()
    if last and last.bulk:  # what was decided while it goes on is newer than it
        last = found.order_by("-acted_at", "-pk").first()
    if last is None:
        return None
    if last.bulk is None:
        return Undoable(last, last.effective_at, is_earlier=last.is_earlier)
    together = waits.filter(bulk=last.bulk).aggregate(count=Count("pk"), until=Min("effective_at"))
    if not together["count"]:
        return None
    together["count"] += BulkItem.objects.filter(bulk=last.bulk).untouched().count()
    return Undoable(last, bulk=last.bulk, is_earlier=last.is_earlier, **together)


# --- parts --------------------------------------------------------------------------------------------------------


def _locked(review_id: int) -> Review:
    """The run first, then the review: the same order everywhere, so that no two lock each other out.

    While the run's row is locked nobody opens, decides or closes its reviews, or goes on with it.
    """
    for review in Review.objects.raw(LOCK, [review_id]):
        return review
    raise Review.DoesNotExist(f"There is no review {review_id}.")


LOCK = """
    SELECT review.* FROM reviews_review AS review JOIN runs_run AS run ON run.id = review.run_id
    WHERE review.id = %s FOR UPDATE OF run, review
"""


def _value(review: Review, kind: str, value: Any) -> Any:
    if kind == Kind.RAISE:
        return commands.raised(review.proposal, value)
    if kind not in CARRIES_VALUE:
        return None
    return stored(commands.check_value(review.worker, commands.value_of(kind, review.subject), value))


def _not_edited(review: Review, first: Decision | None, answer: Answer) -> Answer:
    """Nobody has corrected what stayed as it was; but what the first of two had edited can be put back so."""
    if review.cause == Cause.SAMPLE:
        raise Unchanged("Nothing is changed, so this corrects nothing: say that it was right instead, or change something.")
    if first is None or first.kind == Kind.APPROVE:
        raise Unchanged(Unchanged.__doc__)
    return replace(answer, kind=Kind.APPROVE, value=None)


def _the_same(review: Review, first: Decision | None, answer: Answer) -> Decision | None:
    """What this person has decided already: a second click, another tab, a page that was sent again."""
    mine = first if review.is_open else review.decision
    if mine is None or mine.actor_id != answer.actor.pk or mine.seen_fingerprint != answer.seen:
        return None
    if answer.kind not in CARRIES_VALUE:
        return mine if mine.kind == answer.kind else None
    is_put_back = mine.kind == Kind.APPROVE and answer.kind == Kind.EDIT
    if answer.value is None or (mine.kind != answer.kind and not is_put_back):
        return None
    recorded = review.proposal if is_put_back else mine.value
    return mine if dumps(_value(review, answer.kind, answer.value)) == dumps(recorded) else None


def _guard(review: Review, first: Decision | None, answer: Answer) -> None:
    kind = answer.kind
    if not review.is_open:
        raise Conflict(review)
    if kind not in review.allowed and not (first and kind == Kind.APPROVE):
        raise commands.Refused(f"This review cannot be decided with {kind!r}. It allows: {', '.join(review.allowed)}.")
    if answer.seen != seen(review, first):
        raise Stale(Stale.__doc__)
    if why_not := Eligibility(review, answer.actor).why_not(kind):
        raise NotYours(why_not)
    if first and first.actor_id == answer.actor.pk and kind == Kind.APPROVE:
        raise NotYours("You have approved it already: the second approval must be somebody else's.")
    if kind in NEEDS_REASON and not answer.reason:
        raise commands.Refused(NEEDS_REASON[Kind(kind)])
    if needs_reason(review, kind) and not answer.reason:
        raise commands.Refused("The risk is high: say why you decide so.")
    if answer.tag and answer.tag not in Decision.Tag:
        raise commands.Refused(f"Unknown class of reason {answer.tag!r}. Choose one of: {', '.join(Decision.Tag.values)}.")


def _first_of_two(review: Review, earlier: Decision | None, answer: Answer) -> Decision:
    """It waits for the second; what somebody edits anew takes the place of what was approved before."""
    if earlier:
        _take_back(Decision.objects.filter(pk=earlier.pk), by=answer.actor)
    decision = _record(review, answer, final=False)
    live.nudge(review.pk)
    return decision


def _final(review: Review, first: Decision | None, answer: Answer, undo_seconds: float) -> Decision:
    agreed = first if first and answer.kind == Kind.APPROVE else None
    kind, value = (agreed.kind, agreed.value) if agreed else (answer.kind, answer.value)
    if review.cause == Cause.SAMPLE:  # the run went on long ago
        until = commands.effective_at(undo_seconds)
    else:
        until = commands.decide(
            review.run_id, review.position, kind, by=answer.actor.get_username(), fingerprint=review.fingerprint, value=value,
            reason=answer.reason, tag=answer.tag, agreed=[agreed.actor.get_username()] if agreed else [],
            undo_seconds=undo_seconds, is_locked=True,
        )  # fmt: skip
    if first and first.actor_id == answer.actor.pk:  # who approved it thinks otherwise now
        _take_back(Decision.objects.filter(pk=first.pk), by=answer.actor)
    decision = _record(review, replace(answer, value=value), effective_at=until)
    live.nudge(review.pk, Review.State.DECIDED)
    return decision


def _record(review: Review, answer: Answer, *, final: bool = True, effective_at: datetime | None = None) -> Decision:
    """In one statement: the decision; its actor's draft and claim are gone; and where it is final the review is closed."""
    said: dict[str, Any] = {"kind": answer.kind, "reason": answer.reason, "tag": answer.tag, "seen_fingerprint": answer.seen}
    said |= {"channel": answer.channel, "bulk": answer.bulk}
    said |= {"decided_at": timezone.now(), "effective_at": effective_at, "final": final}
    ids = {"review_id": review.pk, "actor_id": answer.actor.pk, "opened_at": answer.opened_at}
    value = None if answer.value is None else dumps(answer.value)
    ((number, opened_at),) = pen.execute(RECORD, said | ids | {"value": value})
    made = Decision(pk=number, review=review, actor=answer.actor, value=answer.value, opened_at=opened_at, **said)
    made._state.adding = False
    return made


RECORD = """
WITH draft AS (
  DELETE FROM reviews_draft WHERE review_id = %(review_id)s AND reviewer_id = %(actor_id)s
), claim AS (
  DELETE FROM reviews_claim WHERE review_id = %(review_id)s AND (%(final)s OR reviewer_id = %(actor_id)s)
), closed AS (
  UPDATE reviews_review SET state = 'decided', closed_at = %(decided_at)s WHERE id = %(review_id)s AND %(final)s
)
INSERT INTO reviews_decision (review_id, actor_id, kind, value, reason, tag, seen_fingerprint, decided_at, opened_at, final,
  effective_at, channel, bulk)
VALUES (%(review_id)s, %(actor_id)s, %(kind)s, %(value)s::jsonb, %(reason)s, %(tag)s, %(seen_fingerprint)s, %(decided_at)s,
  coalesce((SELECT since FROM reviews_presence WHERE review_id = %(review_id)s AND reviewer_id = %(actor_id)s), %(opened_at)s),
  %(final)s, %(effective_at)s, %(channel)s, %(bulk)s)
RETURNING id, opened_at
"""


def _take_back(decided: QuerySet[Decision], *, by: User | None) -> None:
    """`by` is None where nobody did it: who had approved it may not do so any more."""
    decided.filter(revoked_at=None).update(revoked_at=timezone.now(), revoked_by=by)


def _revoke(review: Review, decision: Decision, actor: User) -> None:
    if review.cause != Cause.SAMPLE:
        commands.revoke(review.run_id, review.position, by=actor.get_username(), is_locked=True)
    elif decision.effective_at is None or decision.effective_at <= timezone.now():
        raise commands.Refused("The time to take it back is over.")
