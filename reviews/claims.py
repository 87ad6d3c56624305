"""A claim is a lease on a review by the database's clock: courtesy to the others; safety is in decide()."""

import time
from datetime import timedelta

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Least, Now
from django.dispatch import receiver

from reviews import groups, live, notices
from reviews.eligibility import Eligibility, NotYours
from reviews.models import Claim, Notice, Review, ReviewEvent, ReviewQuerySet
from runs import commands
from runs.engine.canonical import stored

CLAIM_FOR = timedelta(minutes=5)
GRACE = timedelta(seconds=15)  # after a page was left: time to come back, as a page does that is loaded again
LAPSED = timedelta(minutes=1)  # a claim that ran out longer ago is not taken up again by a page that wakes
TRIES = 50  # as often somebody else may be quicker
WINDOWS = (100, 2000, None)  # so many of the first are looked at, for the index gives them in turn; then all
PAUSES_SECONDS = (0.03, 0.1, 0.3, 0.6, 1.0)  # before what is locked is looked at again

CLAIM = """
    INSERT INTO reviews_claim AS held (review_id, reviewer_id, until)
    SELECT id, %(reviewer)s, statement_timestamp() + make_interval(secs => %(seconds)s) FROM reviews_review
        WHERE id = %(review)s AND state = 'open' FOR SHARE
    ON CONFLICT (review_id) DO UPDATE SET reviewer_id = excluded.reviewer_id, until = excluded.until
        WHERE held.reviewer_id = excluded.reviewer_id OR held.until <= statement_timestamp()
"""


def claim(review_id: int, reviewer: User) -> bool:
    """Lend the review to the reviewer for five minutes; False while somebody else holds it, or when it is closed."""
    with transaction.atomic():
        mine = Claim.objects.filter(review=review_id, reviewer=reviewer, review__state=Review.State.OPEN)
        if mine.filter(until__gt=Now()).update(until=Now() + CLAIM_FOR):
            return True
        return _claim_anew(review_id, reviewer)


def _claim_anew(review_id: int, reviewer: User) -> bool:
    """The same in a transaction that there is already, where this reviewer does not hold it."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"review": review_id, "reviewer": reviewer.pk, "seconds": CLAIM_FOR.total_seconds()})
        if not cursor.rowcount:
            return False
    ReviewEvent.objects.create(review_id=review_id, actor=reviewer, kind=ReviewEvent.Kind.CLAIMED)
    live.nudge_who(review_id)
    return True


def claim_by_edit(review: Review, reviewer: User) -> None:
    """Whoever begins to write an answer is at it, unless somebody else is, or it is not theirs to answer."""
    if not Eligibility(review, reviewer).why_not():
        claim(review.pk, reviewer)


def take_over(review_id: int, reviewer: User, note: str) -> None:
    """Take it from whoever holds it, who is told why. Raises commands.Refused without a note, and when it is closed."""
    note = stored(note.strip())
    if not note:
        raise commands.Refused("Say why you take it over: whoever is at it reads that.")
    with transaction.atomic():
        review = open_for_change(review_id, reviewer)
        held = review.held()
        if held is None or held.reviewer_id == reviewer.pk:
            claim(review_id, reviewer)
            return
        Claim.objects.filter(review=review).update(reviewer=reviewer, until=Now() + CLAIM_FOR)
        _say(review, reviewer, ReviewEvent.Kind.TAKEN_OVER, about=held.reviewer.get_username(), note=note)
        notices.tell(held.reviewer, review, Notice.Kind.TAKEN_OVER)


def renew(review_id: int, reviewer: User) -> bool:
    """The page of whoever holds it is still open."""
    mine = Claim.objects.filter(review=review_id, reviewer=reviewer, until__gt=Now() - LAPSED)
    return bool(mine.update(until=Now() + CLAIM_FOR))


def leave(review_id: int, reviewer: User) -> None:
    """The page was left: others need not wait for the end of the lease."""
    Claim.objects.filter(review=review_id, reviewer=reviewer).update(until=Least(F("until"), Now() + GRACE))


@receiver(user_logged_out)
def leave_all(*, user: User | None, **kwargs: object) -> None:
    """The reviewer has signed out; a page that is still open elsewhere takes its claim up again."""
    Claim.objects.filter(reviewer=user).update(until=Least(F("until"), Now() + GRACE))


def release(review_id: int, reviewer: User) -> None:
    """Give the review back; somebody else's claim stays."""
    with transaction.atomic():
        _lock(review_id)
        if Claim.objects.filter(review=review_id, reviewer=reviewer).delete()[0]:
            ReviewEvent.objects.create(review_id=review_id, actor=reviewer, kind=ReviewEvent.Kind.RELEASED)
            live.nudge_who(review_id)


def next_one(reviews: ReviewQuerySet, reviewer: User) -> int | None:
    """Claim the first of the reviews, in their order, that is for this reviewer and that nobody has claimed.

    Whoever comes at the same moment passes over the row that is locked here, and gets the one after it. Where another's claim
    was written between the look and the lock, the claim is refused, and the next one is looked for. A row that is locked for
    another reason (the sweeper tells people of it) is still free: where only such are left, they are looked at again.
    """
    own_rules = groups.by_own_rules(reviewer.get_username())
    for pause in PAUSES_SECONDS:
        if (found := _next_unlocked(reviews, reviewer, own_rules)) is not None:
            return found
        if not groups.unclaimed(groups.asked(reviews, reviewer, own_rules)).exists():
            return None
        if not connection.in_atomic_block:
            connection.close()  # others need it meanwhile
        time.sleep(pause)
    return _next_unlocked(reviews, reviewer, own_rules)


def _next_unlocked(reviews: ReviewQuerySet, reviewer: User, own_rules: Q) -> int | None:
    mine = groups.of(reviewer)
    first = groups.offered(reviews, reviewer, mine).values("pk")
    for window in WINDOWS:
        near = reviews.filter(pk__in=first[:window]) if window else reviews
        free = groups.unclaimed(groups.asked(near, reviewer, own_rules, mine)).only("pk")
        if (found := _first_claimed(free.select_for_update(skip_locked=True, of=("self",)), reviewer)) is not None:
            return found
    return None


def _first_claimed(free: ReviewQuerySet, reviewer: User) -> int | None:
    for _ in range(TRIES):
        with transaction.atomic():
            found = free.first()
            if found is None:
                return None
            if _claim_anew(found.pk, reviewer):
                return found.pk
    return None


def _lock(review_id: int) -> None:
    """The review before its claim: the same order everywhere, so that no two lock each other out."""
    Review.objects.select_for_update().only("pk").get(pk=review_id)


def open_for_change(review_id: int, by: User) -> Review:
    """The review, locked. Raises commands.Refused when it is no longer open, and NotYours for whoever is not asked."""
    review = Review.objects.select_for_update(of=("self",)).select_related("group").get(pk=review_id)
    if not review.is_open:
        raise commands.Refused(f"Review {review_id} is no longer open, so nothing was changed.")
    if why_not := Eligibility(review, by).why_not():
        raise NotYours(why_not)
    return review


def _say(review: Review, actor: User, kind: str, *, about: str, note: str) -> None:
    ReviewEvent.objects.create(review=review, actor=actor, kind=kind, about=about, note=note)
    live.nudge_who(review.pk)
