"""What comes due in the inbox without anybody's doing, looked for at each sweep."""

from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.db.models.functions import Now
from django.dispatch import receiver

from reviews import bulk, delivery, drafts, groups, live, notices, presence
from reviews.models import Claim, Review, ReviewEvent
from runs import dispatch, signals

BATCH = 100
SETTLE_SECONDS = 60
ASKED_SECONDS = 5  # between two calls to send what waits: one call sends it all

REMOVED = "may no longer decide reviews"

# one question, answered from partial indexes, where nothing is due
DUE = """
    SELECT
        EXISTS (SELECT FROM reviews_review WHERE state = 'open' AND tell_at <= now()),
        EXISTS (SELECT FROM reviews_review WHERE state = 'open' AND escalated_at IS NULL AND escalate_at <= now()),
        EXISTS (SELECT FROM reviews_claim WHERE until > now())
            OR EXISTS (SELECT FROM reviews_review WHERE state = 'open' AND assignee_id IS NOT NULL),
        EXISTS (SELECT FROM reviews_notice WHERE delivery = 'waits'),
        EXISTS (SELECT FROM reviews_bulkitem WHERE outcome = '')
"""


@receiver(signals.swept)
def sweep(**kwargs: object) -> None:
    """Tell, escalate, take claims back from whoever may no longer decide, and have done what waits for a job process."""
    with connection.cursor() as cursor:
        cursor.execute(DUE)
        telling, escalating, held, sending, bulks = cursor.fetchone()
    if telling:
        notices.tell_due()
    if escalating:
        notices.escalate_due()
    if held:
        take_back()
    if cache.add("agentops:settled", 1, timeout=SETTLE_SECONDS):
        notices.settle()
        for kept in (notices, presence, drafts):
            kept.prune()
    if sending and cache.add("agentops:notices", 1, timeout=ASKED_SECONDS):
        dispatch.ask(delivery.JOB)
    if bulks:
        bulk.take_up()


def take_back() -> None:
    """Whoever was removed, or lost the role, holds nothing any more: the database says who may decide."""
    claims = Claim.objects.filter(until__gt=Now()).exclude(reviewer__in=groups.deciders())
    assigned = Review.objects.open().filter(assignee__isnull=False).exclude(assignee__in=groups.deciders())
    ids = [*claims.values_list("review", flat=True)[:BATCH], *assigned.values_list("pk", flat=True)[:BATCH]]
    for review_id in dict.fromkeys(ids):
        with transaction.atomic():
            found = Review.objects.open().filter(pk=review_id).select_related("assignee")
            for review in found.select_for_update(skip_locked=True, of=("self",)):
                for claim in claims.filter(review=review).select_related("reviewer"):
                    claim.delete()
                    _say(review, ReviewEvent.Kind.RELEASED, claim.reviewer)
                if review.assignee and assigned.filter(pk=review.pk).exists():
                    _say(review, ReviewEvent.Kind.REASSIGNED, review.assignee)
                    review.assignee = None
                    review.save(update_fields=["assignee"])
                live.nudge(review.pk)


def _say(review: Review, kind: str, person: User) -> None:
    ReviewEvent.objects.create(review=review, kind=kind, about=person.get_username(), note=REMOVED)
