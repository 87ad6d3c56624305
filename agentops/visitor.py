"""Somebody with a browser, as far as a server can tell: signed in, with forms to send."""

from contextlib import closing
from http.client import HTTPConnection  # noqa: TID251 - a visitor of our own pages
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore

TOKEN = "visitor" * 4 + "four"
PATIENCE_SECONDS = 90.0


class Answer(NamedTuple):
    """`location` is where a redirect leads."""

    status: int
    body: str
    location: str


class Visitor:
    """One person at the server on this port of this machine."""

    def __init__(self, port: int, user: User) -> None:
        self.user, self.port = user, port
        self.cookie = f"{settings.SESSION_COOKIE_NAME}={session_of(user)}; {settings.CSRF_COOKIE_NAME}={TOKEN}; scripts=on"

    @property
    def headers(self) -> dict[str, str]:
        """Also for a socket."""
        return {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}"}

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def post(self, path: str, **fields: Any) -> Answer:
        """As the form of a page does."""
        return self._ask("POST", path, urlencode(fields | {"csrfmiddlewaretoken": TOKEN}, doseq=True))

    def _ask(self, method: str, path: str, body: str | None) -> Answer:
        more = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)) as connection:
            connection.request(method, path, body, self.headers | more)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(errors="replace"), answer.headers.get("Location", ""))


def session_of(user: User) -> str:
    """The key of a new session in which this person has signed in."""
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session.create()
    return str(session.session_key)
