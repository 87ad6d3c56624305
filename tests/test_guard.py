"""Whatever happens outside arrives as one of three kinds of error, in time."""

import contextvars
import errno
import importlib
import json
import smtplib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import django.db
import httpx2
import psycopg
import pydantic
import pytest

from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.models import Dependency
from runs.reliability import guard
from runs.reliability.classify import TABLE, classify


def http(status: int, **headers: str) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "http://processor/v1/refunds")
    response = httpx2.Response(status, request=request, headers={name.replace("_", "-"): text for name, text in headers.items()})
    return httpx2.HTTPStatusError(f"{status}", request=request, response=response)


def pydantic_ai(name: str, **given: object) -> Exception:
    """An error of pydantic-ai with the fields it carries, whatever its constructor asks for."""
    from pydantic_ai import exceptions

    kind = getattr(exceptions, name)
    error: Exception = kind.__new__(kind, name)
    error.__dict__.update({"message": name, "model_name": "m", "retry_after": None, "body": None} | given)
    return error


def timed_out() -> Exception:
    from pydantic_ai.exceptions import RunTimedOut

    return RunTimedOut("slow")


def all_failed(*errors: Exception) -> Exception:
    from pydantic_ai.exceptions import FallbackExceptionGroup

    return FallbackExceptionGroup("all models failed", list(errors))


def wrong_media() -> Exception:
    words = "Invalid response from openai chat completions endpoint, expected JSON data"
    return importlib.import_module("pydantic_ai.exceptions").UnexpectedModelBehavior(words)


def broken_json() -> Exception:
    try:
        json.loads('{"reference": "FRO-')
    except ValueError as error:
        return error
    raise AssertionError


def wrong_shape() -> Exception:
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


LATER_STATUSES = {408, 421, 423, 425, 429, *range(500, 600)} - {501, 505}
ROWS: dict[str, list[tuple[Exception, type[Exception]]]] = {
    "httpx2.HTTPStatusError": [(http(status), TryLater) for status in LATER_STATUSES]
    + [(http(status), GiveUp) for status in {*range(300, 500), 501, 505} - LATER_STATUSES],
    "httpx2.ConnectTimeout": [(httpx2.ConnectTimeout("slow"), TryLater)],
    "httpx2.TimeoutException": [
        (httpx2.ReadTimeout("slow"), TryLater), (httpx2.PoolTimeout("slow"), TryLater), (httpx2.WriteTimeout("slow"), TryLater),
    ],
    "httpx2.UnsupportedProtocol": [(httpx2.UnsupportedProtocol("ftp"), GiveUp)],
    "httpx2.LocalProtocolError": [(httpx2.LocalProtocolError("a header with a line break"), GiveUp)],
    "httpx2.TransportError": [
        (httpx2.ConnectError("refused"), TryLater), (httpx2.ReadError("reset"), TryLater),
        (httpx2.RemoteProtocolError("half an answer"), TryLater), (httpx2.ProxyError("no way through"), TryLater),
    ],
    "httpx2.InvalidURL": [(httpx2.InvalidURL("bad"), GiveUp)],
    "httpx2.TooManyRedirects": [(httpx2.TooManyRedirects("round and round"), GiveUp)],
    "httpx2.RequestError": [(httpx2.DecodingError("no gzip"), TryLater)],
    "httpx2.CookieConflict": [(httpx2.CookieConflict("two"), GiveUp)],
    "json.decoder.JSONDecodeError": [(broken_json(), TryLater)],
    "builtins.UnicodeDecodeError": [(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), TryLater)],
    "pydantic_core._pydantic_core.ValidationError": [(wrong_shape(), GiveUp)],
    "psycopg.errors.QueryCanceled": [(psycopg.errors.QueryCanceled("slow"), TryLater)],
    "psycopg.errors.InsufficientPrivilege": [(psycopg.errors.InsufficientPrivilege("no"), GiveUp)],
    "psycopg.errors.InvalidAuthorizationSpecification": [(psycopg.errors.InvalidAuthorizationSpecification("no"), GiveUp)],
    "psycopg.errors.InvalidPassword": [(psycopg.errors.InvalidPassword("no"), GiveUp)],
    "psycopg.errors.InvalidCatalogName": [(psycopg.errors.InvalidCatalogName("no such database"), GiveUp)],
    "psycopg.errors.ReadOnlySqlTransaction": [(psycopg.errors.ReadOnlySqlTransaction("replica"), TryLater)],
    "psycopg.errors.IdleInTransactionSessionTimeout": [(psycopg.errors.IdleInTransactionSessionTimeout("slow"), TryLater)],
    "psycopg.OperationalError": [
        (psycopg.OperationalError("server closed the connection"), TryLater), (psycopg.errors.DeadlockDetected("two"), TryLater),
        (psycopg.errors.TooManyConnections("full"), TryLater), (psycopg.errors.AdminShutdown("restart"), TryLater),
    ],
    "psycopg.InterfaceError": [(psycopg.InterfaceError("the connection is closed"), TryLater)],
    "psycopg.Error": [(psycopg.errors.UndefinedTable("no table"), GiveUp), (psycopg.errors.UniqueViolation("twice"), GiveUp)],
    "django.db.utils.OperationalError": [(django.db.OperationalError("gone"), TryLater)],
    "django.db.utils.InterfaceError": [(django.db.InterfaceError("closed"), TryLater)],
    "django.db.utils.Error": [(django.db.IntegrityError("twice"), GiveUp), (django.db.DataError("too long"), GiveUp)],
    "pydantic_ai.exceptions.ModelQuotaExceededError": [(pydantic_ai("ModelQuotaExceededError"), GiveUp)],
    "pydantic_ai.exceptions.ModelRequestRejectedError": [
        (pydantic_ai("ModelAuthenticationError"), GiveUp), (pydantic_ai("ModelNotFoundError"), GiveUp),
        (pydantic_ai("ModelContextWindowExceededError"), GiveUp),
    ],
    "pydantic_ai.exceptions.ModelRateLimitError": [(pydantic_ai("ModelRateLimitError"), TryLater)],
    "pydantic_ai.exceptions.ModelUnavailableError": [(pydantic_ai("ModelOverloadedError"), TryLater)],
    "pydantic_ai.exceptions.ModelServerError": [(pydantic_ai("ModelServerError"), TryLater)],
    "pydantic_ai.exceptions.ModelConnectionError": [
        (pydantic_ai("ModelConnectionError"), TryLater), (pydantic_ai("ModelTimeoutError"), TryLater),
    ],
    "pydantic_ai.exceptions.ModelRequestTimeout": [(pydantic_ai("ModelRequestTimeout"), TryLater)],
    "pydantic_ai.exceptions.ModelHTTPError": [
        (pydantic_ai("ModelHTTPError", status_code=503), TryLater), (pydantic_ai("ModelHTTPError", status_code=418), GiveUp),
    ],
    "pydantic_ai.exceptions.ModelAPIError": [(pydantic_ai("ModelAPIError"), TryLater)],
    "pydantic_ai.exceptions.FallbackExceptionGroup": [
        (all_failed(http(400), http(503)), TryLater), (all_failed(http(400), http(401)), GiveUp),
        (all_failed(http(400), KeyError("x")), AskHuman),
    ],
    "pydantic_ai.exceptions.RunTimedOut": [(timed_out(), TryLater)],
    "pydantic_ai.exceptions.ConcurrencyLimitExceeded": [(pydantic_ai("ConcurrencyLimitExceeded"), TryLater)],
    "pydantic_ai.exceptions.SuspendedResponseExpired": [(pydantic_ai("SuspendedResponseExpired"), GiveUp)],
    "pydantic_ai.exceptions.UsageLimitExceeded": [(pydantic_ai("UsageLimitExceeded"), AskHuman)],
    "pydantic_ai.exceptions.RunCancelled": [(pydantic_ai("RunCancelled"), AskHuman)],
    "pydantic_ai.exceptions.UnexpectedModelBehavior": [
        (wrong_media(), TryLater), (pydantic_ai("UnexpectedModelBehavior"), GiveUp), (pydantic_ai("ContentFilterError"), GiveUp),
    ],
    "pydantic_ai.exceptions.UserError": [(pydantic_ai("UserError"), GiveUp)],
    "smtplib.SMTPRecipientsRefused": [
        (smtplib.SMTPRecipientsRefused({"a@b.example": (450, b"busy"), "c@d.example": (550, b"unknown")}), TryLater),
        (smtplib.SMTPRecipientsRefused({"c@d.example": (550, b"unknown")}), GiveUp),
    ],
    "smtplib.SMTPResponseException": [
        (smtplib.SMTPDataError(451, "later"), TryLater), (smtplib.SMTPDataError(554, "no"), GiveUp),
        (smtplib.SMTPConnectError(421, "busy"), TryLater), (smtplib.SMTPAuthenticationError(535, "no"), GiveUp),
        (smtplib.SMTPAuthenticationError(454, "later"), TryLater), (smtplib.SMTPSenderRefused(553, b"no", "a@b.example"), GiveUp),
    ],
    "smtplib.SMTPServerDisconnected": [(smtplib.SMTPServerDisconnected("gone"), TryLater)],
    "smtplib.SMTPNotSupportedError": [(smtplib.SMTPNotSupportedError("no AUTH"), GiveUp)],
    "ssl.SSLCertVerificationError": [(ssl.SSLCertVerificationError("another name"), GiveUp)],
    "ssl.SSLError": [(ssl.SSLError("broken off"), TryLater)],
    "socket.gaierror": [(socket.gaierror(-3, "Temporary failure in name resolution"), TryLater)],
    "builtins.ConnectionError": [(ConnectionResetError("reset"), TryLater), (BrokenPipeError("gone"), TryLater)],
    "builtins.TimeoutError": [(TimeoutError("slow"), TryLater)],
}  # fmt: skip
UNKNOWN: list[Exception] = [
    KeyError("who knows"),
    RuntimeError("who knows"),
    OSError("no such file"),
    smtplib.SMTPException("odd"),
]


def test_every_row_of_the_table_is_listed_here() -> None:
    assert list(ROWS) == [name for name, _ in TABLE]


@pytest.mark.parametrize("name", ROWS)
def test_each_error_has_one_of_three_kinds(name: str) -> None:
    for error, kind in ROWS[name]:
        classified = classify(error, dependency="the bank")
        assert type(classified) is kind, error
        assert str(classified).startswith("the bank")
        assert deciding(type(error)) == name, error


@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
def test_an_error_that_nobody_has_classified_goes_to_a_person(error: Exception) -> None:
    assert type(classify(error, dependency="the bank")) is AskHuman


def deciding(kind: type[BaseException]) -> str:
    """The row that decides about an error of this class."""
    names = {f"{parent.__module__}.{parent.__qualname__}" for parent in kind.__mro__}
    return next((name for name, _ in TABLE if name in names), "")


def test_no_error_of_the_clients_is_forgotten() -> None:
    """A library may bring new ones: each must be decided about here."""
    from pydantic_ai import exceptions

    found = [*vars(httpx2).values(), *vars(smtplib).values(), *vars(psycopg.errors).values()]
    found += [one for one in vars(exceptions).values() if isinstance(one, type) and issubclass(one, exceptions.AgentRunError)]
    classes = {one for one in found if isinstance(one, type) and issubclass(one, Exception) and not issubclass(one, Warning)}
    undecided = {one.__name__ for one in classes if not deciding(one)}
    parents = {"HTTPError", "AgentRunError", "SMTPException", "Warning"}  # abstract, or odd enough for a person
    ours = {"StreamError", "StreamClosed", "StreamConsumed", "RequestNotRead", "ResponseNotRead"}  # an adapter that is wrong
    assert undecided == parents | ours


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("refused"), "the bank: refused"), (TimeoutError(), "the bank: TimeoutError"),
        (httpx2.ConnectTimeout("timed out"), "the bank: timed out: no connection in time"),
        (httpx2.ReadTimeout("timed out"), "the bank: timed out: no answer in time"),
        (json.JSONDecodeError("Expecting value", "<html>", 0),
         "the bank: Expecting value: line 1 column 1 (char 0): the answer is not JSON"),
        (KeyError("who knows"), "the bank failed in a way nobody has classified: KeyError: 'who knows'"),
        (KeyError(), "the bank failed in a way nobody has classified: KeyError"),
    ],
)  # fmt: skip
def test_an_error_is_told_in_the_other_side_s_words_and_a_strange_one_by_its_class(error: Exception, message: str) -> None:
    assert str(classify(error, dependency="the bank")) == message


def test_no_way_to_the_other_side_is_tried_again() -> None:
    no_route = classify(OSError(errno.EHOSTUNREACH, "No route to host"), dependency="mail")
    assert type(no_route) is TryLater
    assert type(classify(OSError(errno.ENOSPC, "No space left"), dependency="mail")) is AskHuman


def test_an_error_that_has_a_kind_keeps_it() -> None:
    error = TryLater("in a minute", retry_after=60)
    assert classify(error, dependency="the bank") is error


def test_the_table_names_errors_that_exist() -> None:
    """A class that is renamed in a library would else fall silently to "ask a person"."""
    import importlib

    for name, _ in TABLE:
        module, _, error = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), error), Exception), name


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("7200", 7200.0), ("999999", 86_400.0), ("soon", None), ("", None), ("-5", None)],
)
def test_the_wait_that_was_asked_for_is_read(header: str, seconds: float | None) -> None:
    found = classify(http(429, retry_after=header), dependency="d")
    assert isinstance(found, TryLater)
    assert found.retry_after == seconds


def test_the_wait_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    found = classify(http(503, retry_after=later), dependency="d")
    assert isinstance(found, TryLater)
    assert found.retry_after == pytest.approx(30, abs=2)


def test_a_model_s_wait_is_kept() -> None:
    found = classify(pydantic_ai("ModelRateLimitError", retry_after=12.5), dependency="model")
    assert isinstance(found, TryLater)
    assert found.retry_after == 12.5


# --- the door -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_guard_returns_what_the_function_returns() -> None:
    assert guard.call("bank", lambda: 42) == 42


@pytest.mark.django_db
def test_guard_classifies_what_the_function_raises() -> None:
    def fails() -> None:
        raise httpx2.ReadTimeout("no bytes for 5 s")

    with pytest.raises(TryLater, match="card-processor: no bytes for 5 s") as raised:
        guard.call("card-processor", fails)
    assert isinstance(raised.value.__cause__, httpx2.ReadTimeout)


@pytest.mark.django_db
def test_guard_stops_waiting_for_a_function_that_hangs() -> None:
    hanging = threading.Event()
    Dependency.objects.create(name="bank", attempt_timeout_seconds=0.1)
    try:
        with pytest.raises(TryLater, match=r"bank gave no answer within 0\.1 s"):
            guard.call("bank", lambda: hanging.wait(30))
    finally:
        hanging.set()


@pytest.mark.django_db
def test_the_function_sees_the_step_of_its_caller_and_the_terms_of_its_dependency() -> None:
    step = contextvars.ContextVar[str]("step", default="none")
    step.set("42:freeze")
    assert guard.call("bank", lambda: (step.get(), guard.terms().name)) == ("42:freeze", "bank")
    assert not guard.is_calling()


@pytest.mark.django_db
def test_what_is_not_an_error_is_not_classified() -> None:
    def stops() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        guard.call("bank", stops)
