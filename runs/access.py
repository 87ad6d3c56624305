"""Who may look, start, control, decide and configure: one question per function, asked by every page and socket."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import wraps
from typing import Any

import structlog
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponseBase

from runs.models import Reveal, Run
from runs.models.reveal import GOOD_FOR

logger = structlog.get_logger()
AnyUser = AbstractBaseUser | AnonymousUser
View = Callable[..., HttpResponseBase]

ONLY_OPENED = "Nothing was done: the address was opened, not sent by its form. If you had to sign in first, please do it again."

# group -> permissions; `manage.py seed` and the migration make them, tests/test_access.py compares
GROUPS: dict[str, tuple[str, ...]] = {
    "Viewer": ("runs.view_run", "runs.view_payload"),
    "Operator": (
        "runs.view_run", "runs.view_payload", "runs.start_run", "runs.control_run", "runs.handle_alert",
        "reviews.view_review", "reviews.decide_review",
    ),
    "Reviewer": ("runs.view_run", "runs.view_payload", "reviews.view_review", "reviews.decide_review"),
    "Admin": (
        "runs.view_run", "runs.view_payload", "runs.start_run", "runs.control_run", "runs.hold_run",
        "reviews.view_review", "reviews.decide_review",
        "runs.view_agentconfig", "runs.change_agentconfig", "runs.view_policy", "runs.change_policy",
        "runs.view_dependency", "runs.change_dependency", "runs.view_step",
        "runs.handle_alert", "runs.change_alertrule",
        "runs.view_alertchannel", "runs.add_alertchannel", "runs.change_alertchannel", "runs.delete_alertchannel",
        "auth.view_user", "auth.add_user", "auth.change_user", "auth.view_group", "auth.add_group", "auth.change_group",
        "reviews.view_route", "reviews.add_route", "reviews.change_route", "reviews.delete_route",
        "reviews.view_channel", "reviews.add_channel", "reviews.change_channel", "reviews.delete_channel", "django_rq.admin",
    ),
}  # fmt: skip


def may_look(user: AnyUser) -> bool:
    """May see runs, their steps and events."""
    return _may(user, "runs.view_run")


def may_see_payloads(user: AnyUser) -> bool:
    """May see what agents, tools and people wrote; whoever may not sees that there is something (runs/models/content.py)."""
    return _may(user, "runs.view_payload")


def may_reveal(user: AnyUser) -> bool:
    """May have the payloads of one run revealed, with a reason; whoever sees them anyway need not."""
    return _may(user, "runs.reveal_payload") and not may_see_payloads(user)


def revealed(user: AnyUser) -> dict[int, datetime]:
    """Run -> until when this person has its payloads revealed. Asked once for each time that the person was looked up."""
    found: dict[int, datetime] | None = getattr(user, "_revealed", None)
    if found is None:
        mine = Reveal.objects.in_force(user) if may_reveal(user) else Reveal.objects.none()
        found = {run_id: at + GOOD_FOR for run_id, at in mine.order_by("at").values_list("run_id", "at")}
        user._revealed = found  # type: ignore[union-attr]
    return found


def sees_payloads(user: AnyUser, run_id: int) -> bool:
    """Whether the payloads of this run are shown to this person now."""
    return may_see_payloads(user) or run_id in revealed(user)


def may_start(user: AnyUser) -> bool:
    return _may(user, "runs.start_run")


def may_control(user: AnyUser) -> bool:
    """May cancel and retry runs."""
    return _may(user, "runs.control_run")


def may_hold(user: AnyUser) -> bool:
    """May have retention keep a run."""
    return _may(user, "runs.hold_run")


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


def may_handle_alerts(user: AnyUser) -> bool:
    """May acknowledge and snooze alerts."""
    return _may(user, "runs.handle_alert")


def may_change_rules(user: AnyUser) -> bool:
    """May say what is watched, and what a rule does by itself."""
    return _may(user, "runs.change_alertrule")


def may_switch(user: AnyUser) -> bool:
    """May change what is wanted of a dependency."""
    return _may(user, "runs.change_dependency")


# Django asks for a person's own permissions and for those of their groups, and builds both questions anew each time.
PERMISSIONS = """
    SELECT person, type.app_label || '.' || permission.codename
    FROM (
        SELECT user_id AS person, permission_id FROM auth_user_user_permissions WHERE user_id = ANY(%(people)s)
        UNION SELECT member.user_id, granted.permission_id FROM auth_user_groups AS member
            JOIN auth_group_permissions AS granted ON granted.group_id = member.group_id WHERE member.user_id = ANY(%(people)s)
    ) AS theirs
    JOIN auth_permission AS permission ON permission.id = theirs.permission_id
    JOIN django_content_type AS type ON type.id = permission.content_type_id
"""


def give_permissions(people: Iterable[User]) -> None:
    """Have them know what they may, in one question, where each would ask by itself; whoever may everything need not ask."""
    asking = {person.pk: person for person in people if not person.is_superuser}
    found = permissions(asking) if asking else {}
    for number, person in asking.items():
        person._perm_cache = found[number]  # type: ignore[attr-defined]  # where Django's backends keep it


def permissions(people: Collection[int]) -> dict[int, set[str]]:
    """Person -> what they may by themselves or through a group, in one question for any number of people."""
    found: dict[int, set[str]] = defaultdict(set)
    with connection.cursor() as cursor:
        cursor.execute(PERMISSIONS, {"people": list(people)})
        for person, permission in cursor.fetchall():
            found[person].add(permission)
    return found


def permits(question: Callable[[AnyUser], bool]) -> Callable[[View], View]:
    """Decorate a view: sign-in for strangers, 403 for those to whom the question answers no."""

    def decorate(view: View) -> View:
        @login_required
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not question(request.user):
                raise PermissionDenied
            try:
                answer = view(request, *args, **kwargs)
            except Run.DoesNotExist as removed:  # by retention, since the view had found it; else the log says where to look
                logger.warning("run_gone", path=request.path, exc_info=removed)
                raise Http404(str(removed)) from removed
            answer.setdefault("Cache-Control", "private, no-store")  # nobody else reads it out of a cache
            return answer

        return guarded

    return decorate


def _may(user: AnyUser, permission: str) -> bool:
    return isinstance(user, PermissionsMixin) and user.is_active and user.has_perm(permission)
