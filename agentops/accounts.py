"""Who may have an account: only people an admin has added; and what the sign-in says to them."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class NobodySignsUp(DefaultAccountAdapter):
    """agentops is internal: accounts are made by an admin, never by their future owner."""

    # allauth refuses after 5 in 5 minutes for one name, or 10 in a minute from one address
    error_messages = DefaultAccountAdapter.error_messages | {
        "too_many_login_attempts": "Too many sign-ins have failed. For up to 5 minutes even the right password is refused: "
        "wait, then try again.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
