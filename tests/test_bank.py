"""The demo's bank: what it holds, and how little the desk may do there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import psycopg
import pytest
from django.db import connection
from psycopg.conninfo import make_conninfo
from pytest_django import Settings

from runs.engine.errors import GiveUp, TryLater
from runs.integrations import bank, bank_world
from runs.models import Dependency
from runs.reliability import guard, terms
from tests.desk import known, replies


@pytest.fixture
def at_the_bank(db: None, demo_bank: None) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the rights of the desk."""
    with guard.call(bank.BANK, bank._connect) as desk_connection:
        yield desk_connection


def test_the_bank_has_the_customers_it_was_built_with(at_the_bank: object) -> None:
    found = known("C-1042")
    assert (found.customer, found.name, len(found.cards)) == ("C-1042", "Omar Moreau", 1)
    assert 0 < len(found.transactions) <= 20
    assert [one.booked_on for one in found.transactions] == sorted((one.booked_on for one in found.transactions), reverse=True)


def test_the_bank_gives_every_rule_something_to_do(at_the_bank: object) -> None:
    accounts = [known(f"C-{number}") for number in range(1001, 1201)]
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


def test_a_customer_the_bank_does_not_know_has_no_account(at_the_bank: object) -> None:
    assert bank.find_account("C-9") is None


def test_a_card_is_its_customer_s_and_nobody_else_s(at_the_bank: object) -> None:
    mine, another_s = (known(customer).cards[0].number for customer in ("C-1042", "C-1043"))
    bank.check_card(mine, customer="C-1042")
    for card in (another_s, "K-99999", "", f"{mine} "):
        with pytest.raises(GiveUp, match=f"^{card} is not a card of customer C-1042, so nothing was done. .*: {mine}.$"):
            bank.check_card(card, customer="C-1042")
    with pytest.raises(GiveUp, match=r"C-9 has no card.$"):
        bank.check_card(mine, customer="C-9")


def test_every_card_and_transaction_of_an_account_passes_the_check(at_the_bank: psycopg.Connection[Any]) -> None:
    """Also the ones that are too old to be shown."""
    cards = at_the_bank.execute("SELECT customer, number FROM cards WHERE customer < 'C-1011'").fetchall()
    rows = at_the_bank.execute(
        "SELECT c.customer, t.number, t.amount_cents FROM transactions t JOIN cards c ON c.number = t.card"
        " WHERE c.customer < 'C-1004'"
    ).fetchall()
    assert len(rows) > 3 * 8
    for customer, card in cards:
        bank.check_card(card, customer=customer)
    for customer, transaction, amount_cents in rows:
        bank.check_transaction(transaction, customer=customer, part="amount", amount_cents=amount_cents)
    assert all(bank_world.may_have_card(card) for _, card in cards)
    assert all(bank_world.may_have_transaction(transaction) for _, transaction, _ in rows)


@pytest.mark.parametrize("part", ["fee", "amount"])
def test_no_more_is_paid_back_than_was_taken(at_the_bank: object, part: Literal["fee", "amount"]) -> None:
    one = next(one for one in known("C-1042").transactions if one.fee_cents)
    most = one.fee_cents if part == "fee" else one.amount_cents
    for amount_cents in (1, most):
        bank.check_transaction(one.number, customer="C-1042", part=part, amount_cents=amount_cents)
    for amount_cents in (most + 1, 0, -1):
        with pytest.raises(GiveUp, match=f"EUR cannot be paid back: the {part} of {one.number} is {most / 100:.2f} EUR"):
            bank.check_transaction(one.number, customer="C-1042", part=part, amount_cents=amount_cents)
    for customer, number in (("C-1043", one.number), ("C-1042", "T-9999999")):
        with pytest.raises(GiveUp, match=f"^{number} is not a transaction of customer {customer}, so nothing was paid back.$"):
            bank.check_transaction(number, customer=customer, part=part, amount_cents=1)


def test_a_check_that_cannot_ask_the_bank_is_tried_again(db: None, settings: Settings) -> None:
    settings.BANK_DATABASE_URL = "postgresql://desk@127.0.0.1:1/bank"
    with pytest.raises(TryLater, match="bank: connection failed"):
        bank.check_card("K-10421", customer="C-1042")
    with pytest.raises(TryLater, match="bank: connection failed"):
        bank.check_transaction("T-1042100", customer="C-1042", part="fee", amount_cents=1)


@pytest.mark.parametrize(
    "number", ["K-99999", "K-10001", "K-12011", "K-10013", "K-1001", "K-100111", "X-10011", "k-10011", "", "K-1001१"]
)
def test_a_number_that_no_card_can_have_is_known(number: str) -> None:
    assert not bank_world.may_have_card(number)
    assert not bank_world.may_have_transaction(number.replace("K", "T") + "00")


def test_one_key_is_one_reply(at_the_bank: object) -> None:
    for body in ("first", "second"):
        bank.queue_reply(key="0:once", customer="C-1042", queue="fraud", action="nothing", reference="", body=body)
    assert replies("0:once") == [("C-1042", "fraud", "nothing", "", "first")]


def test_a_bank_that_cannot_be_reached_is_tried_again(db: None, settings: Settings) -> None:
    settings.BANK_DATABASE_URL = "postgresql://desk@127.0.0.1:1/bank"
    with pytest.raises(TryLater, match="bank: connection failed"):
        bank.find_account("C-1042")


@pytest.mark.parametrize(("wrong", "words"), [("dbname", "database"), ("user", "role")])
def test_a_bank_that_refuses_us_is_given_up(db: None, settings: Settings, wrong: str, words: str) -> None:
    settings.BANK_DATABASE_URL = make_conninfo(bank._own_database(), **{wrong: "nobody-of-this-name"})
    with pytest.raises(GiveUp, match=f'bank: .*{words} "nobody-of-this-name" does not exist'):
        bank.find_account("C-1042")


REFUSED = 'connection failed: connection to server at "10.0.0.7" failed: FATAL:  password authentication failed for user "desk"'


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (REFUSED, psycopg.errors.InvalidPassword),
        (f"{REFUSED}. Multiple connection attempts failed. All failures were:\n- host 'b': timeout", type(None)),
        ("connection failed: FATAL:  the database system is starting up", type(None)),
    ],
)
def test_what_a_refusal_of_the_bank_is_shows_in_its_words(words: str, expected: type[object]) -> None:
    assert type(bank._refused(psycopg.OperationalError(words))) is expected


def test_a_bank_that_is_slow_is_tried_again(at_the_bank: object) -> None:
    Dependency.objects.filter(name="bank").update(read_timeout_seconds=0.1)
    terms.forget()
    with connection.cursor() as cursor:  # uncommitted until the test's rollback, so that the desk has to wait
        cursor.execute("LOCK TABLE bank.customers IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TryLater, match="bank: canceling statement"):
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
