"""The cast: the five accounts that every test uses."""

from functools import cache

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User

from agentops import people as accounts

PASSWORD = "a-password-of-tests"


def people() -> dict[str, User]:
    """The five accounts, made where they are missing; their groups are there since the session began."""
    there = User.objects.in_bulk(accounts.CAST, field_name="username")
    missing = [User(username=name, is_staff=name == "admin", password=_hashed()) for name in accounts.CAST if name not in there]
    made = {user.username: user for user in User.objects.bulk_create(missing)}
    groups = Group.objects.in_bulk(field_name="name")
    belongs = [(made[name], groups[group]) for name, group in accounts.CAST.items() if group and name in made]
    User.groups.through.objects.bulk_create(User.groups.through(user=user, group=group) for user, group in belongs)
    return there | made


@cache
def _hashed() -> str:
    return make_password(PASSWORD)
