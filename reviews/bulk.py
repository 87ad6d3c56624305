"""Many reviews decided together: each by decide(), with what came of it."""

from collections.abc import Iterable
from contextlib import suppress

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone
from pydantic import ValidationError

from reviews import decisions
from reviews.models import BulkDecision, BulkItem, Decision, Review
from reviews.selection import KINDS, why_not
from runs import commands, dispatch, live
from runs.engine.canonical import Unstorable, clean
from runs.sealed import Seen

logger = structlog.get_logger()
AT_ONCE = 50  # while the browser waits; more are carried out by a job process
JOB = "reviews.bulk.carry"
SECONDS_EACH = 0.3  # the first can be taken back for longer than the last, so that all can be taken back together
Outcome = BulkItem.Outcome


def begin(seen: Seen, *, actor: User, kind: str, reason: str, tag: str = "", without: Iterable[int] = ()) -> BulkDecision:
    """Record what is to be decided, and have it carried out. What was sent twice is begun once.

    Raises commands.Refused where nothing is left or the decision is none for many.
    """
    left_out = set(without)
    kept = [(pk, fingerprint) for pk, fingerprint in seen.shown if pk not in left_out]
    if kind not in KINDS:
        raise commands.Refused(f"Many reviews cannot be decided with {kind!r} together. Choose one of the decisions of the page.")
    if not kept:
        raise commands.Refused("You have left out every review, so there is nothing to decide.")
    told = {"actor": actor, "kind": kind, "reason": reason, "tag": tag, "previewed_at": seen.at, "begun_at": timezone.now()}
    with transaction.atomic():
        bulk, new = BulkDecision.objects.get_or_create(pk=seen.id, defaults=told)
        if new:
            BulkItem.objects.bulk_create(BulkItem(bulk=bulk, review_id=pk, seen=fingerprint) for pk, fingerprint in kept)
    if new:
        go_on(bulk)
    return bulk


def go_on(bulk: BulkDecision) -> None:
    """At once where it is soon done, else in a job process."""
    if bulk.left > AT_ONCE:
        dispatch.ask(JOB, str(bulk.pk))
    else:
        carry(str(bulk.pk))


def take_up() -> None:
    """Have a job process go on with each that is left lying."""
    for one in BulkDecision.objects.left_lying():
        dispatch.ask(JOB, str(one.pk))


def carry(bulk_id: str) -> None:
    """Decide what is left of it. Two who carry the same do no harm: each review is decided once."""
    bulk = BulkDecision.objects.get(pk=bulk_id)
    left = list(bulk.items.filter(outcome="").order_by("pk").values_list("pk", flat=True))
    for place, item_id in enumerate(left):
        if item := bulk.items.filter(pk=item_id, outcome="").first():
            window = settings.UNDO_SECONDS
            _carry(bulk, item, undo_seconds=window and window + (len(left) - place) * SECONDS_EACH)
    live.flush()


def _carry(bulk: BulkDecision, item: BulkItem, *, undo_seconds: float) -> None:
    outcome, said = _carried(bulk, item, undo_seconds)
    kept = BulkItem.objects.filter(pk=item.pk, outcome="").update(outcome=outcome, said=said, at=timezone.now())
    if not kept and outcome == Outcome.DECIDED and BulkItem.objects.filter(pk=item.pk, outcome=Outcome.UNDONE).exists():
        _undo_late(bulk, item)


def _undo_late(bulk: BulkDecision, item: BulkItem) -> None:
    """It was taken back at the very moment at which it was decided; where that is too late, it says so."""
    try:
        decisions.undo(item.review_id, actor=bulk.actor)
    except (commands.Refused, PermissionDenied) as refused:
        if Decision.objects.filter(review=item.review_id, bulk=bulk.pk, revoked_at=None).exists():
            BulkItem.objects.filter(pk=item.pk).update(outcome=Outcome.DECIDED, said=str(refused), at=timezone.now())


def _carried(bulk: BulkDecision, item: BulkItem, undo_seconds: float) -> tuple[str, str]:
    """What came of it; its actor is asked for anew, who may have lost the right meanwhile."""
    actor = User.objects.get(pk=bulk.actor_id)
    review = Review.objects.with_people().get(pk=item.review_id)
    if review.is_open and (why := why_not(review, actor)):
        return Outcome.REFUSED, why
    try:
        decisions.decide(
            review.pk, actor=actor, kind=bulk.kind, seen=item.seen, reason=bulk.reason, tag=bulk.tag,
            undo_seconds=undo_seconds, channel="bulk", bulk=bulk.pk,
        )  # fmt: skip
    except decisions.Conflict as conflict:
        return _after_another(bulk, conflict.review)
    except decisions.Stale as stale:
        return Outcome.CHANGED, str(stale)
    except PermissionDenied:
        return Outcome.REFUSED, "You may not decide reviews any more."
    except (commands.Refused, ValidationError, Unstorable) as refused:
        return Outcome.REFUSED, str(refused)
    except Exception as error:
        if not connection.is_usable():  # the database is away, not this review
            raise
        logger.exception("bulk_item_failed", review=review.pk, bulk=str(bulk.pk))
        return Outcome.REFUSED, clean(f"It could not be decided: {type(error).__name__}: {error}", 500)
    return Outcome.DECIDED, ""


def _after_another(bulk: BulkDecision, review: Review) -> tuple[str, str]:
    """Who was first: perhaps this very decision, whose process ended before it said so."""
    first = review.decision
    if first is None:
        return Outcome.TOO_LATE, "Its run has ended, or its time ran out."
    if first.bulk == bulk.pk:
        return Outcome.DECIDED, ""
    return Outcome.TOO_LATE, f"{first.actor} decided “{first.get_kind_display()}” at {first.decided_at:%H:%M:%S} UTC."


def undo(bulk: BulkDecision, *, actor: User) -> tuple[int, int]:
    """Take back what is not carried out yet, and leave the rest of it undecided; how many were taken back, and how many left."""
    undone = {"outcome": Outcome.UNDONE, "at": timezone.now()}
    left = bulk.items.untouched().update(**undone)
    bulk.items.filter(outcome="").update(**undone)
    taken = Decision.objects.filter(bulk=bulk.pk, revoked_at=None, effective_at__gt=Now())
    count = 0
    for review_id in list(taken.order_by("effective_at").values_list("review", flat=True)):
        with suppress(commands.Refused):  # its time ran out meanwhile: it stays decided
            decisions.undo(review_id, actor=actor)
            count += 1
    return count, left


dispatch.OFFERED[JOB] = carry
