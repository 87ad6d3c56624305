"""/healthz and /readyz say what lives and what is wrong."""

import pytest
from django.conf import settings
from django.test import Client, override_settings

from runs import sweeper
from tests import cast
from tests.processes import eventually, process

pytestmark = pytest.mark.django_db(transaction=True)


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
    }


def test_ready_with_a_job_process_and_a_sweeper() -> None:
    sweeper.sweep()
    with process("rqworker", "default"):
        eventually(lambda: Client().get("/readyz").status_code == 200)


def test_people_can_sign_in_while_redis_is_away() -> None:
    cast.people()
    away = {"default": settings.CACHES["default"] | {"LOCATION": "redis://127.0.0.1:1/0"}}
    with override_settings(CACHES=away):
        answer = Client().post("/accounts/login/", {"login": "operator", "password": cast.PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
