"""The page of one run, and what a person may do to it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, commands, limited, sdk, timeline, travel
from runs.cards import cards
from runs.models import Run
from runs.models.content import are_hidden
from runs.views import files

EVENTS_A_PAGE = 200
LARGEST = 2**63 - 1  # a greater number fits no column and names no row
QUOTED = re.compile('".+"')
HEAD_PARTS = ("state", "waiting", "result", "actions", "facts", "related")


@require_GET
@access.permits(access.may_look)
def run(request: HttpRequest, run_id: int) -> HttpResponse:
    """The timeline.

    `?step=7` opens the seventh step, `?before=7` shows those before it, `?open=all` opens every one; `?find=refund` names
    those in which that stands, `?find=7` opens the seventh, `?find="7"` looks for the text; `?until=40` is the run as its
    fortieth event left it, `?until=now` as the last one did.
    """
    found = found_run(run_id)
    if "until" in request.GET:
        return _past(request, found, min(number_of(request.GET["until"]) or found.last_seq, found.last_seq))
    text = request.GET.get("find", "").replace("\x00", "").strip()[:100]
    is_step = 1 <= (wanted := number_of(text) or 0) <= found.step_count
    look = timeline.Look(
        before=number_of(request.GET.get("before")),
        step=number_of(request.GET.get("step")),
        open_all=request.GET.get("open") == "all",
        idle=not _folds(request),
    )
    if is_step and look.step != wanted:
        return redirect(f"{found.get_absolute_url()}?step={wanted}&find={wanted}#step-{wanted}")
    if look.step is not None and not 1 <= look.step <= found.step_count:
        messages.info(request, f"Run {run_id} has no step {look.step}: it has {found.step_count} so far.")
        return redirect(found)
    shown = timeline.page(found, look) | viewer(request.user) | {"text": text}
    if text and not is_step:
        shown |= _found_in(found, text[1:-1] if QUOTED.fullmatch(text) else text)
    return render(request, "runs/run.html", shown | {"agent": sdk.AGENTS.get(found.agent)})


def _found_in(run: Run, text: str) -> dict[str, Any]:
    if are_hidden():
        return {"found": []}
    try:
        return {"found": timeline.find(run, text)}
    except limited.TookTooLong:
        return {"found": [], "gave_up": True}


def _past(request: HttpRequest, run: Run, until: int) -> HttpResponse:
    look = timeline.Look(step=number_of(request.GET.get("step")), idle=not _folds(request))
    past = travel.as_of(run, until, about=look.step)
    timeline.lighten(past.shown.cards, look, past.shown.count)
    (line,) = timeline.lines(run.pk, [past.fact])
    shown = {"run": run, "past": past, "line": line, "look": look, "cards": past.shown.cards}
    shown["about"] = min(look.step or past.step or 1, past.shown.count)
    shown |= timeline.drawn(past.shown, fold=not look.idle, at=past.fact.at)
    return render(request, "runs/past.html", shown | viewer(request.user))


@require_GET
@access.permits(access.may_look)
def run_part(request: HttpRequest, run_id: int, name: str) -> HttpResponse:
    """One part of the run's page by its name, for what does not fit into a message of the socket."""
    found = found_run(run_id)
    kind, _, number = name.partition("-")
    if kind in HEAD_PARTS and not number:
        shown = timeline.head(found)
    elif kind == "bars" and not number:
        return render(request, "runs/_bars.html", {"run": found} | _bars(request, found))
    elif kind == "nested":
        child = get_object_or_404(found.children, pk=number_of(number))
        return render(
            request, "runs/_nested_steps.html", timeline.nested_steps(found, *_reach(request), child, fold=_folds(request))
        )
    elif kind in ("step", "event"):
        shown = _numbered_part(found, kind, number_of(number) or 0)
    else:
        raise Http404(f"A run's page has no part {name}.")
    return render(request, f"runs/_{kind}.html", shown | viewer(request.user))


def _bars(request: HttpRequest, run: Run) -> dict[str, Any]:
    shown = timeline.bars(run, *_reach(request), fold=_folds(request))
    return shown | {"look": timeline.Look(idle=not _folds(request))}


def _reach(request: HttpRequest) -> tuple[int, int]:
    """The first and the last step of the page that asks."""
    first = number_of(request.GET.get("first")) or 1
    return first, max(first, number_of(request.GET.get("last")) or 1)


def _folds(request: HttpRequest) -> bool:
    return request.GET.get("idle") != "show"


def _numbered_part(run: Run, kind: str, number: int) -> dict[str, Any]:
    if kind == "step":
        shown = cards(run, positions=[number])
        found: dict[str, Any] = {"run": run, "card": shown[0]} if shown else {}
    else:
        lines = timeline.log(run.pk, after=number - 1, most=1) if number else []
        found = {"line": lines[0]} if lines else {}
    if not found:
        raise Http404(f"Run {run.pk} has no {kind} {number}.")
    return found


@require_GET
@access.permits(access.may_look)
def run_events(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """Every event, or those of `?step=7`, oldest first, a page at a time; `?format=json` is the raw record, all of it."""
    found, after, step = found_run(run_id), number_of(request.GET.get("after")) or 0, number_of(request.GET.get("step"))
    if request.GET.get("format") == "json":
        return StreamingHttpResponse(files.sent(_raw(run_id, after, step)), content_type="application/json")
    lines = timeline.log(run_id, after=after, most=EVENTS_A_PAGE, step=step)
    more = len(lines) == EVENTS_A_PAGE and lines[-1].fact.seq < found.last_seq
    of_step = f"&step={step}" if step else ""
    shown = {
        "run": found,
        "lines": lines,
        "step": step,
        "after": after,
        "newest": f"?{of_step}" if after else "",
        "older": f"?after={lines[-1].fact.seq}{of_step}" if more else "",
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
    return get_object_or_404(Run.objects.with_hold().with_reveals(), pk=run_id if run_id <= LARGEST else 0)


def number_of(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _raw(run_id: int, after: int, step: int | None) -> Iterator[str]:
    """One object; a line for each event, of which so many are read at a time."""
    names, before = ("seq", "kind", "step", "actor", "data", "prev_hash", "hash"), f'{{"run": {run_id}, "events": [\n'
    while found := timeline.facts(run_id, after=after, most=files.PIECE, step=step):
        raw = ({name: getattr(fact, name) for name in names} | {"at": fact.at.isoformat()} for fact in found)
        yield before + ",\n".join(json.dumps(one, ensure_ascii=False) for one in raw)
        before, after = ",\n", found[-1].seq
    yield "\n]}\n" if before == ",\n" else f"{before}]}}\n"
