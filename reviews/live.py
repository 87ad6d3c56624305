"""Tells open inboxes which reviews were opened, claimed or closed: numbers, never content."""

from django.db import transaction

from runs import live


def nudge(review_id: int, what: str = "") -> None:
    """After the current transaction, say "look at review `review_id` again"; or `what`: the state in which it ended, or WHO."""
    message = {"type": "changed", "reviews": {str(review_id): what}}
    transaction.on_commit(lambda: live.send(live.INBOX, message, about="reviews"))


def nudge_who(review_id: int) -> None:
    """The same, where only who is at it has changed: most pages do not show that review."""
    nudge(review_id, live.WHO)
