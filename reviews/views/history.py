"""What was decided, and what is open or was decided as files."""

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from reviews import export
from reviews.filters import Filters
from reviews.models import Cause, Decision
from reviews.past import Past
from reviews.presentation import ReviewPage
from reviews.views.common import actor
from runs import access, sdk
from runs.views import files, keyset


@require_GET
@access.permits(access.may_review)
def decision_list(request: HttpRequest) -> HttpResponse:
    """Every decision, the newest first."""
    past = Past.read(request.GET)
    page = keyset.page(past.decisions(), ("decided_at", "id"), request.GET)
    shown = {
        "past": past,
        "page": page,
        "rows": [(decision, ReviewPage(decision.review, [])) for decision in page.rows],
        "kinds": Decision.Kind.choices,
        "causes": Cause.choices,
        "agents": sdk.agents(),
    }
    return render(request, "reviews/history.html", shown)


@require_GET
@access.permits(access.may_review)
def export_decisions(request: HttpRequest, form: str) -> StreamingHttpResponse:
    """The decisions that the filters of the address let through."""
    return files.as_file(form, "decisions", Past.read(request.GET).decisions(), export.OF_DECISION)


@require_GET
@access.permits(access.may_review)
def export_reviews(request: HttpRequest, form: str) -> StreamingHttpResponse:
    """The reviews that the filters of the address let through, also those of later pages."""
    reviews = Filters.read(request.GET, actor(request)).reviews().with_people()
    return files.as_file(form, "reviews", reviews, export.OF_REVIEW)
