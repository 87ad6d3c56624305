"""Who may look, start, control, decide and configure: one question per function, asked by every page and socket."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

AnyUser = AbstractBaseUser | AnonymousUser
View = Callable[..., HttpResponseBase]

ONLY_OPENED = "Nothing was done: the address was opened, not sent by its form. If you had to sign in first, please do it again."

# group -> permissions; `manage.py seed` and the migration make them, tests/test_access.py compares
GROUPS: dict[str, tuple[str, ...]] = {
    "Viewer": ("runs.view_run",),
    "Operator": ("runs.view_run", "runs.start_run", "runs.control_run", "reviews.view_review", "reviews.decide_review"),
    "Reviewer": ("runs.view_run", "reviews.view_review", "reviews.decide_review"),
    "Admin": (
        "runs.view_run", "runs.start_run", "runs.control_run", "reviews.view_review", "reviews.decide_review",
        "runs.view_agentconfig", "runs.change_agentconfig", "runs.view_policy", "runs.change_policy",
        "runs.view_dependency", "runs.change_dependency", "runs.view_step",
        "auth.view_user", "auth.add_user", "auth.change_user", "auth.view_group", "auth.add_group", "auth.change_group",
        "reviews.view_route", "reviews.add_route", "reviews.change_route", "reviews.delete_route",
        "reviews.view_channel", "reviews.add_channel", "reviews.change_channel", "reviews.delete_channel", "django_rq.admin",
    ),
}  # fmt: skip


def may_look(user: AnyUser) -> bool:
    """May see runs, their steps and events."""
    return _may(user, "runs.view_run")


def may_start(user: AnyUser) -> bool:
    return _may(user, "runs.start_run")


def may_control(user: AnyUser) -> bool:
    """May cancel and retry runs."""
    return _may(user, "runs.control_run")


def may_review(user: AnyUser) -> bool:
    """May see the inbox."""
    return _may(user, "reviews.view_review")


def may_decide(user: AnyUser) -> bool:
    return _may(user, "reviews.decide_review")


def may_configure(user: AnyUser) -> bool:
    return _may(user, "runs.change_agentconfig")


def may_change_policies(user: AnyUser) -> bool:
    """May say when steps need a person."""
    return _may(user, "runs.change_policy")


def may_switch(user: AnyUser) -> bool:
    """May change what is wanted of a dependency."""
    return _may(user, "runs.change_dependency")


def permits(question: Callable[[AnyUser], bool]) -> Callable[[View], View]:
    """Decorate a view: sign-in for strangers, 403 for those to whom the question answers no."""

    def decorate(view: View) -> View:
        @login_required
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not question(request.user):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def _may(user: AnyUser, permission: str) -> bool:
    return isinstance(user, PermissionsMixin) and user.is_active and user.has_perm(permission)
