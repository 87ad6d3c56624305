"""Filters that people keep under a name: of any list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from runs.filters import AddressFilters

NAME_TAKEN = "You have a view of this name. Choose another."


@dataclass(frozen=True, slots=True)
class Place:
    """A list whose filters can be kept: its model of views, its title in a sentence, and the names of its addresses."""

    model: type[Model]
    title: str
    list_name: str
    views_name: str
    change_name: str
    delete_name: str
    read: Callable[[QueryDict], AddressFilters]

    @property
    def url(self) -> str:
        return reverse(self.list_name)

    def form(self, data: Any, *, instance: Any, owner: User) -> "ViewForm":
        made: Any = forms.modelform_factory(self.model, form=ViewForm, fields=("name", "group"), labels={"group": "Shared with"})
        form: ViewForm = made(data, instance=instance, owner=owner)
        return form

    def shown(self, views: Any) -> list[tuple[Any, str, str]]:
        """Each with where it is changed and deleted."""
        names = (self.change_name, self.delete_name)
        return [(view, *(reverse(name, args=[view.pk]) for name in names)) for view in views]


class ViewForm(forms.ModelForm):  # type: ignore[type-arg]
    """A name, and who else sees it."""

    def __init__(self, *args: Any, owner: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.owner = owner
        groups = self.fields["group"]
        assert isinstance(groups, forms.ModelChoiceField)  # noqa: S101 - the model says so
        groups.queryset = Group.objects.filter(user=owner).order_by("name")
        groups.empty_label = "Nobody else"
        groups.error_messages["invalid_choice"] = "Choose a group that you are in."

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        views = type(self.instance).objects
        if views.filter(owner=self.instance.owner, name=name).exclude(pk=self.instance.pk).exists():
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


def all_views(request: HttpRequest, place: Place) -> HttpResponse:
    """A form to keep the filter of the address, and every view that this person sees."""
    filters, data = place.read(request.GET), request.POST if request.method == "POST" else None
    form = place.form(data, instance=place.model(query=filters.query), owner=_person(request))
    if request.method == "POST" and not filters.query:
        messages.info(request, "There is no filter to save. Choose one in the list, then save it.")
        return redirect(place.views_name)
    if request.method == "POST" and form.is_valid() and form.saved():
        messages.success(request, f"Saved the view “{form.instance}”.")
        return redirect(form.instance)
    views = place.model._default_manager.for_viewer(_person(request))  # type: ignore[attr-defined]
    address = f"{reverse(place.views_name)}?{filters.query}"
    shown = {"place": place, "form": form, "query": filters.query, "chips": filters.chips(), "address": address}
    return render(request, "saved_views.html", shown | {"saved_views": place.shown(views)}, status=422 if form.errors else 200)


def change(request: HttpRequest, place: Place, view_id: int) -> HttpResponse:
    """Another name, or others who see it."""
    view: Any = get_object_or_404(place.model, pk=view_id, owner=_person(request))
    form = place.form(request.POST if request.method == "POST" else None, instance=view, owner=_person(request))
    if request.method == "POST" and form.is_valid() and form.saved():
        messages.success(request, f"Saved the view “{view}”.")
        return redirect(place.views_name)
    shown = {"place": place, "form": form, "view": view, "back": reverse(place.views_name)}
    return render(request, "saved_view.html", shown, status=422 if form.errors else 200)


def delete(request: HttpRequest, place: Place, view_id: int) -> HttpResponse:
    """GET asks once more; POST deletes it."""
    views = place.model._default_manager.select_related("group")
    view: Any = get_object_or_404(views, pk=view_id, owner=_person(request))
    if request.method == "GET":
        shown = {"place": place, "view": view, "deleting": True, "back": reverse(place.views_name)}
        return render(request, "saved_view.html", shown)
    view.delete()
    messages.success(request, f"Deleted the view “{view}”.")
    return redirect(place.views_name)


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - permits() lets nobody else in
    return request.user
