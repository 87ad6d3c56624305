"""The page of one review."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from reviews import decisions, drafts, presence
from reviews.choices import Choice, choices
from reviews.eligibility import Eligibility
from reviews.listing import Filters, Listing
from reviews.models import Decision, Review
from reviews.presentation import ReviewPage
from reviews.views.common import actor, beside, found
from runs import access, payloads
from runs.engine.comparison import changes
from runs.models.content import are_hidden

SCRIPTS = "scripts"


@require_GET
@access.permits(access.may_review)
def review_page(request: HttpRequest, review_id: int) -> HttpResponse:
    review = found(review_id)
    return answer(request, review, None)


@require_GET
@access.permits(access.may_review)
def review_news(request: HttpRequest, review_id: int) -> HttpResponse:
    """What others did to the review since the page was opened; the page itself stays as it is."""
    review = found(review_id)
    first = decisions.pending(review) if review.is_open and review.approvals > 1 else None
    is_new = str(first.pk if first else "") != request.GET.get("first", "")  # than what the page was shown with
    shown = {"page": ReviewPage(review, [], first), "first_is_new": is_new, "may_decide": access.may_decide(request.user)}
    return render(request, "reviews/_news.html", shown | {"listing": Listing(Filters.read(request.GET, actor(request)))})


def answer(
    request: HttpRequest, review: Review, offered: list[Choice] | None, *, status: int = 200, **more: object
) -> HttpResponse:  # fmt: skip
    """The page of a review, whatever just happened to it; without choices those that this person has, with their draft.

    A browser that carries out scripts asks for the counts of the tabs afterwards (inbox-counts.js says so in a cookie).
    """
    more |= {"uncounted": SCRIPTS in request.COOKIES and Filters.read(request.GET).is_open}
    if are_hidden():
        shown = {"page": ReviewPage(review, []), "why_not": Eligibility(review, actor(request)).why_not()}
        shown |= {"may_decide": access.may_decide(request.user)}
        return render(request, "reviews/review.html", beside(request) | shown | more, status=status)
    typed = drafts.of(review, actor(request))
    first = decisions.pending(review) if review.is_open and review.approvals > 1 else None
    if offered is None:
        offered = choices(review, drafts=typed if review.is_open else (), actor=actor(request))
    page = ReviewPage(review, offered, first)
    if not access.may_see_payloads(request.user):
        with payloads.of_other_runs(request.user):
            _ = page.precedents  # kept for the template
    shown = {"page": page, "may_decide": access.may_decide(request.user), "drafts": typed}
    shown |= {"may_control": access.may_control(request.user), "may_look": access.may_look(request.user)}
    shown |= {"why_not": Eligibility(review, actor(request)).why_not(), "first": first}
    shown |= {"first_changes": changes(review.proposal, first.value) if first and first.kind == Decision.Kind.EDIT else []}
    shown |= {"typed_before": [drafts.typed(draft) for draft in typed]}
    shown |= {"opened": request.POST.get("opened") or presence.signed_now(review.pk, actor(request))}
    return render(request, "reviews/review.html", beside(request) | shown | more, status=status)
