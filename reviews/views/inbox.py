"""The inbox: the list, the rows of it that changed, and how many there are."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from reviews.filters import Filters
from reviews.listing import Listing, changed_rows, listing
from reviews.models import Review, SavedView
from reviews.numbers import GENTLE
from reviews.views.common import HURRIED, actor, beside
from runs import access
from runs.filters import is_id


@require_GET
@access.permits(access.may_review)
def inbox_page(request: HttpRequest) -> HttpResponse:
    """Every open review that the filters let through, what is riskier first, then the oldest."""
    saved = SavedView.objects.for_viewer(actor(request))
    shown = {"saved_views": saved, "warning": request.session.get(HURRIED, ""), "gentle": GENTLE}
    return render(request, "reviews/inbox.html", beside(request) | viewer_of(request) | shown)


@require_GET
@access.permits(access.may_review)
def review_list(request: HttpRequest) -> HttpResponse:
    """The list alone, asked for when a person wants to see what is new in it."""
    return render(request, "reviews/_list.html", viewer_of(request) | {"listing": listing(request.GET, actor(request))})


@require_GET
@access.permits(access.may_review)
def review_rows(request: HttpRequest) -> HttpResponse:
    """The rows `?ids=7,12` as they are now; with `whole=1` also those of the page, for whoever may have missed something.

    The tabs are counted for them, and with `counts=1`: that asks every review, where rows are found by their numbers.
    """
    viewer, ids = actor(request), [int(text) for text in request.GET.get("ids", "").split(",") if is_id(text)]
    page = listing(request.GET, viewer) if request.GET.get("whole") else Listing(Filters.read(request.GET, viewer))
    shown_already = {row.review.pk for row in page.rows}
    rows = changed_rows(page.filters, [number for number in ids if number not in shown_already])
    counted = page.filters.is_open and bool({"whole", "counts"} & request.GET.keys())
    shown = {"listing": page, "rows": [*page.rows, *rows], "counted": counted}
    return render(request, "reviews/_rows.html", viewer_of(request) | shown)


@require_GET
@access.permits(access.may_review)
def review_count(request: HttpRequest) -> HttpResponse:
    """How many reviews are open, for the navigation of a page that is open."""
    return render(request, "_nav_count.html", {"count": Review.objects.open().count()})


def viewer_of(request: HttpRequest) -> dict[str, object]:
    """What rows ask about whoever looks, and at which review."""
    return {"may_decide": access.may_decide(request.user), "selected": request.GET.get("selected")}
