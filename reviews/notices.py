"""Writes down whom to tell about a review, in the transaction that is the reason; delivery.py sends it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.urls import reverse

from reviews import groups, live
from reviews.models import Channel, Notice, NoticeSettings, Review, ReviewEvent, Risk
from runs import access

BATCH = 100
MOST_AT_ONCE = 1000  # old notices, each minute
KEPT_FOR = timedelta(days=30)
SHOWN_EACH = 3  # notices of a flood; the others are one line
TO_ONE = (Notice.Kind.ASSIGNED, Notice.Kind.TAKEN_OVER)
HALF_SHARE, LAST_SHARE = 0.5, 0.9  # of the time to decide
PASSED: dict[str, str] = {Notice.Kind.HALF: "half of the time had passed", Notice.Kind.LAST: "nine tenths of the time had passed"}
UNREAD = """(SELECT count(*) FROM (
        SELECT FROM reviews_notice AS notice JOIN reviews_review AS review ON review.id = notice.review_id
        WHERE notice.user_id = {person} AND notice.read_at IS NULL AND review.state = 'open' LIMIT 100) AS unread)"""
COUNTS = f"SELECT (SELECT count(*) FROM reviews_review WHERE state = 'open'), {UNREAD.format(person='%s')}"  # noqa: S608 - constants
UNREAD_OF = f"SELECT person, {UNREAD.format(person='person')} FROM unnest(%s::bigint[]) AS person"  # noqa: S608


def tell(person: User, review: Review, kind: str) -> None:
    """One person, about one review."""
    _write(_to_people([person], review, kind))


def read(review_id: int, person: User) -> None:
    """The person has the review open, so what they were told about it is read."""
    Notice.objects.filter(user=person, review=review_id, read_at=None).update(read_at=Now())


def read_all(person: User) -> None:
    Notice.objects.filter(user=person, read_at=None).update(read_at=Now())


def counts(person: access.AnyUser) -> tuple[int, int]:
    """How many reviews are open, and what the bell counts, to 100: every page asks, so it is one question."""
    with connection.cursor() as cursor:
        cursor.execute(COUNTS, [person.pk])
        reviews, mine = cursor.fetchone()
    return reviews, mine


def unread_of(people: Collection[int]) -> dict[int, int]:
    """What the bell counts for each of them."""
    with connection.cursor() as cursor:
        cursor.execute(UNREAD_OF, [list(people)])
        return dict(cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Line:
    """A notice as it is shown; or `more` of its agent for the same reason, of which it is the first."""

    notice: Notice
    more: int = 0

    @property
    def address(self) -> str:
        if not self.more:
            return self.notice.review.get_absolute_url()
        return f"{reverse('inbox')}?{urlencode({'agent': self.notice.review.agent})}"


def folded(told: Sequence[Notice]) -> list[Line]:
    """In their order; of a flood, which is many of one agent for one reason on one day, the first few and how many more."""
    floods: dict[tuple[object, ...], list[Notice]] = {}
    for one in told:
        floods.setdefault(_flood(one), []).append(one)
    shown: dict[int, Line] = {}
    for alike in floods.values():
        most = SHOWN_EACH if len(alike) > SHOWN_EACH + 1 else len(alike)
        shown |= {one.pk: Line(one) for one in alike[:most]}
        shown |= {one.pk: Line(one, more=len(alike) - most) for one in alike[most : most + 1]}
    return [shown[one.pk] for one in told if one.pk in shown]


def _flood(notice: Notice) -> tuple[object, ...]:
    """What is the same for those that are one line; what is for this person alone, or of high risk, stands for itself."""
    review = notice.review
    if notice.kind in TO_ONE or review.risk == Risk.HIGH:
        return (notice.pk,)
    return review.agent, notice.kind, notice.is_unread, notice.at.date()


def settle() -> None:
    """What was told about reviews that are closed by now needs no reading."""
    unread = Notice.objects.filter(read_at=None, user__isnull=False).exclude(review__state=Review.State.OPEN)
    with transaction.atomic():
        Notice.objects.filter(pk__in=_first(unread)).update(read_at=Now())


def prune() -> None:
    """What was told long ago about reviews that are closed by now is deleted: the history says what became of them."""
    old = Notice.objects.filter(at__lt=Now() - KEPT_FOR).exclude(review__state=Review.State.OPEN)
    with transaction.atomic():
        Notice.objects.filter(pk__in=_first(old)).delete()


def _first(found: QuerySet[Notice]) -> list[int]:
    """The oldest, locked; those that somebody else is at come another time."""
    locked = found.select_for_update(skip_locked=True, of=("self",)).order_by("pk")
    return list(locked.values_list("pk", flat=True)[:MOST_AT_ONCE])


def tell_due() -> None:
    """Of reviews whose moment has come: that they are new, that half of their time has passed, that little is left."""
    with transaction.atomic():
        due = Review.objects.open().filter(tell_at__lte=Now()).order_by("tell_at")
        found = list(due.select_for_update(skip_locked=True, of=("self",)).with_people()[:BATCH])
        audience = Audience()
        written: list[Notice] = []
        reminded: list[ReviewEvent] = []
        for review in found:
            kind = _kind(review)
            written += audience.notices(review, kind)
            review.tell_at = _next(review, kind)
            if kind in PASSED:
                if not review.urgent:
                    live.nudge(review.pk)  # it has another place in the list
                review.urgent = True
                reminded.append(ReviewEvent(review=review, kind=ReviewEvent.Kind.REMINDED, about=PASSED[kind]))
        _write(written)
        ReviewEvent.objects.bulk_create(reminded)
        Review.objects.bulk_update(found, ["tell_at", "urgent"])


def escalate_due() -> None:
    """Half of the time has passed and nobody has decided or is at it: the second group is asked too."""
    with transaction.atomic():
        due = groups.unclaimed(Review.objects.open()).filter(
            escalated_at=None, escalate_at__lte=Now(), second_group__isnull=False
        )
        found = list(due.select_for_update(skip_locked=True, of=("self",)).select_related("second_group")[:BATCH])
        Review.objects.filter(pk__in=[one.pk for one in found]).update(escalated_at=Now(), snoozed_until=None)
        audience = Audience()
        for review in found:
            assert review.second_group is not None  # noqa: S101 - asked for above
            about = review.second_group.name
            ReviewEvent.objects.create(review=review, kind=ReviewEvent.Kind.ESCALATED, about=about)
            _write(audience.of_group(review, review.second_group.pk, Notice.Kind.ESCALATED))
            live.nudge(review.pk)


class Audience:
    """Who is to be told; asked once for each group, however many reviews there are."""

    def __init__(self) -> None:
        self._people: dict[tuple[int, ...], list[User]] = {}
        self._channels = list(Channel.objects.filter(enabled=True).prefetch_related("groups"))

    def notices(self, review: Review, kind: str) -> list[Notice]:
        """After a claim only its holder, else whom it was given to, else its groups, else everybody who may decide."""
        held = review.held()
        if held or review.assignee:
            person = held.reviewer if held else review.assignee
            return _to_people([person], review, kind) if person and kind != Notice.Kind.NEW else []
        asked = (review.group_id, review.second_group_id if review.escalated_at else None)
        theirs = tuple(group for group in asked if group)
        return _to_people(self._asked(theirs), review, kind) + self._to_channels(theirs, review, kind)

    def of_group(self, review: Review, group: int, kind: str) -> list[Notice]:
        return _to_people(self._asked((group,)), review, kind) + self._to_channels((group,), review, kind)

    def _asked(self, theirs: tuple[int, ...]) -> list[User]:
        if theirs not in self._people:
            self._people[theirs] = list(groups.told_of(theirs).select_related("notice_settings"))
        return self._people[theirs]

    def _to_channels(self, theirs: Sequence[int], review: Review, kind: str) -> list[Notice]:
        serving = [one for one in self._channels if _serves(one, theirs)]
        return [Notice(channel=one, review=review, kind=kind, delivery=Notice.Delivery.WAITS) for one in serving]


def _serves(channel: Channel, theirs: Sequence[int]) -> bool:
    served = {group.pk for group in channel.groups.all()}
    return not served or not served.isdisjoint(theirs)


def _to_people(people: Iterable[User], review: Review, kind: str) -> list[Notice]:
    return [Notice(user=person, review=review, kind=kind, delivery=_delivery(person)) for person in people]


def _delivery(person: User) -> str:
    wanted: NoticeSettings | None = getattr(person, "notice_settings", None)
    return Notice.Delivery.WAITS if wanted and wanted.mail else Notice.Delivery.NONE


def _write(notices: list[Notice]) -> None:
    Notice.objects.bulk_create(notices)


def _kind(review: Review) -> str:
    """By the moment for which it was put down."""
    if review.tell_at == _at(review, LAST_SHARE):
        return Notice.Kind.LAST
    return Notice.Kind.HALF if review.tell_at == _at(review, HALF_SHARE) else Notice.Kind.NEW


def _next(review: Review, kind: str) -> datetime | None:
    return {Notice.Kind.NEW: _at(review, HALF_SHARE), Notice.Kind.HALF: _at(review, LAST_SHARE)}.get(Notice.Kind(kind))


def _at(review: Review, share: float) -> datetime | None:
    return review.opened_at + (review.due_at - review.opened_at) * share if review.due_at else None
