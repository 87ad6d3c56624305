"""The demo's bank: what it holds, and how little the desk may do there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings

from runs.engine.errors import AskHuman, TryLater
from runs.integrations import bank, bank_world
from tests.desk import replies


@pytest.fixture
def at_the_bank(db: None, demo_bank: None) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the rights of the desk."""
    with bank._connect() as desk_connection:
        yield desk_connection


def test_the_bank_has_the_customers_it_was_built_with(at_the_bank: object) -> None:
    found = bank.find_account("C-1042")
    assert (found.customer, found.name, len(found.cards)) == ("C-1042", "Omar Moreau", 1)
    assert 0 < len(found.transactions) <= 20
    assert [one.booked_on for one in found.transactions] == sorted((one.booked_on for one in found.transactions), reverse=True)


def test_the_bank_gives_every_rule_something_to_do(at_the_bank: object) -> None:
    accounts = [bank.find_account(f"C-{number}") for number in range(1001, 1201)]
    assert sum(bool(one.booked_twice()) for one in accounts) >= 20
    assert sum(not one.active_cards() for one in accounts) >= 5
    for kind in ("card payment", "cash withdrawal", "top-up", "transfer"):
        assert sum(len(one.with_fee(kind)) == 1 for one in accounts) >= 20
    assert any(one.fee_cents > 2500 for given in accounts for one in given.with_fee("transfer"))


def test_building_the_bank_again_changes_nothing(at_the_bank: object) -> None:
    before = bank.find_account("C-1042")
    assert bank.build() is True
    assert bank.find_account("C-1042") == before


def test_a_real_bank_is_never_built_over(settings: Settings) -> None:
    settings.BANK_DATABASE_URL = "postgresql://nobody@127.0.0.1:1/bank"
    assert bank.build() is False


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM replies", "UPDATE cards SET status = 'active'", "DELETE FROM customers", "TRUNCATE transactions",
        "SELECT * FROM public.runs_run", "INSERT INTO public.auth_user (username) VALUES ('x')", "CREATE TABLE mine (a int)",
        "UPDATE replies SET body = 'x'",
    ],
)  # fmt: skip
def test_the_desk_may_do_nothing_else_at_the_bank(at_the_bank: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        at_the_bank.execute(statement)
    at_the_bank.rollback()


def test_a_customer_the_bank_does_not_know_is_a_person_s_business(at_the_bank: object) -> None:
    with pytest.raises(AskHuman, match="The bank knows no customer C-9"):
        bank.find_account("C-9")


def test_one_key_is_one_reply(at_the_bank: object) -> None:
    for body in ("first", "second"):
        bank.queue_reply(key="0:once", customer="C-1042", queue="fraud", action="nothing", reference="", body=body)
    assert replies("0:once") == [("C-1042", "fraud", "nothing", "", "first")]


def test_a_bank_that_cannot_be_reached_is_tried_again(settings: Settings) -> None:
    settings.BANK_DATABASE_URL = "postgresql://desk@127.0.0.1:1/bank"
    with pytest.raises(TryLater, match="bank: OperationalError"):
        bank.find_account("C-1042")


def test_a_bank_that_is_slow_is_tried_again(at_the_bank: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "STATEMENT_TIMEOUT_SECONDS", "0.05")
    with connection.cursor() as cursor:  # uncommitted until the test's rollback, so that the desk has to wait
        cursor.execute("LOCK TABLE bank.customers IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TryLater, match="bank: QueryCanceled"):
            bank.find_account("C-1042")


@pytest.mark.django_db(transaction=True)
def test_two_that_build_the_bank_at_once_build_one(demo_bank: None) -> None:
    """And a role that the whole server shares: it is dropped and made anew by whoever comes first."""
    address = bank._own_database()
    with psycopg.connect(address, autocommit=True) as owner:
        owner.execute("DROP SCHEMA bank CASCADE")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: bank_world.build(address, seed=bank_world.SEED), range(8)))
        assert owner.execute("SELECT count(*) FROM bank.world").fetchone() == (1,)
        assert owner.execute("SELECT count(*) FROM bank.customers").fetchone() == (200,)
