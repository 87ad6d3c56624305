"""Filters of the list of runs that people keep under a name."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from runs import access
from runs.listing import RunFilters
from runs.models import RunView
from runs.views import saved

RUNS = saved.Place(RunView, "the list of runs", "runs", "run_views", "change_run_view", "delete_run_view", RunFilters.read)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_look)
def run_views(request: HttpRequest) -> HttpResponse:
    return saved.all_views(request, RUNS)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_look)
def change_run_view(request: HttpRequest, view_id: int) -> HttpResponse:
    return saved.change(request, RUNS, view_id)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_look)
def delete_run_view(request: HttpRequest, view_id: int) -> HttpResponse:
    return saved.delete(request, RUNS, view_id)
