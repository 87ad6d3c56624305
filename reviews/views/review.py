"""One review, and what a person decides about it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from reviews import decisions
from reviews.forms import Choice, choices
from reviews.listing import Filters
from reviews.models import Review
from reviews.presentation import ReviewPage, done
from reviews.views.common import actor, address, beside, found, only_opened
from runs import access, commands


@require_GET
@access.permits(access.may_review)
def review_page(request: HttpRequest, review_id: int) -> HttpResponse:
    review = found(review_id)
    return _answer(request, review, choices(review))


@require_GET
@access.permits(access.may_review)
def review_news(request: HttpRequest, review_id: int) -> HttpResponse:
    """What others did to the review since the page was opened; the page itself stays as it is."""
    return render(request, "reviews/_news.html", {"page": ReviewPage(found(review_id), [])})


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def decide_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """302 to the next review; 400 not allowed, 409 somebody was first or it changed, 422 what was typed does not fit."""
    review, kind = found(review_id), request.POST.get("decision", "")
    if request.method == "GET":
        return only_opened(request, review)
    offered = choices(review, chosen=kind, data=request.POST)
    choice = next((choice for choice in offered if choice.kind == kind), None)
    if choice and review.is_open and not choice.is_valid():
        return _answer(request, review, offered, status=200 if choice.asks_for_rows() else 422)
    try:
        return _decided(request, review, kind, choice)
    except decisions.Conflict as conflict:
        typed = choice.typed() if choice else None
        return _answer(request, conflict.review, [], status=409, too_late=True, typed=typed)
    except decisions.Stale as stale:
        return _answer(request, review, offered, status=409, trouble=str(stale))
    except commands.Refused as refused:
        return _answer(request, review, choices(review), status=400, trouble=str(refused))


def _decided(request: HttpRequest, review: Review, kind: str, choice: Choice | None) -> HttpResponse:
    decision = decisions.decide(
        review.pk,
        actor=actor(request),
        kind=kind,
        seen=request.POST.get("seen", ""),
        value=choice.value() if choice and review.is_open else None,
        reason=choice.reason() if choice and review.is_open else "",
    )
    messages.success(request, done(decision))
    following = Filters.read(request.GET, actor(request)).next(review)
    return redirect(address(following, request.GET) if following else reverse("inbox"))


def _answer(request: HttpRequest, review: Review, offered: list[Choice], *, status: int = 200, **more: object) -> HttpResponse:
    """The page of a review, whatever just happened to it."""
    shown = {"page": ReviewPage(review, offered), "may_decide": access.may_decide(request.user)}
    return render(request, "reviews/review.html", beside(request) | shown | more, status=status)
