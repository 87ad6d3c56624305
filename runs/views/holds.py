"""Who keeps a run from retention, and releases it."""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from runs import access, holds
from runs.requests import Refused
from runs.views.runs import found_run


@require_http_methods(["GET", "POST"])
@access.permits(access.may_hold)
def hold_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """Retention keeps it from now on."""
    reason, by = request.POST.get("reason", ""), request.user.get_username()
    return _done(request, run_id, lambda: holds.hold(run_id, by=by, reason=reason), "is held: it is kept however old it is.")


@require_http_methods(["GET", "POST"])
@access.permits(access.may_hold)
def release_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """It is kept no longer than others."""
    by = request.user.get_username()
    return _done(request, run_id, lambda: holds.release(run_id, by=by), "is released: it is kept no longer than others.")


def _done(request: HttpRequest, run_id: int, do: Callable[[], None], said: str) -> HttpResponse:
    found = found_run(run_id)
    if request.method == "GET":
        messages.info(request, access.ONLY_OPENED)
        return redirect(found)
    try:
        do()
        messages.success(request, f"Run {run_id} {said}")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect(found)
