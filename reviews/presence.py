"""Who has a review open now; a page that is open says so every 20 seconds."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.core.signing import BadSignature, Signer
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from reviews import live
from reviews.models import Presence, Review

SIGNER = Signer(salt="reviews.opened")
LIFE = timedelta(seconds=45)  # two beats may get lost
KEPT_FOR, MOST_AT_ONCE = timedelta(days=1), 1000  # of closed reviews, each minute

ARRIVE = """
    INSERT INTO reviews_presence (review_id, reviewer_id, seen_at) VALUES (%s, %s, statement_timestamp())
    ON CONFLICT (review_id, reviewer_id) DO UPDATE SET seen_at = excluded.seen_at
"""


def beat(review_id: int, reviewer: User) -> None:
    """The reviewer has the review open; others are told when that is new."""
    here = Presence.objects.filter(review=review_id, reviewer=reviewer)
    if here.filter(seen_at__gt=Now() - LIFE).update(seen_at=Now()):
        return
    with connection.cursor() as cursor:
        cursor.execute(ARRIVE, [review_id, reviewer.pk])
    live.nudge_who(review_id)


def leave(review_id: int, reviewer: User) -> None:
    """The page was left."""
    here = Presence.objects.filter(review=review_id, reviewer=reviewer, seen_at__isnull=False)
    if here.update(seen_at=None):
        live.nudge_who(review_id)


def others(review_ids: Collection[int], reviewer: User) -> dict[int, list[str]]:
    """Review -> who else is looking at it, of those that somebody looks at; one question for a whole list."""
    here = Presence.objects.filter(review__in=review_ids, seen_at__gt=Now() - LIFE, reviewer__is_active=True)
    looking = here.exclude(reviewer=reviewer).order_by("reviewer__username").values_list("review", "reviewer__username")
    found: dict[int, list[str]] = defaultdict(list)
    for review_id, name in looking:
        found[review_id].append(name)
    return dict(found)


def signed_now(review_id: int, reviewer: User) -> str:
    """Since when a page is open, for its forms: who decides before it has said so, or without scripts, had it open as well."""
    return SIGNER.sign_object([review_id, reviewer.pk, timezone.now().isoformat()])


def signed_at(text: str, review_id: int, reviewer: User) -> datetime | None:
    """What signed_now() said of this review to this reviewer."""
    try:
        number, person, at = SIGNER.unsign_object(text)
    except BadSignature:
        return None
    return datetime.fromisoformat(at) if (number, person) == (review_id, reviewer.pk) else None


def prune() -> None:
    """Who looked at what is closed by now is forgotten: a decision has kept since when its reviewer had it open."""
    old = Presence.objects.filter(since__lt=Now() - KEPT_FOR).exclude(review__state=Review.State.OPEN)
    Presence.objects.filter(pk__in=old.values("pk")[:MOST_AT_ONCE]).delete()
