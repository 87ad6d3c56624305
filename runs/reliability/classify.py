"""One table that says which of the three kinds an error from outside is."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from runs.engine.errors import AskHuman, GiveUp, TryLater

Kind = Callable[[str, Exception], Exception]

TRANSIENT_STATUSES = {408, 425, 429}  # of the 4xx; every 5xx is transient too
LONGEST_RETRY_AFTER_SECONDS = 3600.0  # a peer that asks for more is not obeyed to the letter


def classify(error: Exception, *, dependency: str) -> Exception:
    """Return the error to raise instead; one of the three kinds stays what it is, anything unknown asks a person."""
    if isinstance(error, TryLater | GiveUp | AskHuman):
        return error
    names = {f"{parent.__module__}.{parent.__qualname__}" for parent in type(error).__mro__}
    for name, kind in TABLE:
        if name in names:
            return kind(f"{dependency}: {_said(error)}", error)
    return AskHuman(f"{dependency} failed in a way nobody has classified: {_said(error, named=True)}")


def _try_later(message: str, error: Exception) -> Exception:
    return TryLater(message, _retry_after(error))


def _give_up(message: str, error: Exception) -> Exception:
    return GiveUp(message)


def _ask_human(message: str, error: Exception) -> Exception:
    return AskHuman(message)


def _by_status(message: str, error: Exception) -> Exception:
    status = _status(error)
    transient = status in TRANSIENT_STATUSES or status >= 500
    return _try_later(message, error) if transient else GiveUp(message)


# Names, not classes: pydantic-ai takes seconds to import, and a web process never meets its errors.
# The first row that names the error's class, or one of its parents, decides.
TABLE: tuple[tuple[str, Kind], ...] = (
    ("httpx2.HTTPStatusError", _by_status),
    ("httpx2.TimeoutException", _try_later),
    ("httpx2.TransportError", _try_later),  # refused, reset, broken off
    ("httpx2.InvalidURL", _give_up),
    ("httpx2.RequestError", _try_later),  # an answer that cannot be decoded, too many redirects
    ("json.decoder.JSONDecodeError", _try_later),  # half an answer: the peer, or a proxy before it, is unwell
    ("pydantic_core._pydantic_core.ValidationError", _give_up),  # the answer has another shape than agreed
    ("psycopg.errors.QueryCanceled", _try_later),  # our statement timeout
    ("psycopg.errors.InsufficientPrivilege", _give_up),
    ("psycopg.OperationalError", _try_later),
    ("psycopg.Error", _give_up),
    ("pydantic_ai.exceptions.ModelQuotaExceededError", _give_up),  # before the rate limit: it is a 429 as well
    ("pydantic_ai.exceptions.ModelRequestRejectedError", _give_up),  # authentication, not found, context window
    ("pydantic_ai.exceptions.ModelRateLimitError", _try_later),
    ("pydantic_ai.exceptions.ModelUnavailableError", _try_later),
    ("pydantic_ai.exceptions.ModelServerError", _try_later),
    ("pydantic_ai.exceptions.ModelConnectionError", _try_later),
    ("pydantic_ai.exceptions.ModelRequestTimeout", _try_later),
    ("pydantic_ai.exceptions.ModelHTTPError", _by_status),
    ("pydantic_ai.exceptions.ModelAPIError", _try_later),
    ("pydantic_ai.exceptions.RunTimedOut", _try_later),
    ("pydantic_ai.exceptions.UsageLimitExceeded", _ask_human),
    ("pydantic_ai.exceptions.UnexpectedModelBehavior", _give_up),  # it does not keep to the schema: use the fallback
    ("pydantic_ai.exceptions.UserError", _give_up),  # a wrong setting of ours
    ("builtins.ConnectionError", _try_later),
    ("builtins.TimeoutError", _try_later),
)


def _said(error: Exception, *, named: bool = False) -> str:
    """One short line for the page, in the other side's words; the class of a known error stands in the step's trace."""
    text, name = " ".join(str(error).split())[:500], type(error).__name__
    return (f"{name}: {text}" if named else text) if text else name


def _status(error: Exception) -> int:
    response = getattr(error, "response", None)
    status: int = getattr(error, "status_code", None) or getattr(response, "status_code", None) or 0
    return status


def _retry_after(error: Exception) -> float | None:
    """Seconds the other side asked for: pydantic-ai has them as a number, HTTP as seconds or as a date."""
    seconds = getattr(error, "retry_after", None)
    if seconds is None:
        headers = getattr(getattr(error, "response", None), "headers", {})
        seconds = _seconds(headers.get("retry-after", ""))
    return None if seconds is None else min(max(float(seconds), 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _seconds(header: str) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
