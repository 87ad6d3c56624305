"""What the bar and the history on the page of a review ask for."""

from django import template
from django.contrib.auth.models import User
from django.utils import timezone

from reviews import assignments, history
from reviews.models import NoticeSettings, Review

register = template.Library()


@register.simple_tag
def snooze_times(review: Review, person: User) -> list[tuple[str, str]]:
    """Name and words of the times that are offered, all before the review must be decided."""
    offered = assignments.later(NoticeSettings.of(person), timezone.now())
    return [(name, words) for name, words, at in offered if not review.due_at or at < review.due_at]


@register.simple_tag
def history_lines(review: Review) -> list[history.Line]:
    return history.lines(review)
