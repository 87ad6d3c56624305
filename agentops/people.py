"""The groups with their permissions, and the five accounts that every installation of the sample world has."""

from django.contrib.auth.models import Group, Permission, User

from runs.access import GROUPS

CAST: dict[str, str] = {  # account -> group; the outsider has none and may not enter
    "operator": "Operator",
    "reviewer": "Reviewer",
    "reviewer2": "Reviewer",
    "admin": "Admin",
    "outsider": "",
}


def ensure_groups() -> None:
    """Make the four groups hold exactly the permissions of access.GROUPS."""
    for name, permissions in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set([_permission(permission) for permission in permissions])


def missing_accounts() -> list[str]:
    """Those of the five that do not exist yet."""
    there = set(User.objects.filter(username__in=CAST).values_list("username", flat=True))
    return [username for username in CAST if username not in there]


def ensure_account(username: str, password: str) -> User:
    """Make the account where it is missing, in its group; an existing one keeps its password."""
    user, new = User.objects.get_or_create(username=username, defaults={"is_staff": username == "admin"})
    if new:
        user.set_password(password)
        user.save(update_fields=["password"])
    if group := CAST[username]:
        user.groups.add(Group.objects.get(name=group))
    return user


def _permission(name: str) -> Permission:
    app, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app, codename=codename)
