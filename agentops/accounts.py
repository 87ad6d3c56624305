"""Who may have an account: only people an admin has added."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class NobodySignsUp(DefaultAccountAdapter):
    """agentops is internal: accounts are made by an admin, never by their future owner."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
