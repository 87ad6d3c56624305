"""Whatever happens outside arrives as one of three kinds of error, in time."""

import contextvars
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

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


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectError("refused"), TryLater), (httpx2.ConnectTimeout("slow"), TryLater),
        (httpx2.ReadTimeout("slow"), TryLater), (httpx2.ReadError("reset"), TryLater),
        (httpx2.RemoteProtocolError("half an answer"), TryLater),
        (httpx2.InvalidURL("bad"), GiveUp),
        (http(429), TryLater), (http(408), TryLater), (http(500), TryLater), (http(503), TryLater), (http(599), TryLater),
        (http(400), GiveUp), (http(401), GiveUp), (http(404), GiveUp), (http(409), GiveUp), (http(422), GiveUp),
        (broken_json(), TryLater), (wrong_shape(), GiveUp),
        (psycopg.OperationalError("server closed the connection"), TryLater), (psycopg.errors.QueryCanceled("slow"), TryLater),
        (psycopg.errors.DeadlockDetected("deadlock"), TryLater), (psycopg.errors.UndefinedTable("no table"), GiveUp),
        (psycopg.errors.InsufficientPrivilege("no"), GiveUp), (psycopg.errors.UniqueViolation("twice"), GiveUp),
        (pydantic_ai("ModelRateLimitError"), TryLater), (pydantic_ai("ModelOverloadedError"), TryLater),
        (pydantic_ai("ModelServerError"), TryLater), (pydantic_ai("ModelConnectionError"), TryLater),
        (pydantic_ai("ModelTimeoutError"), TryLater), (pydantic_ai("ModelRequestTimeout"), TryLater),
        (pydantic_ai("ModelQuotaExceededError"), GiveUp), (pydantic_ai("ModelAuthenticationError"), GiveUp),
        (pydantic_ai("ModelNotFoundError"), GiveUp), (pydantic_ai("ModelContextWindowExceededError"), GiveUp),
        (pydantic_ai("UnexpectedModelBehavior"), GiveUp), (pydantic_ai("UsageLimitExceeded"), AskHuman),
        (ConnectionResetError("reset"), TryLater), (TimeoutError("slow"), TryLater),
        (KeyError("who knows"), AskHuman), (RuntimeError("who knows"), AskHuman),
    ],
)  # fmt: skip
def test_each_error_has_one_of_three_kinds(error: Exception, kind: type[Exception]) -> None:
    classified = classify(error, dependency="the bank")
    assert type(classified) is kind
    assert str(classified).startswith("the bank")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("refused"), "the bank: refused"), (TimeoutError(), "the bank: TimeoutError"),
        (KeyError("who knows"), "the bank failed in a way nobody has classified: KeyError: 'who knows'"),
        (KeyError(), "the bank failed in a way nobody has classified: KeyError"),
    ],
)  # fmt: skip
def test_an_error_is_told_in_the_other_side_s_words_and_a_strange_one_by_its_class(error: Exception, message: str) -> None:
    assert str(classify(error, dependency="the bank")) == message


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
    [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("soon", None), ("", None), ("-5", None)],
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
