"""Of many alike reviews one row: of those of a run, and of all runs of an agent that is paused because it asks too much."""

from collections.abc import Collection

from django.db.models import Case, Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery, When

from reviews.filters import Filters
from reviews.models import Review, ReviewQuerySet, Risk
from runs.models import Run, RunStatus

FOLD = 3  # more alike reviews than this are one row
ALIKE = ("title", "cause")  # of one run, or of one agent


def folded(reviews: ReviewQuerySet, filters: Filters, *, paused: Collection[str] = ()) -> ReviewQuerySet:
    """Of many alike of one run only the first, with their number: a run that floods leaves the others their place.

    So of all runs of an agent that is paused because it asks too much; what is of high risk keeps its own row then. Each
    looks among those of its run, or its agent, alone, and at no more of them than it must.
    """
    if filters.run or not filters.is_open:
        return reviews
    alike, hidden = _alike(filters, "run")
    reviews = reviews.exclude(hidden).annotate(alike=_number(alike, "run"))
    if not paused or (filters.agent and filters.step and filters.cause):  # these are shown one by one
        return reviews
    of_agent, hidden = _alike(filters, "agent", risk__lt=Risk.HIGH)
    floods = Q(agent__in=paused, risk__lt=Risk.HIGH)
    number = Case(When(floods & Q(Exists(of_agent[FOLD : FOLD + 1])), then=_number(of_agent, "agent")))
    return reviews.exclude(floods & hidden).annotate(alike_of_agent=number)


def _alike(filters: Filters, of: str, **but: object) -> tuple[ReviewQuerySet, Q]:
    """Those that the filters let through beside a row, and whether it is folded: there are many, and one before it."""
    same = {name: OuterRef(name) for name in (of, *ALIKE)} | but
    alike = filters.reviews().order_by().filter(**same)
    older = Q(opened_at__lt=OuterRef("opened_at")) | Q(opened_at=OuterRef("opened_at"), pk__lt=OuterRef("pk"))
    before = Q(urgent__gt=OuterRef("urgent")) | Q(older, urgent=OuterRef("urgent"))
    earlier = alike.filter(Q(risk__gt=OuterRef("risk")) | Q(before, risk=OuterRef("risk")))
    hidden = Exists(alike[FOLD : FOLD + 1]) & Exists(earlier)
    if filters.text:  # most runs ask less, and then no text is read to know it
        hidden = Exists(Review.objects.open().filter(**same)[FOLD : FOLD + 1]) & hidden
    return alike, hidden


def _number(alike: ReviewQuerySet, of: str) -> Subquery:
    return Subquery(alike.values(of).annotate(number=Count("pk")).values("number"), output_field=IntegerField())


def held_back() -> QuerySet[Run]:
    """Runs that wait because their agent is paused."""
    return Run.objects.filter(status=RunStatus.WAITING, waiting_cause="reviews", waiting_step=None)
