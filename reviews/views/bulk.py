"""Many reviews at once: what would be decided, the decision, and what came of each."""

import uuid

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from reviews import bulk, selection
from reviews.forms import REASON_LETTERS
from reviews.listing import Filters
from reviews.models import BulkDecision, BulkItem, Decision, Review
from reviews.presentation import ReviewPage
from reviews.views.common import actor, found
from runs import access, commands, sealed

NONE_CHOSEN = "You have chosen no review. Tick some in the list, then decide them together."
OUT_OF_DATE = "What was to be decided is shown once more, because you saw it more than an hour ago: look again, then decide."


class BulkForm(forms.Form):
    """One reason for all."""

    reason = forms.CharField(required=False, max_length=REASON_LETTERS, label="Reason or remark")
    reason.help_text = (
        "A rejection needs one: the supervisor of each run reads it. Trying again hands it to a worker that takes remarks."
    )
    reason.widget = forms.Textarea({"class": "form-control", "rows": 2, "maxlength": REASON_LETTERS})

    tag = forms.ChoiceField(required=False, choices=[("", "Not said"), *Decision.Tag.choices], label="Class of the reason")
    tag.widget.attrs["class"] = "form-select w-auto"

    def clean_reason(self) -> str:
        reason: str = self.cleaned_data["reason"].strip()
        if not reason and self.data.get("decision") == Decision.Kind.REJECT:
            raise forms.ValidationError("Say why: a rejection needs a reason.")
        return reason


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def bulk_preview(request: HttpRequest) -> HttpResponse:
    """What would be decided of the reviews that were chosen; nothing is, before that page is sent."""
    if request.method == "GET":
        return _only_opened(request)
    chosen = _chosen(request)
    if not chosen:
        messages.info(request, NONE_CHOSEN)
        return redirect(_inbox(request))
    return _shown(request, selection.preview(chosen, actor(request)), BulkForm())


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def decide_bulk(request: HttpRequest) -> HttpResponse:
    """302 to what came of it; 409 the preview is too old, 422 a reason is missing."""
    if request.method == "GET":
        return _only_opened(request)
    kind, form = request.POST.get("decision", ""), BulkForm(request.POST)
    try:
        seen = selection.opened(request.POST.get("seen", ""), actor(request))
    except sealed.OutOfDate:
        messages.warning(request, OUT_OF_DATE)
        return redirect(_inbox(request))
    if not form.is_valid():
        return _again(request, seen, form)
    try:
        begun = bulk.begin(
            seen,
            actor=actor(request),
            kind=kind,
            reason=form.cleaned_data["reason"],
            tag=form.cleaned_data["tag"],
            without=_ids(request.POST.getlist("without")),
        )
    except commands.Refused as refused:
        form.add_error(None, str(refused))
        return _again(request, seen, form)
    return redirect(f"{begun.get_absolute_url()}?{Filters.read(request.GET, actor(request)).query}")


@require_GET
@access.permits(access.may_review)
def bulk_result(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """What came of each, while it is carried out and afterwards; a part has the rows when they stay as they are."""
    decided = get_object_or_404(BulkDecision.objects.select_related("actor"), pk=bulk_id)
    found = dict(decided.items.order_by().values_list("outcome").annotate(Count("pk")))
    counts = [(word, found.get(outcome, 0)) for outcome, word in BulkItem.Outcome.choices]
    total, left, is_part = sum(found.values()), found.get("", 0), "part" in request.GET
    goes_on = left > 0 and not decided.is_silent
    shown = {"bulk": decided, "counts": counts, "total": total, "done": total - left, "left": left}
    shown |= {"goes_on": goes_on, "is_part": is_part}
    shown |= {"query": Filters.read(request.GET, actor(request)).query, "is_mine": decided.actor_id == actor(request).pk}
    if not (is_part and goes_on):
        rows = decided.items.select_related("review__run").order_by("-outcome", "pk")
        shown["items"] = rows.only("bulk", "outcome", "said", "review__title", "review__run__input_text")
    return render(request, "reviews/_bulk_result.html" if is_part else "reviews/bulk_result.html", shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def continue_bulk(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """Carry out what is left, where whoever did so has ended."""
    decided = _own(request, bulk_id)
    if request.method == "POST":
        bulk.go_on(decided)
    return redirect(f"{decided.get_absolute_url()}?{Filters.read(request.GET, actor(request)).query}")


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def undo_bulk(request: HttpRequest, bulk_id: uuid.UUID) -> HttpResponse:
    """Take back what is not carried out yet."""
    decided = _own(request, bulk_id)
    if request.method == "POST":
        count, left = bulk.undo(decided, actor=actor(request))
        again = ["1 review is open again" if count == 1 else f"{count:,} reviews are open again"] if count else []
        stays = [f"{left:,} that nobody had come to {'stays' if left == 1 else 'stay'} open"] if left else []
        said = f"Taken back: {' and '.join(again + stays)}." if count or left else "It was too late: all of them are carried out."
        messages.success(request, said)
    return redirect(f"{decided.get_absolute_url()}?{Filters.read(request.GET, actor(request)).query}")


def _own(request: HttpRequest, bulk_id: uuid.UUID) -> BulkDecision:
    """To look at is any reviewer's; what follows is its actor's alone."""
    decided = get_object_or_404(BulkDecision, pk=bulk_id)
    if decided.actor_id != actor(request).pk:
        raise PermissionDenied
    return decided


def _chosen(request: HttpRequest) -> list[Review]:
    """Those that were ticked, those that match the filter of the page, or those that ask exactly the same."""
    same = _ids([request.POST.get("same", "")])
    if same:
        return selection.identical(found(same[0]))
    if "all" in request.POST:
        return list(Filters.read(request.GET, actor(request)).reviews().with_people()[: selection.MOST + 1])
    ticked = Review.objects.filter(pk__in=_ids(request.POST.getlist("review")))
    return list(ticked.in_turn().with_people())


def _ids(given: list[str]) -> list[int]:
    """What is none is dropped."""
    return [int(one) for one in given if one.isdecimal() and len(one) < 19]


def _again(request: HttpRequest, seen: sealed.Seen, form: BulkForm) -> HttpResponse:
    """The preview of what was seen, as it is now, with what does not fit."""
    reviews = Review.objects.filter(pk__in=[pk for pk, _ in seen.shown]).in_turn().with_people()
    return _shown(request, selection.preview(reviews, actor(request)), form, status=422)


def _shown(request: HttpRequest, preview: selection.Preview, form: BulkForm, *, status: int = 200) -> HttpResponse:
    page = ReviewPage(preview.first, []) if preview.rows else None
    left_out = _ids(request.POST.getlist("without"))
    shown = {"preview": preview, "page": page, "form": form, "left_out": left_out, "most": selection.MOST}
    return render(request, "reviews/bulk.html", shown | {"query": Filters.read(request.GET, actor(request)).query}, status=status)


def _inbox(request: HttpRequest) -> str:
    return f"{reverse('inbox')}?{Filters.read(request.GET, actor(request)).query}"


def _only_opened(request: HttpRequest) -> HttpResponse:
    messages.info(request, access.ONLY_OPENED)
    return redirect(_inbox(request))
