"""The cast: the five accounts that every test uses."""

from django.contrib.auth.models import User

from agentops import people as accounts

PASSWORD = "a-password-of-tests"


def people() -> dict[str, User]:
    """Make the groups and the five accounts."""
    accounts.ensure_groups()
    return {name: accounts.ensure_account(name, PASSWORD) for name in accounts.CAST}
