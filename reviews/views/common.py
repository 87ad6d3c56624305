"""What the views of reviews share."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect

from reviews import decisions
from reviews.listing import Filters, listing
from reviews.models import Cause, Review
from reviews.models.preference import single_keys
from runs import access, payloads, sdk

HURRIED = "hurried"  # in the session: the word to whoever decides without looking, as of their last decision


def found(review_id: int) -> Review:
    return get_object_or_404(Review.objects.with_people(), pk=review_id)


def actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - permits() lets nobody else in
    return request.user


def only_opened(request: HttpRequest, review: Review) -> HttpResponse:
    """The sign-in leads to where a form was sent to, but without the form: nothing is done, and it is said."""
    messages.info(request, access.ONLY_OPENED)
    return redirect(address(review, request.GET))


def beside(request: HttpRequest) -> dict[str, object]:
    """What every page of the inbox shows beside the review: the list and its filters."""
    person = actor(request)
    with payloads.of_other_runs(person):
        rows = listing(request.GET, person)
    shown = {"listing": rows, "causes": Cause.choices, "agents": sdk.agents()}
    return shown | {"single_keys": single_keys(person), "undoable": decisions.undoable(person)}


def address(review: Review, query: QueryDict) -> str:
    filters = Filters.read(query).query
    return f"{review.get_absolute_url()}?{filters}" if filters else review.get_absolute_url()
