"""What a person wants to see of the reviews, as the address carries it; a shared link never breaks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import models
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Lower, Now
from django.http import QueryDict

from reviews import groups
from reviews.models import Cause, Decision, Review, ReviewQuerySet, Risk, SearchText
from runs import access, sdk
from runs.filters import AddressFilters, is_id
from runs.models.content import are_hidden, titles_with

NEAR = 100  # of the next in turn: the index gives them at once; only where none of these is free all are looked at
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
class Filters(AddressFilters):
    """Each empty where it does not matter. `viewer` is who looks: "mine" is another for each.

    `hides`: they may not see payloads. Of the one run that is revealed to them a page may tell more; what is looked for among
    all of them, and counted, may not.
    """

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
    hides: bool = False

    FITS: ClassVar[dict[str, Callable[[str], bool]]] = {
        "tab": Tab.values[1:].__contains__,
        "cause": Cause.values.__contains__,
        "risk": [str(risk) for risk in Risk.values].__contains__,
        "state": Shown.values[1:].__contains__,
        "run": is_id,
    }
    NOT_CARRIED: ClassVar[tuple[str, ...]] = ("viewer", "hides")
    UNNAMED: ClassVar[tuple[str, ...]] = ("tab",)
    LOOKUPS: ClassVar[dict[str, str]] = {"step": "title__icontains", "group": "group__name__iexact"}
    APART: ClassVar[tuple[str, ...]] = ("tab", "state", "by", "text")

    @classmethod
    def read(cls, query: QueryDict, viewer: Viewer | None = None) -> "Filters":
        """As AddressFilters.read_from says."""
        return cls(**cls.read_from(query), viewer=viewer, hides=viewer is not None and not access.may_see_payloads(viewer))

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
        hides = self.hides or are_hidden()
        if self.step and hides:
            found = found.filter(title__in=titles_with(self.step))
        given = {self.LOOKUPS.get(name, name): value for name, value in self.given().items() if name not in self.APART}
        found = found.filter(**given)
        return found.filter(pk__in=containing(self.text, hide=hides)) if self.text else found

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
        if not isinstance(self.viewer, User):
            return others.after(review).first() or others.first()
        own_rules, mine = groups.by_own_rules(self.viewer.get_username()), groups.of(self.viewer)
        found = (self._first_free(some, self.viewer, own_rules, mine) for some in (others.after(review), others))
        return next(filter(None, found), None)

    def _first_free(self, reviews: ReviewQuerySet, viewer: User, own_rules: Q, mine: list[int]) -> Review | None:
        near = reviews.filter(pk__in=groups.offered(reviews, viewer, mine).values("pk")[:NEAR])
        asked = (groups.asked(some, viewer, own_rules, mine) for some in (near, reviews))
        free = (groups.unclaimed(some, by_others_than=viewer) for some in asked)
        return next((found for one in free if (found := one.first())), None)

    def word(self, name: str, value: str) -> str:
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


def containing(text: str, *, hide: bool = False) -> "QuerySet[SearchText, int]":
    """The numbers of the reviews in whose payload the text stands, in large or small letters; none where that is hidden."""
    if hide or are_hidden():
        return SearchText.objects.none().values_list("pk", flat=True)
    return SearchText.objects.filter(text__contains=Lower(Value(text))).values_list("pk", flat=True)
