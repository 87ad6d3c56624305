"""How people decide, in numbers."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from reviews import numbers
from reviews.views.common import actor
from runs import access


@require_GET
@access.permits(access.may_review)
def numbers_page(request: HttpRequest) -> HttpResponse:
    """One's own; admins see everybody's."""
    me = actor(request)
    found = list(numbers.of(None if access.may_configure(me) else me.pk))
    mine = next((one for one in found if one.reviewer == me.get_username()), numbers.Numbers(me.get_username()))
    shown = {"mine": mine, "everybody": found if access.may_configure(me) else [], "gentle": numbers.GENTLE}
    shown |= {"days": numbers.DAYS, "since": timezone.now() - timedelta(days=numbers.DAYS), "quick": numbers.QUICK_SECONDS}
    return render(request, "reviews/numbers.html", shown)
