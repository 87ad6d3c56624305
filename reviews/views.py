"""The inbox, a review, and what a person does about it."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from reviews import decisions, inbox
from reviews.forms import Choice, choices
from reviews.listing import Filters, listing
from reviews.models import Cause, Review
from reviews.presentation import ReviewPage, done
from runs import access, commands, sdk


@require_GET
@access.permits(access.may_review)
def inbox_page(request: HttpRequest) -> HttpResponse:
    """Every open review, the oldest first."""
    return render(request, "reviews/inbox.html", _beside(request))


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


@require_GET
@access.permits(access.may_review)
def review_page(request: HttpRequest, review_id: int) -> HttpResponse:
    review = _found(review_id)
    return _answer(request, review, choices(review))


@require_GET
@access.permits(access.may_review)
def review_news(request: HttpRequest, review_id: int) -> HttpResponse:
    """What others did to the review since the page was opened; the page itself stays as it is."""
    return render(request, "reviews/_news.html", {"page": ReviewPage(_found(review_id), [])})


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def decide_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """302 to the next review; 400 not allowed, 409 somebody was first or it changed, 422 what was typed does not fit."""
    review, kind = _found(review_id), request.POST.get("decision", "")
    if request.method == "GET":
        return _only_opened(request, review)
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


@require_http_methods(["GET", "POST", "DELETE"])
@access.permits(access.may_decide)
def claim_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """POST takes the review for five minutes, DELETE gives it back."""
    review = _found(review_id)
    if request.method == "GET":
        return _only_opened(request, review)
    if request.method == "DELETE":
        inbox.release(review, _actor(request))
        return HttpResponse(status=204)
    if inbox.claim(review, _actor(request), now=timezone.now()) is None:
        messages.warning(request, _why_not_claimed(_found(review_id)))
    return redirect(_address(review, request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def release_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """The same as DELETE of the claim, for pages without JavaScript."""
    review = _found(review_id)
    if request.method == "GET":
        return _only_opened(request, review)
    inbox.release(review, _actor(request))
    return redirect(_address(review, request.GET))


# --- parts --------------------------------------------------------------------------------------------------------


def _found(review_id: int) -> Review:
    return get_object_or_404(Review.objects.with_people(), pk=review_id)


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - permits() lets nobody else in
    return request.user


def _only_opened(request: HttpRequest, review: Review) -> HttpResponse:
    """The sign-in leads to where a form was sent to, but without the form: nothing is done, and it is said."""
    messages.info(request, access.ONLY_OPENED)
    return redirect(_address(review, request.GET))


def _decided(request: HttpRequest, review: Review, kind: str, choice: Choice | None) -> HttpResponse:
    decision = decisions.decide(
        review.pk,
        actor=_actor(request),
        kind=kind,
        seen=request.POST.get("seen", ""),
        value=choice.value() if choice and review.is_open else None,
        reason=choice.reason() if choice and review.is_open else "",
    )
    messages.success(request, done(decision))
    following = Filters.read(request.GET).next(review)
    return redirect(_address(following, request.GET) if following else reverse("inbox"))


def _answer(request: HttpRequest, review: Review, offered: list[Choice], *, status: int = 200, **more: object) -> HttpResponse:
    """The page of a review, whatever just happened to it."""
    shown = {"page": ReviewPage(review, offered), "may_decide": access.may_decide(request.user)}
    return render(request, "reviews/review.html", _beside(request) | shown | more, status=status)


def _beside(request: HttpRequest) -> dict[str, object]:
    """What every page of the inbox shows beside the review: the list and its filters."""
    return {"listing": listing(request.GET), "causes": Cause.choices, "agents": sdk.agents()}


def _address(review: Review, query: QueryDict) -> str:
    filters = Filters.read(query).query
    return f"{review.get_absolute_url()}?{filters}" if filters else review.get_absolute_url()


def _why_not_claimed(review: Review) -> str:
    claim = review.held()
    if claim is None:
        return f"Review {review.pk} is no longer open, so it cannot be claimed."
    return f"{claim.reviewer} is at review {review.pk}. You can still decide it."
