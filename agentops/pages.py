"""What every page has around it: the navigation, with how many reviews are open; and the page of what was not accepted."""

import sys
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import DisallowedHost, RequestDataTooBig, TooManyFieldsSent
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.csrf import requires_csrf_token
from django.views.defaults import page_not_found, server_error

from reviews import notices
from reviews.models import RemovedReview
from runs import access
from runs.models import Alert, retention

LARGEST_MB = settings.DATA_UPLOAD_MAX_MEMORY_SIZE / 1_000_000
NOT_ACCEPTED: dict[type[Exception], str] = {
    RequestDataTooBig: f"What you sent is too large (over {LARGEST_MB:g} MB). Go back, shorten it and send it again.",
    TooManyFieldsSent: "What you sent has too many fields. Go back, leave some rows out and send it again.",
    DisallowedHost: "This site is not known by the name in the address. An engineer can add the name to ALLOWED_HOSTS.",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the navigation."""

    word: str
    icon: str
    url: str
    current: bool
    count: int | None = None  # of what waits there, where it counts
    counted: str = "_nav_count.html"


@dataclass(frozen=True, slots=True)
class Chrome:
    """`unread`: of notices, None where the reader gets none. `sample_world`: the sample accounts may be here."""

    navigation: list[Item]
    unread: int | None
    sample_world: bool


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Context processor; asks the database only where a template uses it."""
    return {"chrome": SimpleLazyObject(lambda: _chrome(request))}


@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page of every 400."""
    unread = "What arrived could not be read. Go back and send it again."
    what = next((text for kind, text in NOT_ACCEPTED.items() if isinstance(exception, kind)), unread)
    return render(request, "400.html", {"what": f"{what} Nothing was done."}, status=400)


NAMED = ("run_id", "other_id", "review_id")


@requires_csrf_token
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page of every 404; where retention removed the run that the address names, of a 410, for those who may see it."""
    named = request.resolver_match.kwargs if request.resolver_match else {}
    user, numbers = (
        getattr(request, "user", AnonymousUser()),
        {name: named[name] for name in NAMED if named.get(name, 2**63) < 2**63},
    )
    if numbers and (access.may_look(user) or access.may_review(user)):
        of_review = RemovedReview.objects.filter(pk=numbers.pop("review_id", None)).values_list("run_id", flat=True)
        if tombstone := next(filter(None, map(retention.removed, [*numbers.values(), *of_review])), None):
            return render(request, "410.html", {"tombstone": tombstone, "review_id": named.get("review_id")}, status=410)
    return page_not_found(request, exception)


@requires_csrf_token
def failed(request: HttpRequest) -> HttpResponse:
    """The page of every 500; where only the database is away, of a 503, which may be asked for again. It asks nothing itself."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": str(AWAY_SECONDS)})
    return server_error(request)


AWAY_SECONDS = 5


def _chrome(request: HttpRequest) -> Chrome:
    user = getattr(request, "user", AnonymousUser())  # none yet where the address itself was refused
    reviews, unread, alerts = _counts(user)
    return Chrome(_navigation(request, user, reviews, alerts), unread, settings.AGENTOPS_ENV == "development")


# what the inbox and the bell count, and the open alerts: every page asks, so it is one question
ALERTS = "(SELECT count(*) FROM runs_alert WHERE state <> 'resolved')"
COUNTS = f"SELECT counted.*, {ALERTS} FROM ({notices.COUNTS}) AS counted"  # noqa: S608 - made of constants


def _counts(user: access.AnyUser) -> tuple[int, int | None, int]:
    """Open reviews, unread notices, open alerts; of the first two nothing where the reader gets none."""
    if not access.may_review(user):
        return 0, None, Alert.objects.open().count() if access.may_look(user) else 0
    with connection.cursor() as cursor:
        cursor.execute(COUNTS, [user.pk])
        found: tuple[int, int, int] = cursor.fetchone()
    return found


def _navigation(request: HttpRequest, user: access.AnyUser, reviews: int, alerts: int) -> list[Item]:
    places: list[tuple[str, str, str, int | None]] = []
    if access.may_look(user):
        places += [("Dashboard", "layout-dashboard", reverse("dashboard"), None), ("Runs", "list", reverse("runs"), None)]
    if access.may_review(user):
        places += [("Inbox", "inbox", reverse("inbox"), reviews)]
    if access.may_look(user):
        places += [("Alerts", "siren", reverse("alerts"), alerts)]
        places += [("Agents", "bot", reverse("agents"), None), ("Dependencies", "plug", reverse("dependencies"), None)]
        places += [("Operations", "list-checks", reverse("operations"), None)]
    if user.is_active and getattr(user, "is_staff", False):
        places += [("Admin", "settings", reverse("admin:index"), None)]
    templates = {"Alerts": "alerts/_nav_count.html"}
    return [
        Item(word, icon, url, _here(request.path, url), count, templates.get(word, "_nav_count.html"))
        for word, icon, url, count in places
    ]


def _here(path: str, url: str) -> bool:
    return path == url if url == "/" else path.startswith(url)
