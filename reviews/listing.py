"""The rows of the inbox: which reviews, in which order, and which comes next."""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import QueryDict

from reviews.models import Cause, Review, ReviewQuerySet
from runs import sdk, waiting

ROWS = 50  # of one page


@dataclass(frozen=True, slots=True)
class Filters:
    """What the person wants to see, as the address carries it."""

    cause: str = ""
    agent: str = ""
    text: str = ""

    @classmethod
    def read(cls, query: QueryDict) -> "Filters":
        """Unknown causes and characters that no row can hold are dropped: a shared link must not break."""
        cause = query.get("cause", "")
        given = {name: query.get(name, "").replace("\x00", "").strip() for name in ("agent", "text")}
        return cls(cause=cause if cause in Cause.values else "", agent=given["agent"], text=given["text"])

    @property
    def query(self) -> str:
        """For links and form actions: "cause=gated&text=card", or ""."""
        return urlencode({name: getattr(self, name) for name in ("cause", "agent", "text") if getattr(self, name)})

    def reviews(self) -> ReviewQuerySet:
        found = Review.objects.open().matching(cause=self.cause, agent=self.agent, text=self.text)
        return found.in_turn()

    def next(self, review: Review) -> Review | None:
        """The one to look at after this one: the next newer, or the oldest there is."""
        others = self.reviews().exclude(pk=review.pk)
        return others.after(review).first() or others.first()


@dataclass(frozen=True, slots=True)
class Row:
    """One review of the list; `waits` says for what its run waits."""

    review: Review
    agent: str
    waits: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list. `later` is the review after which the next page begins."""

    filters: Filters
    rows: list[Row]
    count: int
    later: int | None
    after: int | None

    @property
    def later_query(self) -> str:
        return "&".join(filter(None, [self.filters.query, f"after={self.later}"]))


def listing(query: QueryDict) -> Listing:
    """The page that the address asks for."""
    filters = Filters.read(query)
    reviews = filters.reviews()
    start = _start(query.get("after", ""))
    shown = reviews.after(start) if start else reviews
    found = list(shown.with_people()[: ROWS + 1])
    later = found[ROWS - 1].pk if len(found) > ROWS else None
    waits = waiting.answers({review.run_id: review.run for review in found[:ROWS]}.values())
    rows = [Row(review, agent_title(review.run.agent), _waits(waits.get(review.run_id))) for review in found[:ROWS]]
    return Listing(filters, rows, reviews.count(), later, start.pk if start else None)


def _waits(why: waiting.Waits | None) -> str:
    return why.sentence if why else ""


def agent_title(slug: str) -> str:
    """The agent's title, or its slug when it is no longer installed."""
    return sdk.AGENTS[slug].title if slug in sdk.AGENTS else slug


def _start(after: str) -> Review | None:
    is_id = after.isdecimal() and len(after) < 19  # larger than any id of the database
    return Review.objects.filter(pk=int(after)).first() if is_id else None
