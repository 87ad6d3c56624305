"""What a person was told, and how they want to be told."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from reviews import notices
from reviews.models import Notice, NoticeSettings
from reviews.views.common import actor
from runs import access

ROWS = 50  # of one page
MOST = 1000  # that can be paged through
OF_REVIEW = ("agent", "title", "cause", "state", "risk", "due_at")
SHOWN = ("kind", "at", "read_at", *(f"review__{name}" for name in OF_REVIEW))  # a proposal may be large
TIME = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")


class SettingsForm(forms.ModelForm):  # type: ignore[type-arg]
    zone = forms.ChoiceField(label="Time zone", choices=[(name, name) for name in sorted(available_timezones())])

    class Meta:
        model = NoticeSettings
        fields = ("mail", "digest_minutes", "hourly_cap", "quiet_from", "quiet_until", "zone")
        widgets = {"quiet_from": TIME, "quiet_until": TIME}

    def clean_mail(self) -> bool:
        if self.cleaned_data["mail"] and not self.instance.user.email:
            raise forms.ValidationError("Your account has no mail address. Ask an admin to add it.")
        return bool(self.cleaned_data["mail"])


@require_GET
@access.permits(access.may_review)
def notice_list(request: HttpRequest) -> HttpResponse:
    """The newest first, and the settings beside them."""
    return _page(request, SettingsForm(instance=NoticeSettings.of(actor(request))))


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def read_notices(request: HttpRequest) -> HttpResponse:
    """All of them are read."""
    if request.method == "GET":
        return _only_opened(request)
    notices.read_all(actor(request))
    return redirect("notices")


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def notice_settings(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return _only_opened(request)
    kept, _ = NoticeSettings.objects.get_or_create(user=actor(request))  # two tabs may be the first at one moment
    form = SettingsForm(request.POST, instance=kept)
    if not form.is_valid():
        return _page(request, form, status=422)
    form.instance.begin_anew()
    form.save()
    messages.success(request, "Saved. It counts from the next notice on.")
    return redirect("notices")


@require_GET
@access.permits(access.may_review)
def bell(request: HttpRequest) -> HttpResponse:
    """The bell alone, asked for again when something has changed."""
    return render(request, "notices/_bell.html", {"unread": notices.counts(actor(request))[1]})


def _page(request: HttpRequest, form: SettingsForm, *, status: int = 200) -> HttpResponse:
    told = Notice.objects.filter(user=actor(request)).select_related("review").only(*SHOWN).order_by("-at", "-id")
    page = Paginator(notices.folded(list(told[:MOST])), ROWS).get_page(request.GET.get("page"))
    shown: dict[str, Any] = {"page": page, "form": form, "kept": form.instance, "unread": notices.counts(actor(request))[1]}
    return render(request, "notices/list.html", shown, status=status)


def _only_opened(request: HttpRequest) -> HttpResponse:
    messages.info(request, access.ONLY_OPENED)
    return redirect("notices")
