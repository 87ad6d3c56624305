"""The list of runs, and what it shows as a file."""

from operator import attrgetter
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from runs import access, sdk, waiting
from runs.listing import WAITS, Count, RunFilters, agent_choices
from runs.models import BulkAction, Run, RunStatus, RunView
from runs.views import files, keyset

OF_RUN: files.Columns = {
    "run": attrgetter("pk"),
    "agent": attrgetter("agent"),
    "version": attrgetter("agent_version"),
    "status": attrgetter("status"),
    "waits_for": attrgetter("waiting_cause"),
    "tags": attrgetter("tags"),
    "started_by": attrgetter("started_by"),
    "created_at": attrgetter("created_at"),
    "started_at": attrgetter("started_at"),
    "finished_at": attrgetter("finished_at"),
    "seconds": lambda run: round((run.finished_at - run.created_at).total_seconds(), 3) if run.finished_at else None,
    "steps": attrgetter("step_count"),
    "parent": attrgetter("parent_id"),
    "forked_from": attrgetter("forked_from_id"),
    "summary": attrgetter("input_text"),
    "input": attrgetter("input"),
    "output": attrgetter("output"),
    "error": lambda run: (run.error or {}).get("message"),
}


@require_GET
@access.permits(access.may_look)
def runs(request: HttpRequest) -> HttpResponse:
    """Newest first, as the filters of the address say; `?children=show` adds the runs that runs started."""
    filters = RunFilters.read(request.GET)
    page: keyset.Page[Run] = keyset.page(filters.runs().with_child_count(), ("created_at", "id"), request.GET)
    shown: dict[str, Any] = {
        "page": page,
        "count": Count(filters, len(page.rows)) if page.newest or page.older else f"{len(page.rows):,}",
        "waits": waiting.answers(page.rows),
        "filters": filters,
        "here": request.get_full_path(),
        "under_way": BulkAction.objects.under_way().counted(),
        "may_control": access.may_control(request.user),
    }
    if request.headers.get("HX-Request") == "true":
        return render(request, "runs/_list.html", shown)
    return render(request, "runs/list.html", shown | _around(request, filters.agent))


def _around(request: HttpRequest, chosen: str) -> dict[str, Any]:
    """What stands around the list: it stays when the list is asked for again."""
    assert isinstance(request.user, User)  # noqa: S101 - permits() lets nobody else in
    return {
        "agents": sdk.agents(),
        "agent_choices": agent_choices(chosen),
        "statuses": RunStatus.choices,
        "causes": WAITS.items(),
        "saved_views": RunView.objects.for_viewer(request.user),
        "may_start": access.may_start(request.user),
    }


@require_GET
@access.permits(access.may_look)
def export_runs(request: HttpRequest, form: str) -> StreamingHttpResponse:
    """The runs that the filters of the address let through, also those of later pages."""
    return files.as_file(form, "runs", RunFilters.read(request.GET).runs(), OF_RUN)
