"""Who may have an account: only people an admin has added; what the sign-in says to them, and what they may do."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from runs import access


class NobodySignsUp(DefaultAccountAdapter):
    """agentops is internal: accounts are made by an admin, never by their future owner."""

    # allauth refuses after 5 in 5 minutes for one name, or 10 in a minute from one address
    error_messages = DefaultAccountAdapter.error_messages | {
        "too_many_login_attempts": "Too many sign-ins have failed. For up to 5 minutes even the right password is refused: "
        "wait, then try again.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False


class OneQuestion(ModelBackend):
    """Django's own; but what somebody may do is asked of the database once, and not twice: every page asks it."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        is_plain = user_obj.is_active and not user_obj.is_superuser and obj is None
        if is_plain and user_obj.pk and not hasattr(user_obj, "_perm_cache"):
            access.give_permissions([user_obj])
        return super().get_all_permissions(user_obj, obj)
