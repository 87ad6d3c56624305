"""The words of a message: which reviews, why, by when, and where; never what they are about in particular."""

from collections.abc import Sequence

from django.conf import settings
from django.urls import reverse

from reviews.listing import agent_title
from reviews.models import Notice, Pace, Review
from reviews.notices import Line, folded
from runs.models.content import title as declared

LINES = 20


def subject(notices: Sequence[Notice]) -> str:
    """Such as "3 reviews wait for a decision, 1 with little time"."""
    pressing = len({one.review_id for one in notices if one.kind in (Notice.Kind.HALF, Notice.Kind.LAST)})
    count = len({one.review_id for one in notices})
    waits = "1 review waits" if count == 1 else f"{count} reviews wait"
    return f"{waits} for a decision" + (f", {pressing} with little time" if pressing else "")


def text(notices: Sequence[Notice], pace: Pace) -> str:
    """A line or two for each review, the pressing ones as they came; those of a flood, and the rest, are counted."""
    lines = folded(notices)
    shown = [_lines(one, pace) for one in lines[:LINES]]
    left = sum(one.more or 1 for one in lines[LINES:])
    more = [f"And {left} more: {_address(reverse('inbox'))}"] if left else []
    end = f"What you are told, and when, is set on {_address(reverse('notices'))}"
    return "\n\n".join([*shown, *more, end]) + "\n"


def _lines(line: Line, pace: Pace) -> str:
    notice, review = line.notice, line.notice.review
    agent = agent_title(review.agent)
    if line.more:
        return f"{notice.get_kind_display()}: {line.more} more of {agent}\n{_address(line.address)}"
    said = f"{notice.get_kind_display()}: {agent}, {_plain(review.title)} ({review.get_cause_display()})"
    return f"{said}{_due(review, pace)}\n{_address(line.address)}"


def _due(review: Review, pace: Pace) -> str:
    return f", decide by {pace.local(review.due_at):%Y-%m-%d %H:%M} ({pace.zone})" if review.due_at else ""


def _plain(title: str) -> str:
    """On one line, so that a title looks like nothing else; a message does not ask who reads it, so it is of the code alone."""
    return " ".join(declared(title).split())


def _address(path: str) -> str:
    return f"{settings.PUBLIC_URL.rstrip('/')}{path}"
