"""Who is at a review."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from reviews import inbox
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
        inbox.release(review, actor(request))
        return HttpResponse(status=204)
    if inbox.claim(review, actor(request), now=timezone.now()) is None:
        messages.warning(request, _why_not_claimed(found(review_id)))
    return redirect(address(review, request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def release_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """The same as DELETE of the claim, for pages without JavaScript."""
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    inbox.release(review, actor(request))
    return redirect(address(review, request.GET))


def _why_not_claimed(review: Review) -> str:
    claim = review.held()
    if claim is None:
        return f"Review {review.pk} is no longer open, so it cannot be claimed."
    return f"{claim.reviewer} is at review {review.pk}. You can still decide it."
