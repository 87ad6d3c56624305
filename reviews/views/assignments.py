"""Whose a review is, and from when on: take over, reassign, snooze. Each is a page of one form."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from reviews import assignments, claims, groups
from reviews.filters import Filters
from reviews.models import NoticeSettings, Review
from reviews.views.common import actor, address, found, only_opened
from runs import access, commands
from runs.engine.canonical import Unstorable

LONGEST_NOTE = 1000
NOBODY = "nobody"


class TakeOverForm(forms.Form):
    note = forms.CharField(
        label="Why you take it over",
        max_length=LONGEST_NOTE,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Whoever is at it now reads this.",
    )


class ReassignForm(forms.Form):
    """To a person, or to nobody: then everybody who is asked may take it."""

    person = forms.ChoiceField(label="To")
    note = forms.CharField(
        label="Note", max_length=LONGEST_NOTE, widget=forms.Textarea(attrs={"rows": 3}), help_text="It stays in the history."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = [(str(person.pk), str(person)) for person in groups.deciders()]
        self.fields["person"].choices = [("", "Choose"), *people, (NOBODY, "Nobody: everybody who is asked")]  # type: ignore[attr-defined]

    def to(self) -> User | None:
        chosen = self.cleaned_data["person"]
        return None if chosen == NOBODY else User.objects.get(pk=chosen)


class SnoozeForm(forms.Form):
    until = forms.DateTimeField(
        label="Until",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        error_messages={"invalid": "Write a date and a time, such as 2026-03-05 14:30."},
    )


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def take_over_review(request: HttpRequest, review_id: int) -> HttpResponse:
    review, form = found(review_id), TakeOverForm(request.POST or None)
    says = "It becomes yours for five minutes, as after a claim. Whoever is at it keeps what they have typed."
    shown = {"title": "Take over", "button": "Take over", "says": says}

    def act() -> HttpResponse:
        claims.take_over(review_id, actor(request), form.cleaned_data["note"])
        messages.success(request, f"You have taken over review {review_id}.")
        return redirect(address(review, request.GET))

    return _answer(request, review, form, act, shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def reassign_review(request: HttpRequest, review_id: int) -> HttpResponse:
    review, form = found(review_id), ReassignForm(request.POST or None)
    says = "Whoever gets it is told. If somebody has claimed it, that claim ends."
    shown = {"title": "Reassign", "button": "Reassign", "says": says}

    def act() -> HttpResponse:
        to = form.to()
        assignments.reassign(review_id, to, by=actor(request), note=form.cleaned_data["note"])
        messages.success(request, f"Review {review_id} is now {f'assigned to {to}' if to else 'for everybody who is asked'}.")
        return _onward(request, review)

    return _answer(request, review, form, act, shown)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def snooze_review(request: HttpRequest, review_id: int) -> HttpResponse:
    """`later` names one of the times that are offered, `until` is one of their own, by the reviewer's clock."""
    review, pace = found(review_id), NoticeSettings.of(actor(request))
    offered = {name: at for name, _, at in assignments.later(pace, timezone.now())}
    named = offered.get(request.POST.get("later", ""))
    with timezone.override(pace.zone):
        form = SnoozeForm({"until": timezone.localtime(named)} if named else request.POST or None)
        says = f"It leaves the list until then, for everybody. The time is by your clock ({pace.zone})."
        form.is_valid()

    def act() -> HttpResponse:
        until = named or form.cleaned_data["until"]
        assignments.snooze(review_id, until, by=actor(request))
        messages.success(request, f"Review {review_id} is snoozed until {pace.local(until):%Y-%m-%d %H:%M} ({pace.zone}).")
        return _onward(request, review)

    return _answer(request, review, form, act, {"title": "Snooze", "button": "Snooze", "says": says})


@require_http_methods(["GET", "POST"])
@access.permits(access.may_decide)
def wake_review(request: HttpRequest, review_id: int) -> HttpResponse:
    review = found(review_id)
    if request.method == "GET":
        return only_opened(request, review)
    try:
        assignments.wake(review_id, by=actor(request))
    except commands.Refused as refused:
        messages.warning(request, str(refused))
    return redirect(address(review, request.GET))


def _answer(
    request: HttpRequest, review: Review, form: forms.Form, act: Callable[[], HttpResponse], shown: dict[str, str]
) -> HttpResponse:
    """What the form asks for, or the form with what is wrong beside its fields."""
    refused = ""
    if request.method == "POST" and form.is_valid():
        try:
            return act()
        except (commands.Refused, Unstorable) as error:
            refused = str(error)
    status = 422 if request.method == "POST" else 200
    back = address(review, request.GET)
    context = shown | {"review": review, "form": form, "refused": refused, "back": back}
    return render(request, "reviews/change.html", context, status=status)


def _onward(request: HttpRequest, review: Review) -> HttpResponse:
    """To the next review of the same filter: this one is no longer for this person."""
    following = Filters.read(request.GET, actor(request)).next(review)
    return redirect(address(following, request.GET) if following else reverse("inbox"))
