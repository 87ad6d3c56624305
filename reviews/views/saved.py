"""Filters that people keep under a name."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from reviews.filters import Filters
from reviews.models import SavedView
from reviews.views.common import actor
from runs import access

NAME_TAKEN = "You have a view of this name. Choose another."


class ViewForm(forms.ModelForm):  # type: ignore[type-arg]
    """A name, and who else sees it."""

    class Meta:
        model = SavedView
        fields = ("name", "group")
        labels = {"group": "Shared with"}
        error_messages = {"group": {"invalid_choice": "Choose a group that you are in."}}

    def __init__(self, *args: Any, owner: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.owner = owner
        groups = self.fields["group"]
        assert isinstance(groups, forms.ModelChoiceField)  # noqa: S101 - the model says so
        groups.queryset = Group.objects.filter(user=owner).order_by("name")
        groups.empty_label = "Nobody else"

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if SavedView.objects.filter(owner=self.instance.owner, name=name).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError(NAME_TAKEN)
        return name

    def saved(self) -> bool:
        """Whether it was saved; where another tab took the name just now, that is said beside the field."""
        try:
            with transaction.atomic():
                self.save()
        except IntegrityError:
            self.add_error("name", NAME_TAKEN)
        return self.is_valid()


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def saved_views(request: HttpRequest) -> HttpResponse:
    """A form to keep the filter of the address, and every view that this person sees."""
    query = Filters.read(request.GET).query
    if request.method == "GET":
        return _page(request, query, _form(request, query))
    form = _form(request, query, request.POST)
    if not query:
        messages.info(request, "There is no filter to save. Choose one in the inbox, then save it.")
        return redirect("saved_views")
    if not (form.is_valid() and form.saved()):
        return _page(request, query, form, status=422)
    messages.success(request, f"Saved the view “{form.instance}”.")
    return redirect(form.instance)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def change_view(request: HttpRequest, view_id: int) -> HttpResponse:
    """Another name, or others who see it."""
    view = get_object_or_404(SavedView, pk=view_id, owner=actor(request))
    form = ViewForm(request.POST if request.method == "POST" else None, instance=view, owner=actor(request))
    if request.method == "POST" and form.is_valid() and form.saved():
        messages.success(request, f"Saved the view “{view}”.")
        return redirect("saved_views")
    return render(request, "reviews/saved_view.html", {"form": form, "view": view}, status=422 if form.errors else 200)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_review)
def delete_view(request: HttpRequest, view_id: int) -> HttpResponse:
    """GET asks once more; POST deletes it."""
    view = get_object_or_404(SavedView.objects.select_related("group"), pk=view_id, owner=actor(request))
    if request.method == "GET":
        return render(request, "reviews/saved_view.html", {"view": view, "deleting": True})
    view.delete()
    messages.success(request, f"Deleted the view “{view}”.")
    return redirect("saved_views")


def _form(request: HttpRequest, query: str, data: Any = None) -> ViewForm:
    return ViewForm(data, instance=SavedView(query=query), owner=actor(request))


def _page(request: HttpRequest, query: str, form: ViewForm, *, status: int = 200) -> HttpResponse:
    shown = {
        "form": form,
        "query": query,
        "chips": Filters.read(request.GET).chips(),
        "saved_views": SavedView.objects.for_viewer(actor(request)),
        "address": f"{reverse('saved_views')}?{query}",
    }
    return render(request, "reviews/saved_views.html", shown, status=status)
