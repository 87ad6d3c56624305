"""Who is at a review, and who has it open."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from reviews import claims, notices, presence
from reviews.eligibility import Eligibility
from reviews.filters import Filters
from reviews.models import Review
from reviews.views.common import actor, address, found, only_opened
from runs import access


@require_http_methods(["GET", "POST", "DELETE"])
@access.permits(access.may_decide)
def claim_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """POST takes the review for five minutes, DELETE gives it back."""
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    if request.method == "DELETE":
        claims.release(review_id, actor(request))
        return HttpResponse(status=204)
    if why_not := Eligibility(review, actor(request)).why_not():
        messages.warning(request, why_not)
    elif not claims.claim(review_id, actor(request)):
        messages.warning(request, _why_not_claimed(found(review_id)))
    return redirect(address(review, request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def release_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """The same as DELETE of the claim, for pages without JavaScript."""
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    claims.release(review_id, actor(request))
    return redirect(address(review, request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def next_review(request: HttpRequest) -> HttpResponse:
    """Claim the first of the present filter that is for this person and that nobody is at."""
    filters = Filters.read(request.GET, actor(request))
    inbox = f"{reverse('inbox')}?{filters.query}" if filters.query else reverse("inbox")
    if request.method == "GET":
        messages.info(request, access.ONLY_OPENED)
        return redirect(inbox)
    review_id = claims.next_one(filters.reviews(), actor(request))
    if review_id is None:
        messages.info(request, "Nothing waits for you here: what is open is claimed, assigned to others or for another group.")
        return redirect(inbox)
    return redirect(address(Review(pk=review_id), request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def here(request: HttpRequest, review_id: int) -> HttpResponse:
    """An open page says so, again and again, and when it is left; the answer says who else looks at the review.

    Where another is at it than the page shows (its `holder`), because somebody began to edit, the answer says that too.
    """
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    reviewer = actor(request)
    if "left" in request.POST:
        presence.leave(review_id, reviewer)
        claims.leave(review_id, reviewer)
        return HttpResponse(status=204)
    presence.beat(review_id, reviewer)
    claims.renew(review_id, reviewer)
    notices.read(review_id, reviewer)
    review, names = found(review_id), presence.others([review_id], reviewer).get(review_id, [])
    claim = review.held()
    anew = review.is_open and request.POST.get("holder", "") != str(claim.reviewer_id if claim else "")
    shown = {"names": names, "anew": anew, "review": review, "claim": claim, "may_decide": access.may_decide(reviewer)}
    shown |= {"why_not": Eligibility(review, reviewer).why_not()} if anew else {}
    return render(request, "reviews/_present.html", shown | {"query": Filters.read(request.GET).query})


def _why_not_claimed(review: Review) -> str:
    claim = review.held()
    if claim is None:
        return f"Review {review.pk} is no longer open, so it cannot be claimed."
    return f"{claim.reviewer} is at review {review.pk}. You can still decide it."
