"""Opens a review when a step is escalated and closes it when its run is cancelled, in the same transaction; lends claims."""

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.dispatch import receiver

from reviews import live
from reviews.models import Claim, Review, Risk
from runs import commands, signals
from runs.engine.canonical import digest
from runs.engine.events import Fact, Kind
from runs.engine.state import StepState

CLAIM_FOR = timedelta(minutes=5)


@receiver(signals.escalated)
def open_review(*, run_id: int, agent: str, step: StepState, fact: Fact, **kwargs: object) -> None:
    """Put the question of this step to people."""
    data = fact.data
    review = Review.objects.create(
        run_id=run_id,
        position=step.position,
        agent=agent,
        step_name=step.name,
        worker=step.worker,
        title=step.title,
        cause=data["cause"],
        subject=data["subject"],
        proposal=data["proposal"],
        schema=data["schema"],
        allowed=data["allowed"],
        why=data["why"],
        confidence=data.get("confidence"),
        threshold=data.get("threshold"),
        fingerprint=commands.seen(step),
        same=digest(step.worker, data["cause"], data["subject"], data["proposal"]),
        effect=step.effect,
        risk=data.get("risk", Risk.NORMAL),
        rule=data.get("rule", ""),
        approvals=data.get("approvals", 1),
        default=data.get("default", ""),
        due_at=step.deadline,
        opened_at=fact.at,
    )
    live.nudge(review.pk)


@receiver(signals.withdrawn)
def close_reviews(*, run_id: int, fact: Fact, **kwargs: object) -> None:
    """The time ran out, or the run ended: nobody need answer any more, about that step or about any."""
    state = Review.State.EXPIRED if fact.kind == Kind.STEP_EXPIRED else Review.State.CANCELLED
    reviews = Review.objects.open().filter(run_id=run_id)
    reviews = reviews if fact.step is None else reviews.filter(position=fact.step)
    for review in reviews.select_for_update():
        review.state, review.closed_at = state, fact.at
        review.save(update_fields=["state", "closed_at"])
        live.nudge(review.pk)


def claim(review: Review, reviewer: User, *, now: datetime) -> Claim | None:
    """Lend the review to the reviewer for five minutes; None while somebody else holds it."""
    with transaction.atomic():
        row = Review.objects.select_for_update().get(pk=review.pk)
        held = Claim.objects.filter(review=row).first()
        if not row.is_open or (held and held.reviewer_id != reviewer.pk and held.until > now):
            return None
        terms = {"reviewer": reviewer, "until": now + CLAIM_FOR}
        lent, _ = Claim.objects.update_or_create(review=row, defaults=terms)
        live.nudge(row.pk)
    return lent


def release(review: Review, reviewer: User) -> None:
    """Give the review back; somebody else's claim stays."""
    deleted, _ = Claim.objects.filter(review=review, reviewer=reviewer).delete()
    if deleted:
        live.nudge(review.pk)
