"""What every test may lean on: a clean database, an empty Redis, the cast, and small agents."""

import gc
from collections.abc import Callable, Iterator

import django_rq
import pytest
from django.contrib.auth.models import User
from django.test import Client, TransactionTestCase
from pytest_django import DjangoDbBlocker

from agentops import people as accounts
from runs import pen
from runs.reliability import terms
from tests import cast, cleaning, template
from tests.desk import classifier, demo_bank, model, outside  # noqa: F401 - fixtures

# Begun first, the longest before the others, so that in the end no process is alone with one of them for minutes.
LONG = (
    "test_chaos.py::test_nothing_is_lost",
    "test_poison.py::test_poison_is_quarantined",
    "test_state_machine.py",
    "browser/test_accessibility.py",
    "test_up.py::test_everything_comes_up",
    "test_benchmark.py::test_a_quick_benchmark_takes",
    "test_benchmark.py::test_a_quick_benchmark_of_a_full_inbox",
    "test_benchmark.py::test_a_quick_benchmark_of_the_pages",
    "browser/test_hostile.py",
    "test_crashes.py",
    "test_benchmark.py::test_runs_and_pages_go_on",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of N processes each is given the next N-th of all items: it is to begin with its share of the long ones."""
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, name in enumerate(LONG):
        shares[number % processes] += [item for item in items if f"tests/{name}" in item.nodeid]
    long = {item for share in shares for item in share}
    others = [item for item in items if item not in long]
    items[:] = []
    for number, share in enumerate(shares):
        size = (len(others) + sum(map(len, shares[number:]))) // (processes - number)
        more = max(0, size - len(share))
        items += [*share, *others[:more]]
        del others[:more]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: to look through it for garbage again and again takes a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: DjangoDbBlocker) -> None:
    with django_db_blocker.unblock():
        template.migrated()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """What tests that commit leave behind goes as tests/cleaning.py says."""
    with django_db_blocker.unblock():
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
