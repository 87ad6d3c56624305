"""Filters of the inbox that people keep under a name."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from reviews.filters import Filters
from reviews.models import SavedView
from runs import access
from runs.views import saved

INBOX = saved.Place(SavedView, "the inbox", "inbox", "saved_views", "change_view", "delete_view", Filters.read)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def saved_views(request: HttpRequest) -> HttpResponse:
    return saved.all_views(request, INBOX)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def change_view(request: HttpRequest, view_id: int) -> HttpResponse:
    return saved.change(request, INBOX, view_id)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def delete_view(request: HttpRequest, view_id: int) -> HttpResponse:
    return saved.delete(request, INBOX, view_id)
