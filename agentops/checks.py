"""System checks for settings that contradict one another or are unsafe."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

DEFAULT_SECRETS = ("insecure", "changeme", "change-me", "secret")


@register(Tags.security)
def production_is_safe(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """In production: a secret of one's own, named hosts, services that are not the embedded ones."""
    if not settings.PRODUCTION:
        return []
    wrong = {
        "agentops.E001": (_default_secret(), "SECRET_KEY is short or a default: set a random one of 50 letters or more."),
        "agentops.E002": (not settings.ALLOWED_HOSTS, "ALLOWED_HOSTS is empty: name the hosts that people open."),
        "agentops.E003": (_embedded(), "DATABASE_URL or REDIS_URL names an embedded service: give production its own."),
        "agentops.E004": (settings.DEBUG, "DEBUG is on: it shows the inside of the program to everybody."),
        "agentops.E005": ("*" in settings.ALLOWED_HOSTS, "ALLOWED_HOSTS is *: name the hosts that people open."),
    }
    return [Error(text, id=name) for name, (is_wrong, text) in wrong.items() if is_wrong]


@register()
def lease_outlives_renewal(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A lease must survive two missed renewals, or a slow second loses the run."""
    if settings.LEASE_SECONDS >= 3 * settings.LEASE_RENEW_SECONDS:
        return []
    return [Error("LEASE_SECONDS must be at least three times LEASE_RENEW_SECONDS.", id="agentops.E006")]


def _default_secret() -> bool:
    secret = settings.SECRET_KEY
    return len(secret) < 50 or any(word in secret.lower() for word in DEFAULT_SECRETS)


def _embedded() -> bool:
    local = str(settings.AGENTOPS_LOCAL)
    # The socket's directory stands in HOST or in OPTIONS, as the URL was written.
    return local in str(settings.DATABASES["default"]) or local in settings.REDIS_URL
