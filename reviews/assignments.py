"""Whose a review is, and from when on it is looked at: assigned to a person, snoozed until a time."""

from datetime import datetime, time, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from reviews import groups, live, notices
from reviews.claims import open_for_change
from reviews.models import Claim, Notice, NoticeSettings, Pace, Review, ReviewEvent
from runs import commands
from runs.engine.canonical import stored

MORNING, AFTERNOON = time(9), time(16)
LONGEST_SNOOZE = timedelta(days=90)  # what sleeps for longer is forgotten


def reassign(review_id: int, to: User | None, *, by: User, note: str) -> Review:
    """Give it to a person, or with None back to everybody who is asked; whoever held it holds it no more."""
    if to and not groups.deciders().filter(pk=to.pk).exists():
        raise commands.Refused(f"{to} may not decide reviews, so nobody would. Choose somebody else.")
    with transaction.atomic():
        review = open_for_change(review_id, by)
        if to is None and review.assignee_id is None:
            raise commands.Refused("It is assigned to nobody. Choose a person.")
        review.assignee = to
        review.save(update_fields=["assignee"])
        Claim.objects.filter(review=review).delete()
        about = str(to) if to else "everybody who is asked"
        _say(review, by, ReviewEvent.Kind.REASSIGNED, about=about, note=stored(note.strip()))
        if to and to != by:
            notices.tell(to, review, Notice.Kind.ASSIGNED)
    return review


def snooze(review_id: int, until: datetime, *, by: User) -> Review:
    """Out of the list until then, and out of the hands of whoever snoozes it. Never beyond the time to decide."""
    with transaction.atomic():
        review, now = open_for_change(review_id, by), timezone.now()
        if until <= now:
            raise commands.Refused("That time has passed. Choose a later one.")
        if review.due_at and until >= review.due_at:
            raise commands.Refused(f"It must be decided by {_shown(review.due_at, by)}. Choose an earlier time.")
        if until - now > LONGEST_SNOOZE:
            raise commands.Refused(f"A review is snoozed for at most {LONGEST_SNOOZE.days} days. Choose an earlier time.")
        review.snoozed_until = until
        review.save(update_fields=["snoozed_until"])
        Claim.objects.filter(review=review, reviewer=by).delete()
        _say(review, by, ReviewEvent.Kind.SNOOZED, about=f"until {until:%Y-%m-%d %H:%M} UTC")
    return review


def wake(review_id: int, *, by: User) -> Review:
    """Back into the list now."""
    with transaction.atomic():
        review = open_for_change(review_id, by)
        if review.snoozed_until is None:
            raise commands.Refused("It is not snoozed.")
        review.snoozed_until = None
        review.save(update_fields=["snoozed_until"])
        _say(review, by, ReviewEvent.Kind.WOKEN)
    return review


def later(pace: Pace, now: datetime) -> list[tuple[str, str, datetime]]:
    """Times to snooze until, by the clock of the person: name, words, time."""
    here = pace.local(now)
    tomorrow = datetime.combine(here.date() + timedelta(days=1), MORNING, here.tzinfo)
    monday = datetime.combine(here.date() + timedelta(days=7 - here.weekday()), MORNING, here.tzinfo)
    offered = [
        ("hour", "1 hour", now + timedelta(hours=1)),
        ("afternoon", "This afternoon, 16:00", datetime.combine(here.date(), AFTERNOON, here.tzinfo)),
        ("tomorrow", "Tomorrow, 9:00", tomorrow),
        ("monday", "Next Monday, 9:00", monday),
    ]
    return [one for one in offered if one[2] > now and not (one[0] == "monday" and monday == tomorrow)]


def _shown(at: datetime, person: User) -> str:
    pace = NoticeSettings.of(person)
    return f"{pace.local(at):%Y-%m-%d %H:%M} ({pace.zone})"


def _say(review: Review, by: User, kind: str, *, about: str = "", note: str = "") -> None:
    ReviewEvent.objects.create(review=review, actor=by, kind=kind, about=about, note=note)
    live.nudge(review.pk)
