"""What tests of the card desk stand on: a trained classifier, the demo's bank, the outside world."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker, Settings

from agentops.outside import Outside
from runs.integrations import bank, message_classifier
from runs.integrations import message_classifier_training as training


@pytest.fixture(scope="session")
def classifier() -> message_classifier.MessageClassifier:
    """Trained at most once on a machine: it is kept in AGENTOPS_MODEL_CACHE, and xdist's workers wait for one another."""
    training.ensure()
    return message_classifier.load()


@pytest.fixture(scope="session")
def demo_bank(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Its tables are not Django's: neither a rollback nor a flush touches them."""
    with django_db_blocker.unblock():
        bank.build()


@pytest.fixture
def outside(settings: Settings) -> Iterator[Outside]:
    """The outside world on a free port, and the project pointed at it."""
    with Outside() as world:
        settings.CARD_PROCESSOR_URL = world.url
        yield world


@pytest.fixture
def model(outside: Outside, settings: Settings) -> Outside:
    """The outside world with a model configured, in the OpenAI dialect."""
    settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL = "outside", f"{outside.url}/v1"
    return outside


def known(customer: str) -> bank.Account:
    """The account of a customer of the sample bank."""
    account = bank.find_account(customer)
    assert account is not None, customer
    return account


def replies(key: str) -> list[tuple[Any, ...]]:
    """What the bank was asked to send under this key."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT customer, queue, action, reference, body FROM bank.replies WHERE key = %s", [key])
        return list(cursor.fetchall())


def until(condition: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """Wait for something in another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
