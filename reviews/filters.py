"""What a person wants to see of the reviews, as the address carries it; a shared link never breaks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar
from urllib.parse import urlencode

from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import models
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Lower, Now
from django.http import QueryDict

from reviews import groups
from reviews.models import Cause, Decision, Review, ReviewQuerySet, Risk, SearchText
from runs import sdk

NEAR = 100  # of the next in turn: the index gives them at once; only where none of these is free all are looked at
LONGEST = 200  # letters of what somebody types into a filter
Viewer = User | AnonymousUser


class Tab(models.TextChoices):
    """Parts of the inbox; their counts are shown."""

    ALL = "all", "All"
    MINE = "mine", "Mine"
    GROUPS = "groups", "My groups"
    UNASSIGNED = "unassigned", "Unassigned"
    OVERDUE = "overdue", "Overdue"
    SNOOZED = "snoozed", "Snoozed"


class Shown(models.TextChoices):
    """Which states: open ones where the address says nothing."""

    OPEN = "open", "Open"
    DECIDED = "decided", "Decided"
    EXPIRED = "expired", "Expired"
    CANCELLED = "cancelled", "Withdrawn"
    ANY = "any", "Any state"


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter that is on; `without` is the address' query without it."""

    name: str
    word: str
    without: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Each empty where it does not matter. `viewer` is who looks: "mine" is another for each."""

    tab: str = ""
    cause: str = ""
    agent: str = ""
    step: str = ""
    risk: str = ""
    group: str = ""
    state: str = ""
    by: str = ""
    run: str = ""
    same: str = ""
    text: str = ""
    viewer: Viewer | None = None

    CHOICES: ClassVar[dict[str, list[str]]] = {
        "tab": Tab.values[1:],
        "cause": Cause.values,
        "risk": [str(risk) for risk in Risk.values],
        "state": Shown.values[1:],
    }
    LOOKUPS: ClassVar[dict[str, str]] = {"step": "title__icontains", "group": "group__name__iexact"}
    APART: ClassVar[tuple[str, ...]] = ("tab", "state", "by", "text")
    NUMBERS: ClassVar[tuple[str, ...]] = ("run",)

    @classmethod
    def read(cls, query: QueryDict, viewer: Viewer | None = None) -> "Filters":
        """What is unknown, no number, or holds characters that no row can hold is dropped."""
        given = {name: query.get(name, "").replace("\x00", "").strip()[:LONGEST] for name in cls.names()}
        return cls(**{name: text for name, text in given.items() if cls.fits(name, text)}, viewer=viewer)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "viewer"]

    @classmethod
    def fits(cls, name: str, text: str) -> bool:
        if name in cls.NUMBERS:
            return is_id(text)
        return text in cls.CHOICES.get(name, [text])

    @property
    def query(self) -> str:
        """For links and form actions: "cause=gated&text=card", or ""."""
        return urlencode(self.given())

    def given(self, *, without: str = "") -> dict[str, str]:
        return {name: getattr(self, name) for name in self.names() if getattr(self, name) and name != without}

    def changed(self, **others: str) -> str:
        """The query with other values."""
        wanted = {name: others.get(name, getattr(self, name)) for name in self.names()}
        return urlencode({name: value for name, value in wanted.items() if value})

    @property
    def is_open(self) -> bool:
        """Whether only open reviews are meant; who decided something looks for what is closed."""
        return not self.state and not self.by

    def reviews(self) -> ReviewQuerySet:
        """In turn; closed ones the newest first."""
        found = self.but_the_tab().filter(self.within(Tab(self.tab or Tab.ALL)))
        return found.in_turn() if self.is_open else found.order_by("-pk")

    def but_the_tab(self) -> ReviewQuerySet:
        found = Review.objects.open() if self.is_open else Review.objects.all()
        if self.state not in ("", Shown.ANY):
            found = found.filter(state=self.state)
        if self.by:
            stands = Decision.objects.filter(actor__username=self.by, final=True, revoked_at=None)
            found = found.filter(pk__in=stands.values("review"))
        given = {self.LOOKUPS.get(name, name): value for name, value in self.given().items() if name not in self.APART}
        found = found.filter(**given)
        return found.filter(pk__in=containing(self.text)) if self.text else found

    def within(self, tab: Tab) -> Q:
        """What is in the tab. Snoozed ones are in theirs only; closed ones were never snoozed for long."""
        snoozed, claimed = Q(snoozed_until__gt=Now()), Q(claim__until__gt=Now())
        awake = ~snoozed if self.is_open else Q()
        viewer = self.viewer.pk if self.viewer else None
        match tab:
            case Tab.ALL:
                return awake
            case Tab.MINE:
                return awake & (Q(assignee=viewer) | (claimed & Q(claim__reviewer=viewer))) if viewer else Q(pk__in=[])
            case Tab.GROUPS:
                groups = Group.objects.filter(user=viewer).values("pk") if viewer else []
                return awake & (Q(group__in=groups) | Q(second_group__in=groups, escalated_at__isnull=False))
            case Tab.UNASSIGNED:
                return awake & Q(assignee=None) & ~claimed
            case Tab.OVERDUE:
                return awake & Q(due_at__lte=Now())
            case Tab.SNOOZED:
                return snoozed

    def next(self, review: Review) -> Review | None:
        """The one to decide after this one: the next in turn, else the first; none that is others', or that others are at."""
        others = self.reviews().exclude(pk=review.pk)
        if not self.is_open:
            return others.first()
        return self._first_free(others.after(review)) or self._first_free(others)

    def _first_free(self, reviews: ReviewQuerySet) -> Review | None:
        if not isinstance(self.viewer, User):
            return reviews.first()
        near = reviews.filter(pk__in=groups.offered(reviews, self.viewer).values("pk")[:NEAR])
        free = (groups.unclaimed(groups.asked(some, self.viewer), by_others_than=self.viewer) for some in (near, reviews))
        return next((found for one in free if (found := one.first())), None)

    def chips(self) -> list[Chip]:
        """Those that are on, as words; the tab is shown by its own."""
        chosen = self.given(without="tab")
        return [Chip(name, self._word(name, value), self.changed(**{name: ""})) for name, value in chosen.items()]

    def _word(self, name: str, value: str) -> str:
        words: dict[str, Callable[[], str]] = {
            "cause": lambda: Cause(value).label,
            "agent": lambda: sdk.AGENTS[value].title if value in sdk.AGENTS else value,
            "step": lambda: f"Step: {value}",
            "risk": lambda: f"{Risk(int(value)).label} risk",
            "group": lambda: f"Group: {value}",
            "state": lambda: Shown(value).label,
            "by": lambda: f"Decided by {value}",
            "run": lambda: f"Run {value}",
            "same": lambda: "Identical ones",
            "text": lambda: f"“{value}”",
        }
        return words[name]()


def containing(text: str) -> "QuerySet[SearchText, int]":
    """The numbers of the reviews in whose payload the text stands, in large or small letters."""
    return SearchText.objects.filter(text__contains=Lower(Value(text))).values_list("pk", flat=True)


def is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19  # larger than any id of the database
