"""Whether whoever is signed in here has given their password lately: asked before something of high risk is approved."""

import time
from typing import Any

from allauth.account.authentication import get_authentication_records
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest

CONFIRMED_SECONDS = 15 * 60
SIGNED_IN_AT = "signed_in_at"  # in the session


@receiver(user_logged_in)
def signed_in(*, request: HttpRequest, **kwargs: Any) -> None:
    """Whichever way: the admin's page too."""
    request.session[SIGNED_IN_AT] = time.time()


def is_recent(request: HttpRequest) -> bool:
    """The password was given within the last quarter of an hour, in this very session."""
    given = [record["at"] for record in get_authentication_records(request, request.user)]
    last: float = max([request.session.get(SIGNED_IN_AT, 0.0), *given])
    return time.time() - last < CONFIRMED_SECONDS
