"""The rows of the inbox: one page of what the filters let through, and how many there are."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, OuterRef, Q, Subquery, When
from django.db.models.functions import Coalesce, Now
from django.http import QueryDict
from django.urls import reverse
from django.utils.functional import cached_property

from reviews import counts, presence
from reviews.consequences import brief
from reviews.filters import Filters, Shown, Tab, Viewer
from reviews.folds import FOLD, folded, held_back
from reviews.models import Cause, Decision, Presence, Review, ReviewQuerySet, Risk
from reviews.shared import Shared
from runs import sdk
from runs.filters import Chip, is_id
from runs.models.content import are_hidden

__all__ = ["Filters", "Listing", "Row", "agent_title", "changed_rows", "listing"]

ROWS = 50  # of one page
MOST_COUNTED = 10_000  # of closed ones, which may be very many
MOST_CHANGED = 200  # rows that a page may ask for at once
MOST_NAMED = 2  # of those who are looking
READ = (  # by a row: others are large, and a hundred columns take their time
    "agent", "cause", "confidence", "due_at", "opened_at", "position", "proposal", "risk", "snoozed_until", "state", "subject",
    "threshold", "title", "urgent", "why", "worker", "run__input_text", "claim__until", "claim__reviewer__username",
    "group__name", "escalated_at", "second_group__name", "assignee__username",
)  # fmt: skip


class Line(NamedTuple):
    """All that a row says, and nothing else: what many look at is written once (templatetags/rows.py)."""

    number: str
    turn: str
    gone: bool
    folded: str
    alike: int
    alike_of: str
    is_open: bool
    state: str
    cause: str
    title: str
    agent: str
    run: int
    opened_at: datetime
    age: str  # in words: when they change, it is written again
    act: str
    risk: int
    due_at: datetime | None
    left: str
    is_late: bool
    snoozed_until: datetime | None
    snooze: str
    confidence: float | None
    threshold: float | None
    claimed_by: str
    assignee: str
    group: str  # of an escalated one both
    looking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One review of the list, which may stand for others of its run, or `of_agent`; `gone` once it no longer fits."""

    review: Review
    agent: str
    among: Filters  # of the list it stands in
    alike: int = 1
    of_agent: bool = False
    gone: bool = False

    @property
    def line(self) -> Line:
        review, claim = self.review, self.review.held()
        snoozed = review.snoozed_until if review.is_snoozed else None
        return Line(
            number=str(review.pk),
            turn=self.turn,
            gone=self.gone,
            folded=self.alike_query if self.is_folded else "",
            alike=self.alike,
            alike_of=self.agent if self.of_agent else f"run {self.review.run_id}",
            is_open=review.is_open,
            state=review.state,
            cause=review.cause,
            title=review.title,
            agent=self.agent,
            run=review.run_id,
            opened_at=review.opened_at,
            age=age((self._now - review.opened_at).total_seconds()),
            act=self.act,
            risk=review.risk,
            due_at=None if self.gone else review.due_at,
            left=self.left,
            is_late=self.is_late,
            snoozed_until=snoozed,
            snooze=naturaltime(snoozed) if snoozed else "",
            confidence=review.confidence,
            threshold=review.threshold,
            claimed_by=str(claim.reviewer) if claim else "",
            assignee=str(review.assignee or ""),
            group=" and ".join(one.name for one in (review.group, review.escalated_at and review.second_group) if one),
            looking=tuple(self.looking[:MOST_NAMED]),
        )

    @property
    def looking(self) -> list[str]:
        """Who else has it open."""
        viewer = self.among.viewer.get_username() if self.among.viewer else ""
        return [name for name in self.review.looking if name != viewer]  # type: ignore[attr-defined]

    @property
    def is_folded(self) -> bool:
        return self.alike > FOLD

    @property
    def act(self) -> str:
        """What is asked, in one line."""
        asked = brief(self.review, getattr(self.review, "edited", None))
        about = "" if self.review.cause == Cause.QUESTION else self.review.run.input_text
        return " · ".join(dict.fromkeys(filter(None, [asked, about])))

    @property
    def is_late(self) -> bool:
        return bool(self.review.due_at and self.review.due_at <= self._now)

    @property
    def left(self) -> str:
        """How much time is left until it is due, in words as time.js finds them."""
        return time_left((self.review.due_at - self._now).total_seconds()) if self.review.due_at else ""

    @property
    def _now(self) -> datetime:
        """By the database's clock, when it was read (with_people)."""
        now: datetime = self.review.read_at  # type: ignore[attr-defined]
        return now

    @property
    def turn(self) -> str:
        """Sorts as the inbox does."""
        return f"{9 - self.review.risk} {int(not self.review.urgent)} {self.review.opened_at.isoformat()} {self.review.pk:020}"

    @property
    def alike_query(self) -> str:
        """The filters that show what is folded into this row, and nothing else."""
        agent, run = (self.review.agent, "") if self.of_agent else ("", str(self.review.run_id))
        return self.among.changed(agent=agent, run=run, step=self.review.title, cause=self.review.cause)


@dataclass(frozen=True)
class Listing:
    """One page of the list. `later` is the review after which the next page begins."""

    filters: Filters
    rows: Sequence[Row] = ()
    later: int | None = None
    after: int | None = None

    @cached_property
    def counts(self) -> dict[Tab, int]:
        """How many each tab holds, by the other filters."""
        return counts.of_tabs(self.filters)

    @property
    def tab(self) -> Tab:
        return Tab(self.filters.tab or Tab.ALL)

    @cached_property
    def count(self) -> int:
        """Closed ones are counted to MOST_COUNTED."""
        if self.filters.is_open:
            return self.counts[self.tab]
        return min(self.filters.reviews().order_by()[: MOST_COUNTED + 1].count(), MOST_COUNTED)

    @property
    def word(self) -> str:
        """What is counted: "open", or "decided, filtered"."""
        on = self.filters
        state = Shown(on.state or (Shown.OPEN if on.is_open else Shown.ANY)).label.lower()
        more = "+" if not on.is_open and self.count == MOST_COUNTED else ""
        return f"{more} {state}{', filtered' if on.given('state') else ''}"

    @property
    def tabs(self) -> list[tuple[Tab, str]]:
        """Each with the query that leads to it."""
        return [(tab, self.filters.changed(tab="" if tab == Tab.ALL else tab)) for tab in Tab]

    @property
    def only_snoozed(self) -> bool:
        """Whether there is something, but nothing that is awake."""
        return self.filters.is_open and self.tab == Tab.ALL and not self.count and bool(self.counts[Tab.SNOOZED])

    @property
    def snoozed_url(self) -> str:
        return f"{reverse('inbox')}?{self.filters.changed(tab=Tab.SNOOZED)}"

    @property
    def here(self) -> str:
        """The query of this page of the list."""
        return "&".join(filter(None, [self.filters.query, f"after={self.after}" if self.after else ""]))

    @property
    def later_query(self) -> str:
        return "&".join(filter(None, [self.filters.query, f"after={self.later}"]))

    @property
    def more_chosen(self) -> int:
        """How many of the filters behind "More filters" are on."""
        return len({"step", "risk", "group", "state", "by"} & set(self.filters.given()))

    @property
    def chips(self) -> list[Chip]:
        return self.filters.chips()

    @property
    def paused(self) -> list[str]:
        """The agents of these rows whose new runs wait, because too many of their reviews are open."""
        return sorted({row.agent for row in self.rows if getattr(row.review, "paused", False)})

    ends = [Review(state=state) for state in Review.State.values if state != Review.State.OPEN]
    risks = Risk.choices
    states = [("" if state == Shown.OPEN else state.value, state.label) for state in Shown]


def listing(query: QueryDict, viewer: Viewer | None = None) -> Listing:
    """The page that the address asks for."""
    filters = Filters.read(query, viewer)
    given = query.get("after", "")
    after = int(given) if is_id(given) else None
    found = _shown(filters.reviews() if after is None else _after(filters, after), filters, most=ROWS + 1)
    later = found[ROWS - 1].pk if len(found) > ROWS else None
    return Listing(filters, _rows(found[:ROWS], filters), later, after)


def changed_rows(filters: Filters, ids: Iterable[int]) -> list[Row]:
    """These as they are now: those that the filters no longer let through are gone.

    Of a change every open page asks at the same moment: they share an answer, but where a tab is another for each person.
    """
    wanted = tuple(ids)[:MOST_CHANGED]
    viewer = filters.viewer if filters.tab in (Tab.MINE, Tab.GROUPS) else None
    for_all = replace(filters, viewer=viewer)
    rows = _changed.get((for_all, wanted, are_hidden()), lambda: _changed_rows(for_all, wanted))
    return [replace(row, among=filters) for row in rows]


_changed = Shared[list[Row]]()


def _changed_rows(filters: Filters, wanted: Collection[int]) -> list[Row]:
    fitting = _shown(filters.reviews().filter(pk__in=wanted), filters) if wanted else []
    missing = set(wanted) - {review.pk for review in fitting}
    others = _seen(Review.objects.filter(pk__in=missing)) if missing else []
    return [*_rows(fitting, filters), *(replace(row, gone=True) for row in _rows(others, filters))]


def agent_title(slug: str) -> str:
    """The agent's title, or its slug when it is no longer installed."""
    return sdk.AGENTS[slug].title if slug in sdk.AGENTS else slug


def age(seconds: float) -> str:
    """Since when it is open, in few letters: "now", "16 min", "3 h", "2 d"."""
    minutes = int(seconds) // 60
    parts = [(minutes // 1440, "d"), (minutes // 60, "h"), (minutes, "min")]
    return next((f"{number} {unit}" for number, unit in parts if number > 0), "now")


def time_left(seconds: float) -> str:
    """ "1 h 40 min left", "under 1 min left", "3 min overdue"."""
    minutes = int(abs(seconds)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    parts = [(days, "d"), (hours, "h"), (minutes % 60 if not days else 0, "min")]
    words = " ".join(f"{number} {unit}" for number, unit in parts if number) or "under 1 min"
    return f"{words} {'left' if seconds > 0 else 'overdue'}"


def _rows(reviews: Iterable[Review], among: Filters) -> list[Row]:
    return [_row(review, among) for review in reviews]


def _row(review: Review, among: Filters) -> Row:
    of_agent: int = getattr(review, "alike_of_agent", None) or 0
    alike = of_agent or getattr(review, "alike", 1)
    return Row(review, agent_title(review.agent), among, alike, bool(of_agent))


def _shown(reviews: ReviewQuerySet, filters: Filters, *, most: int | None = None) -> list[Review]:
    """The rows, folded. Who is paused is asked where one of these is, which is seldom: to fold by agent costs more."""
    found = _seen(folded(reviews, filters), most=most)
    if not filters.is_open or not any(review.paused for review in found):  # type: ignore[attr-defined]
        return found
    return _seen(folded(reviews, filters, paused=set(held_back().values_list("agent", flat=True))), most=most)


def _seen(reviews: ReviewQuerySet, *, most: int | None = None) -> list[Review]:
    """With what a row shows, in one question."""
    here = Presence.objects.filter(review=OuterRef("pk"), seen_at__gt=Now() - presence.LIFE, reviewer__is_active=True)
    names = here.order_by("pk").values("reviewer__username")
    paused = Q(agent__in=held_back().values("agent"))
    first = Decision.objects.filter(review=OuterRef("pk"), kind=Decision.Kind.EDIT, final=False, revoked_at=None)
    edited = When(approvals__gt=1, state=Review.State.OPEN, then=Subquery(first.values("value")[:1]))  # by the first of two
    told = {"paused": paused, "looking": ArraySubquery(names), "edited": Case(edited)}
    return list(reviews.with_people().only(*READ).annotate(**told)[:most])


def _after(filters: Filters, start: int) -> ReviewQuerySet:
    """Those whose turn is later; every one where no review has this number. In the same question as the rows themselves."""
    if not filters.is_open:
        return filters.reviews().filter(pk__lt=start)
    place = Review.objects.filter(pk=start)
    risk, opened = Coalesce(Subquery(place.values("risk")), 1 + max(Risk.values)), Subquery(place.values("opened_at"))
    urgent = Subquery(place.values("urgent"))
    later = Q(opened_at__gt=opened) | Q(opened_at=opened, pk__gt=start)
    return filters.reviews().filter(Q(risk__lt=risk) | Q(Q(urgent__lt=urgent) | Q(later, urgent=urgent), risk=risk))
