"""What every test may lean on: a clean database, an empty Redis, the cast, and small agents."""

from collections.abc import Callable, Iterator

import django_rq
import pgtrigger
import pytest
from django.contrib.auth.models import User
from django.test import Client, TransactionTestCase
from pytest_django import DjangoDbBlocker

from agentops import people as accounts
from runs import pen
from runs.reliability import terms
from tests import cast, cleaning
from tests.desk import classifier, demo_bank, model, outside  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """What tests that commit leave behind may be truncated, which our trigger refuses: test_event_log installs it for itself."""
    with django_db_blocker.unblock():
        pgtrigger.uninstall("runs.Event:no_truncate")
        accounts.ensure_groups()
        cleaning.what_stays()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", cleaning.clean)
        yield
    pen.close()


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[None]:
    yield
    django_rq.get_connection("default").flushall()


@pytest.fixture(autouse=True)
def nothing_known_of_dependencies() -> None:
    """What another test had read of its rows."""
    terms.forget()


@pytest.fixture
def people(db: None) -> dict[str, User]:
    """operator, reviewer, reviewer2, admin and outsider."""
    return cast.people()


@pytest.fixture
def signed_in(people: dict[str, User]) -> Callable[..., Client]:
    """Makes the browser of one of the cast, the operator's unless named, without a browser."""

    def client(name: str = "operator") -> Client:
        made = Client()
        made.force_login(people[name])
        return made

    return client
