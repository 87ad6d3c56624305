"""Hides payloads from whoever may not see them, in every answer; and reveals those of one run, which is recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import structlog
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from runs import access
from runs.engine.canonical import clean
from runs.models import Reveal, Run
from runs.models.content import Content, are_hidden, hidden
from runs.requests import Refused

logger = structlog.get_logger()
REASON_LETTERS = 300
FOR_PROGRAMS = ("/healthz", "/readyz", "/metrics")  # they tell no content, and the first must answer without a database


class PayloadsMiddleware:
    """Whatever is read while a request is answered is hidden where whoever asks may not see it: no view has to think of it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in FOR_PROGRAMS or settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return self.get_response(request)
        with hidden(_hides(request)):
            return self.get_response(request)


def context(request: HttpRequest) -> dict[str, Any]:
    """Context processor: whether content is hidden on this page, and whether this person may have that of one run revealed."""
    user = getattr(request, "user", AnonymousUser())
    return {"content_hidden": are_hidden(), "may_reveal": are_hidden() and access.may_reveal(user)}


def of_other_runs(user: access.AnyUser) -> AbstractContextManager[None]:
    """What stands beside the one run that a page is about: what is revealed of that is not of these."""
    return hidden(are_hidden() or not access.may_see_payloads(user))


class InTurn(ChangeList):
    """Rows of an admin list; an address may not sort them by what is hidden."""

    def get_ordering_field(self, field_name: Any) -> Any:
        return None if are_hidden() and _is_content(self.model, field_name) else super().get_ordering_field(field_name)


class LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows to be looked at in the admin site. Whoever may not see content cannot look for it, or sort by it."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [name for name in super().get_search_fields(request) if not (are_hidden() and _is_content(self.model, name))]

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        return [name for name in super().get_sortable_by(request) if not (are_hidden() and _is_content(self.model, name))]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return not (are_hidden() and _is_content(self.model, lookup)) and super().lookup_allowed(lookup, value, request)

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return InTurn


def reveal(run_id: int, *, by: access.AnyUser, reason: str) -> None:
    """Show this person the payloads of the run, for GOOD_FOR. Raises Run.DoesNotExist, and Refused without a reason."""
    if not (why := clean(reason.strip(), REASON_LETTERS)):
        raise Refused("Say why you need to see it: the reason is kept, and shown on the run's page.")
    run = Run.objects.only("pk").get(pk=run_id)
    Reveal.objects.create(run=run, by=by.get_username(), person=by.pk, reason=why)
    logger.info("payload_revealed", run=run_id, by=by.get_username())


def _hides(request: HttpRequest) -> bool:
    user = request.user
    if not user.is_authenticated or access.may_see_payloads(user):  # to strangers no page tells anything
        return False
    shown = access.revealed(user)
    return not shown or not _is_about(request.path_info, shown.keys())


def _is_about(path: str, run_ids: Any) -> bool:
    """Whether the address names runs, or a review of a run, and all of these are among those."""
    try:
        named = resolve(path).kwargs
    except Resolver404:
        return False
    if "review_id" in named:
        return Run.objects.filter(pk__in=run_ids, reviews=named["review_id"]).exists() if named["review_id"] < 2**63 else False
    wanted = {named[name] for name in ("run_id", "other_id") if name in named}
    return bool(wanted) and wanted <= run_ids


def _is_content(model: type[Model] | None, lookup: Any) -> bool:
    """Whether the lookup comes to a column that holds content, of this model or of one that it leads to."""
    for name in str(lookup).lstrip("-^=@").split("__"):
        try:
            field = model._meta.get_field(name) if model else None
        except FieldDoesNotExist:
            return False
        if isinstance(field, Content):
            return True
        model = getattr(field, "related_model", None)
    return False
