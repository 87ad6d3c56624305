"""/healthz and /readyz say what lives and what is wrong."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import django_rq
import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection
from django.http import HttpResponse
from django.test import Client, override_settings
from django.utils import timezone
from rq import Worker

from agentops.accounts import NobodySignsUp
from agentops.cache import MEANWHILE, PAUSE_SECONDS, _asked_again_at
from runs.alerts import evaluation
from runs.models import Round
from tests import cast
from tests.processes import away, eventually, process

pytestmark = pytest.mark.django_db(transaction=True)
TOO_MANY = NobodySignsUp.error_messages["too_many_login_attempts"]
AWAY = {"default": settings.CACHES["default"] | {"LOCATION": "redis://127.0.0.1:1/0"}}


def test_a_living_process_says_so_to_anybody() -> None:
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_what_is_missing_is_named() -> None:
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {
        "database": "ok",
        "redis": "ok",
        "job_processes": "no job process is alive",
        "sweeper": "the sweeper has not swept for 15 seconds",
        "monitoring": "no round of the alert rules has ended yet",
    }


def test_ready_with_a_job_process_and_a_sweeper() -> None:
    Round.objects.create(pk=1, begun_at=timezone.now(), ended_at=timezone.now() - timedelta(minutes=4))
    assert Client().get("/readyz").json()["parts"]["monitoring"] == "the alert rules were last judged 4 minutes ago"
    evaluation.make_round()
    with process("sweeper"), process("rqworker", "default"):
        eventually(lambda: Client().get("/readyz").status_code == 200)


def test_a_job_process_that_was_killed_is_not_alive_when_its_key_has_expired() -> None:
    """RQ keeps the name of one that was killed until another tidies up, and nobody else may be there."""
    redis = django_rq.get_connection("default")
    killed = Worker(["default"], connection=redis, name="killed")
    killed.register_birth()
    killed.heartbeat()
    assert Client().get("/readyz").json()["parts"]["job_processes"] == "ok"
    redis.delete(killed.key)  # as it expires
    assert Client().get("/readyz").json()["parts"]["job_processes"] == "no job process is alive"


@pytest.fixture
def redis_away() -> Iterator[None]:
    """The cache's Redis does not answer; what each process remembers meanwhile is forgotten before and after."""

    LocMemCache(MEANWHILE, {}).clear()
    with override_settings(CACHES=AWAY):
        yield
    LocMemCache(MEANWHILE, {}).clear()


def sign_in(username: str, password: str) -> HttpResponse:
    return Client().post("/accounts/login/", {"login": username, "password": password})


@pytest.mark.usefixtures("redis_away")
def test_people_can_sign_in_while_redis_is_away() -> None:
    cast.people()
    answer = sign_in("operator", cast.PASSWORD)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


@pytest.mark.usefixtures("redis_away")
def test_guessing_a_password_is_throttled_while_redis_is_away() -> None:
    cast.people()
    said = [sign_in("operator", f"guess-{number}").content.decode() for number in range(6)]
    assert [TOO_MANY in page for page in said] == [False] * 5 + [True]
    assert TOO_MANY in sign_in("operator", cast.PASSWORD).content.decode(), "the right one comes too late"
    assert sign_in("reviewer", cast.PASSWORD).status_code == 302, "others are not kept out"


def test_a_redis_that_hangs_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing. A sign-in has a dozen questions, and waits for the first answer only."""
    cast.people()
    monkeypatch.setattr("agentops.cache.PAUSE_SECONDS", 600.0)
    with asked_in_vain() as of_one_question:
        assert cache.get("key") is None
    with asked_in_vain() as of_a_sign_in:
        assert sign_in("operator", cast.PASSWORD).status_code == 302
    assert len(of_a_sign_in) == len(of_one_question) > 0


@contextmanager
def asked_in_vain() -> Iterator[list[socket.socket]]:
    """The connections to a Redis that takes them and says nothing, while the cache is there."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(mute.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        address = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        with override_settings(CACHES={"default": settings.CACHES["default"] | {"LOCATION": address}}):
            yield taken
        mute.shutdown(socket.SHUT_RDWR)
    for one in taken:
        one.close()


def test_a_redis_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("key", "in Redis")
    address = settings.CACHES["default"]["LOCATION"]
    monkeypatch.setitem(_asked_again_at, address, time.monotonic() + PAUSE_SECONDS)
    assert cache.get("key") is None, "it was away a moment ago"
    monkeypatch.setitem(_asked_again_at, address, time.monotonic())
    assert cache.get("key") == "in Redis"


def test_what_was_remembered_meanwhile_does_not_hide_what_redis_knows() -> None:
    cache.set("key", "in Redis")
    with override_settings(CACHES=AWAY):
        assert cache.get("key") is None
        assert (cache.add("key", "meanwhile"), cache.add("key", "again"), cache.get("key")) == (True, False, "meanwhile")
        assert (cache.delete("key"), cache.get("key")) == (True, None)
        cache.set("key", "meanwhile")
    assert cache.get("key") == "in Redis"


def test_while_the_database_is_away_every_page_says_so_and_when_to_ask_again() -> None:
    client = Client(raise_request_exception=False)
    client.force_login(cast.people()["admin"])
    pages = ["/", "/runs/", "/reviews/", "/agents/", "/dependencies/", "/operations/"]
    back = away()
    try:
        answers = [client.get(page) for page in pages]
        answers.append(client.post("/agents/counting/start/", {"text": "hello"}))
    finally:
        back()
        connection.close()  # as a web process does after each request
    assert [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers] == [(503, "5")] * 7
    assert "The database cannot be reached" in answers[0].content.decode()
    assert {client.get(page).status_code for page in pages} == {200}
