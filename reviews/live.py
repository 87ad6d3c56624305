"""Tells open inboxes that a review was opened, claimed or closed: a number, never content."""

from django.db import transaction

from runs import live


def nudge(review_id: int) -> None:
    """After the current transaction, say "look at review `review_id` again"."""
    transaction.on_commit(lambda: live.send(live.INBOX, {"type": "changed", "review": review_id}, about=review_id))
