"""Many runs at once: what would be cancelled or retried, the confirmation, and what came of each."""

import uuid
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, bulk, sealed, waiting
from runs.engine.canonical import clean
from runs.filters import is_id
from runs.listing import RunFilters
from runs.models import BulkAction, BulkActionItem, Run
from runs.views import keyset

REASON_LETTERS = 500
NONE_CHOSEN = "You have chosen no run. Tick some in the list, then cancel or retry them together."
OUT_OF_DATE = "Nothing was done: you saw these runs more than an hour ago. Choose them once more, look again, then confirm."
WORDS = {
    bulk.Kind.CANCEL: {"verb": "Cancel", "done": "Cancelled"},
    bulk.Kind.RETRY: {"verb": "Retry", "done": "Retried"},
}


@require_GET
@access.permits(access.may_look)
def bulk_actions(request: HttpRequest) -> HttpResponse:
    """All that were begun, the newest first."""
    found = BulkAction.objects.counted()
    return render(request, "runs/bulk_actions.html", {"page": keyset.page(found, ("begun_at", "id"), request.GET)})


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def preview_bulk_action(request: HttpRequest) -> HttpResponse:
    """What would be done to the runs that were chosen; nothing is, before that page is sent."""
    if request.method == "GET":
        return _only_opened(request)
    filters, is_all = RunFilters.read(request.GET), "all" in request.POST
    kind = request.POST.get("all" if is_all else "ticked", "")
    if kind not in bulk.Kind or not (is_all or _ticked(request)):
        messages.info(request, NONE_CHOSEN)
        return redirect(_list(request))
    return _previewed(request, bulk.preview(kind, filters if is_all else _ticked(request), _actor(request)), is_all=is_all)


def _previewed(request: HttpRequest, seen: bulk.Preview, *, is_all: bool = False) -> HttpResponse:
    shown = {"preview": seen, "words": WORDS[bulk.Kind(seen.kind)], "filters": RunFilters.read(request.GET)}
    shown |= {"most": bulk.MOST, "is_all": is_all, "waits": waiting.answers(seen.runs), "reason_letters": REASON_LETTERS}
    return render(request, "runs/bulk_preview.html", shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def begin_bulk_action(request: HttpRequest) -> HttpResponse:
    """302 to what came of it, or back to the list where the preview is too old."""
    if request.method == "GET":
        return _only_opened(request)
    try:
        seen = sealed.opened(request.POST.get("seen", ""), by=_actor(request).pk, salt=bulk.SALT)
    except sealed.OutOfDate:
        messages.warning(request, OUT_OF_DATE)
        return redirect(_list(request))
    reason = clean(request.POST.get("reason", "").strip(), REASON_LETTERS)
    return redirect(bulk.begin(seen, actor=_actor(request), reason=reason))


@require_GET
@access.permits(access.may_look)
def bulk_action(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """How far it is, and what came of each run; a part has only what changes while it is carried out."""
    begun = get_object_or_404(BulkAction.objects.select_related("actor"), pk=bulk_id)
    shown = _progress(request, begun)
    if "part" in request.GET and shown["goes_on"]:
        return render(request, "runs/_bulk_progress.html", shown)
    outcome = request.GET.get("outcome", "")
    items = begun.items.filter(outcome=outcome.removeprefix("left")) if outcome in shown["words_of"] else begun.items.all()
    page: keyset.Page[BulkActionItem] = keyset.page(items, ("run",), _without_part(request.GET))
    runs = Run.objects.only("status", "input_text").in_bulk([item.run for item in page.rows])
    shown |= {"page": page, "runs": runs, "outcome": shown["words_of"].get(outcome, ""), "is_part": "part" in request.GET}
    return render(request, "runs/_bulk_result.html" if "part" in request.GET else "runs/bulk_action.html", shown)


def _progress(request: HttpRequest, begun: BulkAction) -> dict[str, Any]:
    found = dict(begun.items.order_by().values_list("outcome").annotate(Count("pk")))
    total, left, words = sum(found.values()), found.get("", 0), WORDS[bulk.Kind(begun.kind)]
    words_of = dict(bulk.Outcome.choices) | {
        "done": words["done"],
        "left": "Not touched" if begun.stopped_at else "Still to come",
    }
    counts = [(outcome, word, left if outcome == "left" else found.get(outcome, 0)) for outcome, word in words_of.items()]
    shown: dict[str, Any] = {"bulk": begun, "words": words, "words_of": words_of, "counts": counts, "total": total}
    shown |= {"done": total - left, "left": left, "goes_on": bool(left and not begun.stopped_at and not begun.is_silent)}
    shown |= {"may_control": access.may_control(request.user), "is_mine": begun.actor_id == _actor(request).pk}
    return shown | {"may_go_on": bulk.may_go_on(begun)}


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def stop_bulk_action(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """Leave the rest as it is; whoever may control runs may do so, whoever began it."""
    begun = get_object_or_404(BulkAction, pk=bulk_id)
    if request.method == "GET":
        return _only_opened(request, begun)
    bulk.stop(begun, by=_actor(request).get_username())
    return redirect(begun)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def continue_bulk_action(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """Go on with what is left: in the name of whoever began it, hence by them alone; after long they look at it again first."""
    begun = get_object_or_404(BulkAction, pk=bulk_id)
    if begun.actor_id != _actor(request).pk:
        raise PermissionDenied
    if request.method == "GET":
        return _only_opened(request, begun)
    if not bulk.may_go_on(begun):
        return _previewed(request, bulk.preview_left(begun))
    bulk.go_on(begun)
    return redirect(begun)


def _ticked(request: HttpRequest) -> list[int]:
    return [int(one) for one in request.POST.getlist("run") if is_id(one)]


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - permits() lets nobody else in
    return request.user


def _list(request: HttpRequest) -> str:
    query = RunFilters.read(request.GET).query
    return f"{reverse('runs')}?{query}" if query else reverse("runs")


def _only_opened(request: HttpRequest, begun: BulkAction | None = None) -> HttpResponse:
    messages.info(request, access.ONLY_OPENED)
    return redirect(begun or _list(request))


def _without_part(query: QueryDict) -> QueryDict:
    """Links to other pages lead to whole ones."""
    wanted = query.copy()
    wanted.pop("part", None)
    return wanted
