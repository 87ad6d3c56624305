"""One table that says which of the three kinds an error from outside is."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from runs.engine.backoff import LONGEST_SECONDS
from runs.engine.errors import AskHuman, GiveUp, TryLater

Kind = Callable[[str, Exception], Exception]

TRANSIENT_STATUSES = {408, 421, 423, 425, 429}  # of the 4xx
NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}  # to the other side now; no class of its own
LASTING_STATUSES = {501, 505}  # of the 5xx: they never did this, and never will


def classify(error: Exception, *, dependency: str) -> Exception:
    """Return the error to raise instead; one of the three kinds stays what it is, anything unknown asks a person."""
    if isinstance(error, TryLater | GiveUp | AskHuman):
        return error
    names = {f"{parent.__module__}.{parent.__qualname__}" for parent in type(error).__mro__}
    for name, kind in TABLE:
        if name in names:
            return kind(f"{dependency}: {_said(error)}", error)
    if isinstance(error, OSError) and error.errno in NO_WAY:
        return TryLater(f"{dependency}: {_said(error)}")
    return AskHuman(f"{dependency} failed in a way nobody has classified: {_said(error, named=True)}")


def _try_later(message: str, error: Exception) -> Exception:
    return TryLater(message, _retry_after(error))


def _give_up(message: str, error: Exception) -> Exception:
    return GiveUp(message)


def _ask_human(message: str, error: Exception) -> Exception:
    return AskHuman(message)


def _plainly(words: str, kind: Kind) -> Kind:
    """Where the error's own words say nothing to whoever reads them on the step."""
    return lambda message, error: kind(f"{message}: {words}", error)


def _by_status(message: str, error: Exception) -> Exception:
    """Of HTTP. A redirect, or a refusal of what was asked, stays what it is."""
    status = _status(error)
    if not status:
        return AskHuman(message)
    transient = status in TRANSIENT_STATUSES or (status >= 500 and status not in LASTING_STATUSES)
    return _try_later(message, error) if transient else GiveUp(message)


def _by_shape(message: str, error: Exception) -> Exception:
    """Of a model: no completion at all (a page of a proxy) is the peer's fault; one that misses the schema stays so."""
    return TryLater(message) if str(error).startswith("Invalid response from") else GiveUp(message)


def _by_code(message: str, error: Exception) -> Exception:
    """Of SMTP: 4xx is "not now", 5xx "never"; where several recipients were refused, one that may be taken later counts."""
    refused = getattr(error, "recipients", {}).values()
    codes = [code for code, _ in refused] or [getattr(error, "smtp_code", 0)]
    return TryLater(message) if any(400 <= code < 500 for code in codes) else GiveUp(message)


def _by_parts(message: str, error: Exception) -> Exception:
    """Of several models that all failed: one that may answer later is worth waiting for, one that is strange a look."""
    parts = error.exceptions if isinstance(error, ExceptionGroup) else ()
    kinds = [classify(part, dependency="") for part in parts]
    waits = [kind for kind in kinds if isinstance(kind, TryLater)]
    if waits:
        return TryLater(message, max((one.retry_after for one in waits if one.retry_after is not None), default=None))
    return GiveUp(message) if kinds and all(isinstance(kind, GiveUp) for kind in kinds) else AskHuman(message)


# Names, not classes: pydantic-ai takes seconds to import, and a web process never meets its errors.
# The first row that names the error's class, or one of its parents, decides.
TABLE: tuple[tuple[str, Kind], ...] = (
    # HTTP
    ("httpx2.HTTPStatusError", _by_status),
    ("httpx2.ConnectTimeout", _plainly("no connection in time", _try_later)),  # nothing was sent
    ("httpx2.TimeoutException", _plainly("no answer in time", _try_later)),
    ("httpx2.UnsupportedProtocol", _give_up),  # an address of ours that is none
    ("httpx2.LocalProtocolError", _give_up),  # we would send what HTTP does not allow
    ("httpx2.TransportError", _try_later),  # refused, reset, broken off
    ("httpx2.InvalidURL", _give_up),
    ("httpx2.TooManyRedirects", _give_up),
    ("httpx2.RequestError", _try_later),  # an answer that cannot be decoded
    ("httpx2.CookieConflict", _give_up),
    # what the answer says
    # no JSON, or half of it: the peer, or a proxy before it, is unwell
    ("json.decoder.JSONDecodeError", _plainly("the answer is not JSON", _try_later)),
    ("builtins.UnicodeDecodeError", _plainly("the answer is not text", _try_later)),
    ("pydantic_core._pydantic_core.ValidationError", _give_up),  # the answer has another shape than agreed
    # databases, also where an adapter asks through Django
    ("psycopg.errors.QueryCanceled", _try_later),  # our statement timeout
    ("psycopg.errors.InsufficientPrivilege", _give_up),
    ("psycopg.errors.InvalidAuthorizationSpecification", _give_up),
    ("psycopg.errors.InvalidPassword", _give_up),
    ("psycopg.errors.InvalidCatalogName", _give_up),
    ("psycopg.errors.ReadOnlySqlTransaction", _try_later),  # a replica that is about to take over
    ("psycopg.errors.IdleInTransactionSessionTimeout", _try_later),
    ("psycopg.OperationalError", _try_later),  # gone, restarting, full, deadlocked
    ("psycopg.InterfaceError", _try_later),  # the connection was closed under us
    ("psycopg.Error", _give_up),
    ("django.db.utils.OperationalError", _try_later),
    ("django.db.utils.InterfaceError", _try_later),
    ("django.db.utils.Error", _give_up),
    # models
    ("pydantic_ai.exceptions.ModelQuotaExceededError", _give_up),  # before the rate limit: it is a 429 as well
    ("pydantic_ai.exceptions.ModelRequestRejectedError", _give_up),  # authentication, not found, context window
    ("pydantic_ai.exceptions.ModelRateLimitError", _try_later),
    ("pydantic_ai.exceptions.ModelUnavailableError", _try_later),
    ("pydantic_ai.exceptions.ModelServerError", _try_later),
    ("pydantic_ai.exceptions.ModelConnectionError", _try_later),
    ("pydantic_ai.exceptions.ModelRequestTimeout", _try_later),
    ("pydantic_ai.exceptions.ModelHTTPError", _by_status),
    ("pydantic_ai.exceptions.ModelAPIError", _try_later),
    ("pydantic_ai.exceptions.FallbackExceptionGroup", _by_parts),
    ("pydantic_ai.exceptions.RunTimedOut", _try_later),
    ("pydantic_ai.exceptions.ConcurrencyLimitExceeded", _try_later),
    ("pydantic_ai.exceptions.SuspendedResponseExpired", _give_up),
    ("pydantic_ai.exceptions.UsageLimitExceeded", _ask_human),
    ("pydantic_ai.exceptions.RunCancelled", _ask_human),
    ("pydantic_ai.exceptions.UnexpectedModelBehavior", _by_shape),  # not kept to the schema: use the fallback
    ("pydantic_ai.exceptions.UserError", _give_up),  # a wrong setting of ours
    # mail
    ("smtplib.SMTPRecipientsRefused", _by_code),
    ("smtplib.SMTPResponseException", _by_code),
    ("smtplib.SMTPServerDisconnected", _try_later),
    ("smtplib.SMTPNotSupportedError", _give_up),
    # the network below all of them
    ("ssl.SSLCertVerificationError", _give_up),  # it is not who it says, until somebody puts that right
    ("ssl.SSLError", _try_later),
    ("socket.gaierror", _try_later),  # the name could not be looked up
    ("builtins.ConnectionError", _try_later),
    ("builtins.TimeoutError", _try_later),
)


def _said(error: Exception, *, named: bool = False) -> str:
    """One short line for the page, in the other side's words; the class of a known error stands in the step's trace."""
    text, name = " ".join(str(error).split())[:500], type(error).__name__
    return (f"{name}: {text}" if named else text) if text else name


def _status(error: Exception) -> int:
    status: int = getattr(error, "status_code", None) or getattr(_response(error), "status_code", None) or 0
    return status


def _response(error: Exception) -> Any:
    try:
        return getattr(error, "response", None)
    except ValueError:  # pydantic-ai's RunTimedOut has one only where the model had answered before
        return None


def _retry_after(error: Exception) -> float | None:
    """Seconds the other side asked for: pydantic-ai has them as a number, HTTP as seconds or as a date."""
    seconds = getattr(error, "retry_after", None)
    if seconds is None:
        headers = getattr(_response(error), "headers", None) or {}
        seconds = _seconds(headers.get("retry-after", ""))
    return None if seconds is None else min(max(float(seconds), 0.0), LONGEST_SECONDS)


def _seconds(header: str) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
