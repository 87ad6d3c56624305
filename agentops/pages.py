"""What every page has around it: the navigation, with how many reviews are open."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from reviews.models import Review
from runs import access


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the navigation."""

    word: str
    icon: str
    url: str
    current: bool
    count: int | None = None  # of what waits there, where it counts


@dataclass(frozen=True, slots=True)
class Chrome:
    """`sample_world`: the sample accounts may be here, so the sign-in page says where their password is."""

    navigation: list[Item]
    sample_world: bool


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Context processor; asks the database only where a template uses it."""
    return {"chrome": SimpleLazyObject(lambda: Chrome(_navigation(request), settings.AGENTOPS_ENV == "development"))}


def _navigation(request: HttpRequest) -> list[Item]:
    user = request.user
    places: list[tuple[str, str, str, int | None]] = []
    if access.may_look(user):
        places += [("Dashboard", "layout-dashboard", reverse("dashboard"), None), ("Runs", "list", reverse("runs"), None)]
    if access.may_review(user):
        places += [("Inbox", "inbox", reverse("inbox"), Review.objects.open().count())]
    if access.may_look(user):
        places += [("Agents", "bot", reverse("agents"), None)]
    if user.is_active and getattr(user, "is_staff", False):
        places += [("Admin", "settings", reverse("admin:index"), None)]
    return [Item(word, icon, url, _here(request.path, url), count) for word, icon, url, count in places]


def _here(path: str, url: str) -> bool:
    return path == url if url == "/" else path.startswith(url)
