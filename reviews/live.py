"""Tells open inboxes which reviews were opened, claimed or closed: numbers, never content."""

from django.db import transaction

from runs import live


def nudge(review_id: int) -> None:
    """After the current transaction, say "look at review `review_id` again"."""
    transaction.on_commit(lambda: live.send(live.INBOX, {"type": "changed", "reviews": [review_id]}, about="reviews"))
