"""What a person decides about a review, takes back, or keeps as a draft."""

from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_http_methods

from reviews import claims, confirmation, decisions, drafts, numbers, presence
from reviews.choices import Choice, choices
from reviews.eligibility import HIDDEN_FROM_YOU, lets_go_on
from reviews.listing import Filters
from reviews.models import Decision, Review
from reviews.presentation import done
from reviews.views.common import HURRIED, actor, address, found, only_opened
from reviews.views.review import answer
from reviews.views.signed_out import keeps_what_was_typed
from runs import access, commands
from runs.engine.comparison import changes
from runs.models.content import are_hidden

FIRST_OF_TWO = "Review {id}: 1 of 2 approvals. Somebody else must approve it too."
ALREADY = "You have already decided review {id}."
CONFIRM_ELSEWHERE = "Nothing was sent. Sign in once more in another tab, then send it from here."
CONFIRM = "The risk is high: give your password once more, then approve. What you typed is kept."


@require_http_methods(["GET", "POST"])
@keeps_what_was_typed
@access.permits(access.may_decide)
def decide_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """302 to the next review; 400 or 403 not allowed, 409 somebody was first or it changed, 422 what was typed does not fit."""
    review, kind = found(review_id), request.POST.get("decision", "")
    if request.method == "GET":
        return only_opened(request, review)
    if are_hidden():
        return answer(request, review, None, status=403)
    offered = choices(review, chosen=kind, data=request.POST, actor=actor(request))
    choice = next((choice for choice in offered if choice.kind == kind), None)
    judged = choice if review.is_open and not (choice and choice.why_not) else None  # of what is refused nothing is asked first
    if judged and not judged.is_valid():
        return answer(request, review, offered, status=200 if judged.asks_for_rows() else 422)
    if judged and not _is_checked(request, review, judged):
        return answer(request, review, offered)
    if judged and _must_confirm(request, review, kind):
        return _to_password(request, review, offered)
    try:
        return _decided(request, review, kind, choice)
    except decisions.Conflict as conflict:
        return _too_late(request, conflict.review, choice)
    except decisions.Stale as stale:
        return answer(request, review, offered, status=409, trouble=str(stale))
    except decisions.NotYours as not_yours:
        return answer(request, review, offered, status=403, trouble=str(not_yours))
    except decisions.Unchanged as unchanged:
        return _beside_the_form(request, review, offered, choice, str(unchanged))
    except commands.Refused as refused:
        return answer(request, review, offered if choice else None, status=400, trouble=str(refused))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def undo_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """302 to the review, which is open again; 403 it is another's decision, 409 it is too late."""
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    try:
        decisions.undo(review_id, actor=actor(request))
    except decisions.NotYours as not_yours:
        return answer(request, review, None, status=403, trouble=str(not_yours))
    except commands.Refused as refused:
        return answer(request, review, None, status=409, trouble=str(refused))
    messages.success(request, f"Taken back: review {review_id} is open again.")
    return redirect(address(review, request.GET))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def draft_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """POST keeps what is typed (204) and claims the review; or discards it and leads back there; 413 it is too long."""
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    if are_hidden():
        return HttpResponse(HIDDEN_FROM_YOU, status=403)
    if "discard" in request.POST:
        drafts.discard(review, actor(request))
        return redirect(address(review, request.GET))
    if review.is_open and request.POST.get("decision") in Decision.Kind:
        claims.claim_by_edit(review, actor(request))
        try:
            drafts.save_while_open(review, actor(request), request.POST)
        except commands.Refused as refused:
            return HttpResponse(str(refused), status=413)
    return HttpResponse(status=204)


# --- parts --------------------------------------------------------------------------------------------------------


def _decided(request: HttpRequest, review: Review, kind: str, choice: Choice | None) -> HttpResponse:
    fits = choice is not None and choice.is_valid()
    decision = decisions.decide(
        review.pk,
        actor=actor(request),
        kind=kind,
        seen=request.POST.get("seen", ""),
        value=choice.value() if choice and fits else None,
        reason=choice.reason() if choice and fits else "",
        tag=choice.tag() if choice and fits else "",
        undo_seconds=settings.UNDO_SECONDS,
        opened_at=presence.signed_at(request.POST.get("opened", ""), review.pk, actor(request)),
        barred=choice.why_not if choice else "",
    )
    messages.success(request, format_html('{} <a href="{}">Show it</a>', _said(decision), address(review, request.GET)))
    _count_seconds(request)
    following = Filters.read(request.GET, actor(request)).next(review)
    return redirect(address(following, request.GET) if following else reverse("inbox"))


def _beside_the_form(
    request: HttpRequest, review: Review, offered: list[Choice], choice: Choice | None, told: str
) -> HttpResponse:  # fmt: skip
    if choice and choice.form:
        choice.form.add_error(None, told)
    return answer(request, review, offered, status=422)


def _count_seconds(request: HttpRequest) -> None:
    """Whoever has begun to decide without looking is told so now, and above the inbox for as long as it is so."""
    mine = next(iter(numbers.of(actor(request).pk)), None)
    warning, before = mine.warning if mine else "", request.session.get(HURRIED, "")
    if warning and not before:
        messages.warning(request, f"{warning} {numbers.GENTLE}")
    if warning != before:
        request.session[HURRIED] = warning


def _said(decision: Decision) -> str:
    if decision.is_repeated:
        return ALREADY.format(id=decision.review_id)
    return done(decision) if decision.final else FIRST_OF_TWO.format(id=decision.review_id)


def _too_late(request: HttpRequest, review: Review, choice: Choice | None) -> HttpResponse:
    """Who was first, and what was typed beside it; it is kept as a draft as well."""
    typed = choice.typed() if choice else None
    not_kept = _not_kept(request, review) if typed else ""
    decided = review.decision
    went_on_with = (decided.value if decided.value is not None else review.proposal) if decided else None
    is_alike = choice is not None and choice.is_typed and went_on_with is not None
    differences = changes(went_on_with, typed) if is_alike else []
    said = {"too_late": True, "typed": typed, "differences": differences, "not_kept": not_kept}
    return answer(request, review, [], status=409, **said)


def _not_kept(request: HttpRequest, review: Review) -> str:
    """Keep what was typed as a draft: why it could not be kept, or ""."""
    try:
        drafts.save(review, actor(request), request.POST)
    except commands.Refused as refused:
        return str(refused)
    return ""


def _is_checked(request: HttpRequest, review: Review, choice: Choice) -> bool:
    """What is edited at high risk, or where somebody asks for it, is shown as changes before it is sent."""
    is_checked = choice.is_checked(review, request.POST.get("checked", ""))
    return is_checked or not (choice.must_check or "check" in request.POST)


def _must_confirm(request: HttpRequest, review: Review, kind: str) -> bool:
    return review.is_high_risk and lets_go_on(review, kind) and not confirmation.is_recent(request)


def _to_password(request: HttpRequest, review: Review, offered: list[Choice]) -> HttpResponse:
    if not_kept := _not_kept(request, review):
        return answer(request, review, offered, status=413, trouble=f"{not_kept} {CONFIRM_ELSEWHERE}")
    messages.info(request, CONFIRM)
    return redirect(f"{reverse('account_reauthenticate')}?{urlencode({'next': address(review, request.GET)})}")
