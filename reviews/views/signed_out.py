"""What is sent after the sign-in has ended: it waits in the browser's session, and is a draft of whoever signs in there."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase, QueryDict

from reviews import decisions, drafts
from reviews.models import Review
from runs import access, commands

TYPED = "typed_while_signed_out"
View = Callable[..., HttpResponseBase]


def keeps_what_was_typed(view: View) -> View:
    """Decorate the view of a review's form, outside of what sends strangers to the sign-in."""

    @wraps(view)
    def keeping(request: HttpRequest, review_id: int) -> HttpResponseBase:
        if request.method == "POST" and not request.user.is_authenticated and _is_known(review_id, request.POST.get("seen")):
            typed = {name: said for name, said in request.POST.items() if said and name not in drafts.NOT_TYPED}
            if typed.keys() - {"decision"} and sum(map(len, typed.values())) <= drafts.LETTERS:
                request.session[TYPED] = {"review": review_id, "fields": typed}
        return view(request, review_id)

    return keeping


@receiver(user_logged_in)
def become_a_draft(*, request: HttpRequest, user: User, **_: Any) -> None:
    kept = request.session.pop(TYPED, None)
    review = Review.objects.filter(pk=kept["review"]).first() if kept and access.may_decide(user) else None
    if review is None:
        return
    fields = QueryDict(mutable=True)
    fields.update(kept["fields"])
    try:
        drafts.save(review, user, fields)
    except commands.Refused as refused:
        messages.warning(request, f"What you had typed on review {review.pk} could not be kept: {refused}", fail_silently=True)


def _is_known(review_id: int, seen: str | None) -> bool:
    """Whether it comes from somebody who had the review open: strangers store nothing."""
    review = Review.objects.filter(pk=review_id).first()
    return review is not None and seen == decisions.seen(review, decisions.pending(review) if review.approvals > 1 else None)
