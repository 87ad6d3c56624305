"""Mail, and messages to channels: services that apprise knows, and webhooks at addresses that somebody gave."""

import logging
import re
from base64 import b64encode
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
from django.conf import settings
from django.core.mail import EmailMessage, get_connection  # noqa: TID251 - the adapter of mail
from django.utils.module_loading import import_string

from runs.engine.errors import GiveUp, TryLater
from runs.integrations import deadline, exchange
from runs.reliability import addresses, guard, terms

MAIL = guard.declare("mail", kind="mail")
CHANNELS = guard.declare("channels", kind="api")
BY_SMTP = "django.core.mail.backends.smtp.EmailBackend"
WEBHOOKS = ("json", "jsons")
# Services whose host stands in apprise. A webhook names its own: it goes through our client, which checks where that leads.
SERVICES = {
    "slack": "slack.NotifySlack",
    "discord": "discord.NotifyDiscord",
    "tgram": "telegram.NotifyTelegram",
    "gchat": "google_chat.NotifyGoogleChat",
    "wxteams": "webexteams.NotifyWebexTeams",
    "pagerduty": "pagerduty.NotifyPagerDuty",
    "opsgenie": "opsgenie.NotifyOpsgenie",
} | dict.fromkeys(WEBHOOKS, "custom_json.NotifyJSON")
EXAMPLES = "slack://tokenA/tokenB/tokenC/#reviews, or jsons://hooks.example.com/path for a webhook that takes JSON"
STATUS = re.compile(r"error=(\d{3})\.?$")  # with which what apprise says of an answer ends; without it there was none
logging.getLogger("apprise").setLevel(logging.ERROR)  # what it says of a failure is kept with the channel


class NoSuchChannel(ValueError):
    """The address of a channel that nobody can send to; its text says how to write one."""


def send_mail(to: str, subject: str, text: str) -> None:
    """Raises TryLater, GiveUp or AskHuman as guard does."""
    guard.call(MAIL, lambda: _mailed(to, subject, text))


def post(url: str, title: str, text: str) -> None:
    """Raises as above, and NoSuchChannel. Every redirect of a webhook is checked as its own address is."""
    service = _service(url)
    guard.call(CHANNELS, lambda: _posted_by_us(service, title, text) if _is_webhook(service) else _posted(service, title, text))


def longest_seconds(dependency: str) -> float:
    """How long a call may take in all."""
    return terms.of(dependency).attempt_timeout_seconds


def validate(url: str) -> None:
    """Raises NoSuchChannel, and ValidationError for a webhook that leads where nobody may send us."""
    service = _service(url)
    if _is_webhook(service):
        addresses.validate(_target(service))


def masked(url: str) -> str:
    """To show: without what is secret in it."""
    try:
        service = _service(url)
    except NoSuchChannel:
        return "an address that cannot be used"
    if _is_webhook(service):
        return f"{urlsplit(url).scheme}://{service.host}/..."
    return str(service.url(privacy=True)).partition("?")[0]


def _service(url: str) -> Any:
    """Of apprise only what is named above is ever imported, and only by who sends: that takes a while."""
    from apprise import AppriseAsset

    scheme = url.partition("://")[0].lower()
    if scheme not in SERVICES:
        raise NoSuchChannel(f"This is no address of a channel that may be used. Write it as {EXAMPLES}.")
    service = import_string(f"apprise.plugins.{SERVICES[scheme]}")
    try:
        return service(**service.parse_url(url.replace("/#", "/%23")), asset=AppriseAsset(http_redirects=False))
    except TypeError as error:  # what cannot be read gives None, and what is missing raises this
        raise NoSuchChannel(f"The address is not complete. Write it as {EXAMPLES}.") from error


def _is_webhook(service: Any) -> bool:
    return str(service.secure_protocol) in WEBHOOKS


def _target(service: Any) -> str:
    port = f":{service.port}" if service.port else ""
    return f"{'https' if service.secure else 'http'}://{service.host}{port}{service.fullpath or '/'}"


def _mailed(to: str, subject: str, text: str) -> None:
    own = "runs.integrations.mail.Backend" if settings.EMAIL_BACKEND == BY_SMTP else None
    connection = get_connection(own, timeout=guard.terms().read_timeout_seconds)
    with deadline.kept(OSError), connection:  # errors of smtplib are of these
        guard.connected()
        EmailMessage(subject, text, to=[to], connection=connection).send()


def _posted(service: Any, title: str, text: str) -> None:
    from apprise import LogCapture, NotifyType

    from runs.integrations import services  # likewise: it takes a while

    services.watch()
    timeouts = guard.terms()
    service.socket_connect_timeout, service.socket_read_timeout = (
        timeouts.connect_timeout_seconds, timeouts.read_timeout_seconds,
    )  # fmt: skip
    match type(service).__name__:
        case "NotifyDiscord":
            service._send = partial(service._send, rate_limit=0)  # else it sends again by itself
        case "NotifyOpsgenie":
            service.action = "new"  # else it would add to an alert that is not there, which is nothing
    captured = LogCapture(level=logging.WARNING, fmt="%(message)s")  # type: ignore[no-untyped-call]
    with deadline.kept(TryLater), captured as said:
        if service.notify(body=text, title=title, notify_type=NotifyType.INFO):
            return
        lines = said.getvalue().strip().splitlines()
        line = lines[-1] if lines else f"{service.service_name} did not take the message."
        if answered := STATUS.search(line):
            raise _refused(httpx2.Response(int(answered[1]), request=httpx2.Request("POST", "https://service")), line)
        raise TryLater(line)


def _posted_by_us(service: Any, title: str, text: str) -> None:
    """What apprise would send, through the client that connects to public addresses alone."""
    wanted = guard.terms()
    timeout = httpx2.Timeout(wanted.read_timeout_seconds, connect=wanted.connect_timeout_seconds)
    body = {"version": service.json_version, "title": title, "message": text, "attachments": [], "type": "info"}
    own_headers = dict(service.headers)
    if service.user:
        own_headers |= {"Authorization": _basic(service.user, service.password or "")}
    with addresses.client(timeout) as client:
        more = {"json": body, "params": service.params}
        response = exchange.post(client, _target(service), own_headers=own_headers, redirects=True, **more)
    if response.request.method != "POST":
        raise GiveUp(
            f"The webhook sends us on to {response.url.host} and drops the message on the way: give that address instead."
        )
    if not response.is_success:
        raise _refused(response, f"The webhook answered {response.status_code} {response.reason_phrase}.")


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _refused(response: httpx2.Response, said: str) -> httpx2.HTTPStatusError:
    """What that means is decided where it is for every answer (runs/reliability/classify.py)."""
    return httpx2.HTTPStatusError(said, request=response.request, response=response)
