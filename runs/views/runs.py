"""The list of runs, the page of one run, and what a person may do to it."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, commands, sdk, timeline, waiting
from runs.models import Run, RunStatus
from runs.views import keyset

EVENTS_A_PAGE = 200
LARGEST = 2**63 - 1  # a greater number fits no column and names no row
HEAD_PARTS = ("state", "waiting", "result", "actions", "facts", "related")
FILTERS = ("agent", "status", "text")
RELATIVES = ("original", "parent")  # of whose forks or children the list is


@require_GET
@access.permits(access.may_look)
def runs(request: HttpRequest) -> HttpResponse:
    """Newest first; filtered by agent, status and a text of the input. `?children=show` adds the runs that runs started."""
    filters = {name: request.GET.get(name, "").replace("\x00", "").strip() for name in FILTERS}
    given = {name: _number(request.GET.get(name)) for name in RELATIVES}
    relatives = {name: number for name, number in given.items() if number is not None}
    found = Run.objects.matching(**filters).related_to(**relatives)
    with_children = "parent" in relatives or request.GET.get("children") == "show"
    if not with_children:
        found = found.top_level()
    page = keyset.page(found.with_child_count(), ("created_at", "id"), request.GET)
    shown = {
        "page": page,
        "waits": waiting.answers(page.rows),
        "filters": filters | relatives,
        "filtered": any(filters.values()) or bool(relatives),
        "with_children": with_children,
        "agents": sdk.agents(),
        "statuses": RunStatus.choices,
        "may_start": access.may_start(request.user),
        "here": request.get_full_path(),
    }
    return render(request, "runs/_list.html" if _is_refresh(request) else "runs/list.html", shown)


@require_GET
@access.permits(access.may_look)
def run(request: HttpRequest, run_id: int) -> HttpResponse:
    """The timeline; `?before=7` shows the steps before the seventh, `?open=all` opens every one."""
    found = found_run(run_id)
    shown = timeline.page(found, before=_number(request.GET.get("before")))
    shown |= viewer(request.user) | {"open_all": request.GET.get("open") == "all", "agent": sdk.AGENTS.get(found.agent)}
    return render(request, "runs/run.html", shown)


@require_GET
@access.permits(access.may_look)
def run_part(request: HttpRequest, run_id: int, name: str) -> HttpResponse:
    """One part of the run's page by its name, for what does not fit into a message of the socket."""
    found = found_run(run_id)
    kind, _, number = name.partition("-")
    if kind in HEAD_PARTS and not number:
        shown = timeline.head(found)
    elif kind in ("step", "event"):
        shown = _numbered_part(found, kind, _number(number) or 0)
    else:
        raise Http404(f"A run's page has no part {name}.")
    return render(request, f"runs/_{kind}.html", shown | viewer(request.user))


def _numbered_part(run: Run, kind: str, number: int) -> dict[str, Any]:
    if kind == "step":
        cards = timeline.cards(run, positions=[number])
        found: dict[str, Any] = {"run": run, "card": cards[0]} if cards else {}
    else:
        lines = timeline.log(run.pk, after=number - 1, most=1) if number else []
        found = {"line": lines[0]} if lines else {}
    if not found:
        raise Http404(f"Run {run.pk} has no {kind} {number}.")
    return found


@require_GET
@access.permits(access.may_look)
def run_events(request: HttpRequest, run_id: int) -> HttpResponse:
    """Every event, oldest first, a page at a time; `?format=json` is the raw record."""
    found, after = found_run(run_id), _number(request.GET.get("after")) or 0
    lines = timeline.log(run_id, after=after, most=EVENTS_A_PAGE)
    if request.GET.get("format") == "json":
        return JsonResponse({"run": run_id, "events": [_raw(line) for line in lines]})
    more = lines and lines[-1].fact.seq < found.last_seq
    shown = {
        "run": found,
        "lines": lines,
        "newest": "?" if after else "",
        "older": f"?after={lines[-1].fact.seq}" if more else "",
    }
    return render(request, "runs/events.html", shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def cancel_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """End the run; what is being executed has a moment to finish first."""
    found = found_run(run_id)
    if request.method == "GET":
        return _only_opened(request, found)
    try:
        commands.cancel(run_id, by=request.user.get_username(), reason=request.POST.get("reason", "").strip()[:500])
        messages.success(request, f"Run {run_id} is being cancelled.")
    except commands.Refused as refused:
        messages.error(request, str(refused))
    return redirect(found)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def retry_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """Let a failed or cancelled run go on from where it ended."""
    found = found_run(run_id)
    if request.method == "GET":
        return _only_opened(request, found)
    try:
        commands.retry(run_id, by=request.user.get_username())
        messages.success(request, f"Run {run_id} goes on.")
    except commands.Refused as refused:
        messages.error(request, str(refused))
    return redirect(found)


def viewer(user: AbstractBaseUser | AnonymousUser) -> dict[str, bool]:
    """What the parts of a page ask about whoever looks."""
    return {"may_review": access.may_review(user), "may_control": access.may_control(user)}


def _only_opened(request: HttpRequest, run: Run) -> HttpResponse:
    """The sign-in leads to where a form was sent to, but without the form: nothing is done, and it is said."""
    messages.info(request, access.ONLY_OPENED)
    return redirect(run)


def found_run(run_id: int) -> Run:
    return get_object_or_404(Run, pk=run_id if run_id <= LARGEST else 0)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_refresh(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def _raw(line: timeline.EventLine) -> dict[str, Any]:
    fact = line.fact
    names = ("seq", "kind", "step", "actor", "data", "prev_hash", "hash")
    return {name: getattr(fact, name) for name in names} | {"at": fact.at.isoformat()}
