"""The inbox: the list, and how many there are."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from reviews.listing import listing
from reviews.models import Review
from reviews.views.common import beside
from runs import access


@require_GET
@access.permits(access.may_review)
def inbox_page(request: HttpRequest) -> HttpResponse:
    """Every open review, the oldest first."""
    return render(request, "reviews/inbox.html", beside(request))


@require_GET
@access.permits(access.may_review)
def review_list(request: HttpRequest) -> HttpResponse:
    """The list alone, asked for again when something has changed."""
    return render(request, "reviews/_list.html", {"listing": listing(request.GET), "selected": request.GET.get("selected")})


@require_GET
@access.permits(access.may_review)
def review_count(request: HttpRequest) -> HttpResponse:
    """How many reviews are open, for the navigation of a page that is open."""
    return render(request, "_nav_count.html", {"count": Review.objects.open().count()})
