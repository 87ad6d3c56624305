"""The words of a message: which reviews, why, by when, and where; never what they are about in particular."""

from collections.abc import Sequence

from django.conf import settings
from django.urls import reverse

from reviews.listing import agent_title
from reviews.models import Notice, Pace, Review

LINES = 20


def subject(notices: Sequence[Notice]) -> str:
    """Such as "3 reviews wait for a decision, 1 with little time"."""
    pressing = len({one.review_id for one in notices if one.kind in (Notice.Kind.HALF, Notice.Kind.LAST)})
    count = len({one.review_id for one in notices})
    waits = "1 review waits" if count == 1 else f"{count} reviews wait"
    return f"{waits} for a decision" + (f", {pressing} with little time" if pressing else "")


def text(notices: Sequence[Notice], pace: Pace) -> str:
    """A line or two for each review, the pressing ones as they came; the rest is counted."""
    shown = [_lines(one, pace) for one in notices[:LINES]]
    more = [f"And {len(notices) - LINES} more: {_address(reverse('inbox'))}"] if len(notices) > LINES else []
    end = f"What you are told, and when, is set on {_address(reverse('notices'))}"
    return "\n\n".join([*shown, *more, end]) + "\n"


def _lines(notice: Notice, pace: Pace) -> str:
    review = notice.review
    said = f"{notice.get_kind_display()}: {agent_title(review.agent)}, {_plain(review.title)} ({review.get_cause_display()})"
    return f"{said}{_due(review, pace)}\n{_address(review.get_absolute_url())}"


def _due(review: Review, pace: Pace) -> str:
    return f", decide by {pace.local(review.due_at):%Y-%m-%d %H:%M} ({pace.zone})" if review.due_at else ""


def _plain(title: str) -> str:
    """On one line, so that a title looks like nothing else."""
    return " ".join(title.split())


def _address(path: str) -> str:
    return f"{settings.PUBLIC_URL.rstrip('/')}{path}"
