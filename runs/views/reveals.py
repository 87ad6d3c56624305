"""Reveals the payloads of one run to whoever may not see them otherwise."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from runs import access, payloads
from runs.requests import Refused
from runs.views.runs import found_run


@require_http_methods(["GET", "POST"])
@access.permits(access.may_reveal)
def reveal_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """It is recorded with its reason, and ends by itself; `back` is the page that asked."""
    found, back = found_run(run_id), request.POST.get("back", "")
    if request.method == "GET":
        messages.info(request, access.ONLY_OPENED)
        return redirect(found)
    try:
        payloads.reveal(run_id, by=request.user, reason=request.POST.get("reason", ""))
        messages.success(request, f"The payloads of run {run_id} are shown to you for 30 minutes. This is recorded.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect(back if url_has_allowed_host_and_scheme(back, allowed_hosts=None) else found.get_absolute_url())
