"""What a page of the inbox asks for while somebody works on it: earlier steps, what an edit changes, how keys behave."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from reviews.choices import choices
from reviews.models import Preference
from reviews.presentation import ReviewPage
from reviews.views.common import actor, found
from runs import access, conversations
from runs.engine.comparison import changes
from runs.models.content import are_hidden


@require_GET
@access.permits(access.may_review)
def review_steps(request: HttpRequest, review_id: int) -> HttpResponse:
    """Every step before this one, as far as a page can hold them."""
    page = ReviewPage(found(review_id), [])
    return render(request, "reviews/_steps.html", {"page": page, "steps": page.all_steps_before})


@require_GET
@access.permits(access.may_review)
def review_conversation(request: HttpRequest, review_id: int) -> HttpResponse:
    """What the step that this is about said to models, and they to it."""
    page = ReviewPage(found(review_id), [])
    calls = conversations.of_step(page.review.run_id, page.review.position)
    return render(request, "reviews/_conversation.html", {"calls": calls, "step": page.step})


@require_POST
@access.permits(access.may_decide)
def review_diff(request: HttpRequest, review_id: int) -> HttpResponse:
    """What the form as it is typed would change in the proposal; nothing is kept of it."""
    review, kind = found(review_id), request.POST.get("decision", "")
    if are_hidden():
        return HttpResponse(status=204)
    choice = next((one for one in choices(review, chosen=kind, data=request.POST) if one.kind == kind), None)
    if not review.is_open or choice is None or not (choice.is_typed and choice.about_proposal):
        return HttpResponse(status=204)
    fits = choice.form is not None and choice.form.is_valid()  # whether or not it was said why
    differences = changes(review.proposal, choice.value()) if fits else []
    shown = {"page": ReviewPage(review, []), "fits": fits, "changes": differences}
    return render(request, "reviews/_difference.html", shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def set_keys(request: HttpRequest) -> HttpResponse:
    """Whether single letters do something for this person, on every machine."""
    back = request.POST.get("back", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        back = reverse("inbox")
    if request.method == "POST":
        wanted = "single_keys" in request.POST
        Preference.objects.update_or_create(user=actor(request), defaults={"single_keys": wanted})
        messages.info(request, f"Single keys are {'on' if wanted else 'off'}.")
    return redirect(back)
