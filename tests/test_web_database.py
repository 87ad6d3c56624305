"""The connections that all requests of a web process share."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from agentops.visitor import Visitor
from tests import processes
from tests.browser.conftest import web

MANY = 12  # less than WEB_CONNECTIONS
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'django_session'::regclass AND NOT granted"
NAME = "ends-together"  # of its connections on the server: those of other processes, and of other tests, go on
ENDED = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = %s"


@pytest.mark.django_db(transaction=True)
def test_when_all_connections_have_died_the_next_page_is_answered_by_a_new_one(people: dict[str, User]) -> None:
    with web(PGAPPNAME=NAME) as address, ThreadPoolExecutor(MANY) as threads:
        visitors = [Visitor(urlsplit(address).port or 0, people["operator"]) for _ in range(MANY)]
        with transaction.atomic():
            asked("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
            answers = threads.map(lambda one: one.get("/about/").status, visitors)
            processes.eventually(lambda: asked(WAITING) == MANY)
        assert set(answers) == {200}
        assert asked(ENDED, NAME) >= MANY
        assert visitors[0].get("/about/").status == 200


def asked(statement: str, *values: object) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.fetchone()[0]) if cursor.description else 0
