"""The page that compares two runs."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from runs import access, timeline
from runs.models import Run
from runs.models.content import are_hidden
from runs.pairs import differences, pairs
from runs.views.runs import found_run, number_of

FOLDED = 6  # where more fields of a value differ, they are behind a line that says how many


@require_GET
@access.permits(access.may_look)
def compare_with(request: HttpRequest, run_id: int) -> HttpResponse:
    """From the number that somebody typed to the page."""
    left, number = found_run(run_id), number_of(request.GET.get("with"))
    if number is None or not Run.objects.filter(pk=number).exists():
        messages.error(request, "There is no such run to compare with: give the number of one.")
        return redirect(left)
    return redirect("compare_runs", run_id, number)


@require_GET
@access.permits(access.may_look)
def compare_runs(request: HttpRequest, run_id: int, other_id: int) -> HttpResponse:
    """Step by step, by their names; `?after=50` shows those beyond the fiftieth."""
    left, right = timeline.with_large(found_run(run_id)), timeline.with_large(found_run(other_id))
    shown: dict[str, Any] = {"left": left, "right": right, "both": [left, right]}
    if are_hidden():  # what nobody may see cannot be said to differ
        return render(request, "runs/compare.html", shown)
    found = pairs(left, right, after=number_of(request.GET.get("after")) or 0)
    shown |= {
        "found": found,
        "input": differences(left.input, right.input),
        "output": differences(left.output, right.output) if left.ended and right.ended else [],  # one that goes on has none yet
        "folded": FOLDED,
        "newest": "?" if request.GET.get("after") else "",
        "older": f"?after={found.after}" if found.after else "",
    }
    return render(request, "runs/compare.html", shown)
