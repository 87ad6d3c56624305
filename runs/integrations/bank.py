"""The bank's own database: what the card desk may read in it, and the one table it may write to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from math import ceil
from typing import Any, Literal

import psycopg
import psycopg.errors
from django.conf import settings
from django.db import connections
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from runs.engine.errors import GiveUp
from runs.integrations import bank_world, deadline
from runs.reliability import guard

BANK = guard.declare("bank", kind="database")
TRANSACTIONS_SHOWN = 20
REFUSALS: tuple[tuple[str, type[psycopg.Error]], ...] = (
    ("password authentication failed", psycopg.errors.InvalidPassword),
    (
        'role ".*" does not exist|is not permitted to log in|no pg_hba.conf entry',
        psycopg.errors.InvalidAuthorizationSpecification,
    ),
    ('database ".*" does not exist', psycopg.errors.InvalidCatalogName),
    ("permission denied for database", psycopg.errors.InsufficientPrivilege),
)
ADDRESS = {"dbname", "user", "password", "host", "port", "service", "sslmode", "sslrootcert", "sslcert", "sslkey"}


class Card(BaseModel):
    """A customer's card."""

    number: str
    kind: Literal["physical", "virtual", "disposable"]
    last_four: str = Field(title="Ends in")
    status: Literal["ordered", "active", "frozen", "expired"]
    expires_on: date = Field(title="Expires on")


class Transaction(BaseModel):
    """A movement on an account; amounts are in cents, so that nothing is lost in rounding."""

    number: str
    card: str
    booked_on: date = Field(title="Booked on")
    kind: Literal["card payment", "cash withdrawal", "top-up", "transfer"]
    counterparty: str
    amount_cents: int = Field(title="Amount in cents")
    fee_cents: int = Field(title="Fee in cents")
    status: Literal["booked", "pending", "reverted"]


class Account(BaseModel, title="Customer's account"):
    """What the desk may know of a customer: the cards, and the latest transactions, newest first."""

    customer: str = Field(title="Customer number")
    name: str
    cards: list[Card]
    transactions: list[Transaction] = Field(title="Latest transactions")

    def active_cards(self) -> list[Card]:
        """The physical ones first: they are what can be lost."""
        active = [card for card in self.cards if card.status == "active"]
        return sorted(active, key=lambda card: card.kind != "physical")

    def with_fee(self, kind: str) -> list[Transaction]:
        return [one for one in self.transactions if one.kind == kind and one.fee_cents and one.status == "booked"]

    def booked_twice(self) -> list[Transaction]:
        """The second of each two bookings that agree in everything but their number, newest first."""
        seen: set[tuple[object, ...]] = set()
        found: list[Transaction] = []
        for one in reversed(self.transactions):
            marks = (one.card, one.booked_on, one.counterparty, one.amount_cents)
            if one.status == "booked" and marks in seen:
                found.insert(0, one)
            seen.add(marks)
        return found


def build(*, seed: int = bank_world.SEED) -> bool:
    """Make the demo's bank in the project's own database, once; False where BANK_DATABASE_URL names a real one."""
    if settings.BANK_DATABASE_URL:
        return False
    bank_world.build(_own_database(), seed=seed)
    return True


def find_account(customer: str) -> Account | None:
    """Read one customer's account; None when the bank knows no such number."""
    return guard.call(BANK, lambda: _read(customer))


def check_card(card: str, *, customer: str) -> None:
    """Raise GiveUp unless the card is the customer's. A reviewer may have typed the number, so it is asked of the bank.

    Only whose it is: a card that this very step has frozen before its process died must pass again.
    """
    theirs = guard.call(BANK, lambda: _cards_of(customer))
    if card not in theirs:
        known = f"The cards of {customer}: {', '.join(theirs)}." if theirs else f"{customer} has no card."
        raise GiveUp(f"{card} is not a card of customer {customer}, so nothing was done. {known}")


def check_transaction(transaction: str, *, customer: str, part: Literal["fee", "amount"], amount_cents: int) -> None:
    """Raise GiveUp unless the transaction is the customer's, and amount_cents above 0 and at most its fee, or its amount."""
    found = guard.call(BANK, lambda: _transaction_of(transaction, customer))
    if found is None:
        raise GiveUp(f"{transaction} is not a transaction of customer {customer}, so nothing was paid back.")
    most_cents = found[f"{part}_cents"]
    if not 0 < amount_cents <= most_cents:
        asked, most = f"{amount_cents / 100:.2f} EUR", f"{most_cents / 100:.2f} EUR"
        raise GiveUp(f"{asked} cannot be paid back: the {part} of {transaction} is {most}. Nothing was paid back.")


class Queued(BaseModel, title="Reply queued for sending"):
    """A reply that the bank will send."""

    key: str = Field(title="Key", description="The same key twice is one reply.")


def queue_reply(*, key: str, customer: str, queue: str, action: str, reference: str, body: str) -> Queued:
    """Hand a reply to the bank for sending; the same key twice is one reply."""
    values = {"key": key, "customer": customer, "queue": queue, "action": action, "reference": reference, "body": body}
    guard.call(BANK, lambda: _insert_reply(values))
    return Queued(key=key)


def _read(customer: str) -> Account | None:
    with _connected() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        person = cursor.execute("SELECT number, name FROM customers WHERE number = %s", [customer]).fetchone()
        if person is None:
            return None
        cards = cursor.execute(
            "SELECT number, kind, last_four, status, expires_on FROM cards WHERE customer = %s ORDER BY number", [customer]
        ).fetchall()
        transactions = cursor.execute(
            "SELECT t.number, t.card, t.booked_on, t.kind, t.counterparty, t.amount_cents, t.fee_cents, t.status"
            " FROM transactions t JOIN cards c ON c.number = t.card WHERE c.customer = %s"
            " ORDER BY t.booked_on DESC, t.number DESC LIMIT %s",
            [customer, TRANSACTIONS_SHOWN],
        ).fetchall()
    rows: dict[str, Any] = {"cards": cards, "transactions": transactions}
    return Account(customer=person["number"], name=person["name"], **rows)


def _cards_of(customer: str) -> list[str]:
    with _connected() as connection:
        found = connection.execute("SELECT number FROM cards WHERE customer = %s ORDER BY number", [customer]).fetchall()
    return [number for (number,) in found]


def _transaction_of(number: str, customer: str) -> dict[str, Any] | None:
    """However old it is: an account shows only the latest."""
    with _connected() as connection:
        return connection.cursor(row_factory=dict_row).execute(
            "SELECT t.amount_cents, t.fee_cents FROM transactions t JOIN cards c ON c.number = t.card"
            " WHERE t.number = %s AND c.customer = %s",
            [number, customer],
        ).fetchone()  # fmt: skip


def _insert_reply(values: dict[str, str]) -> None:
    # No conflict target: naming the key's column would take the right to read it, which the desk does not have.
    with _connected() as connection:
        connection.execute(
            "INSERT INTO replies (key, customer, queue, action, reference, body) VALUES"
            " (%(key)s, %(customer)s, %(queue)s, %(action)s, %(reference)s, %(body)s) ON CONFLICT DO NOTHING",
            values,
        )


@contextmanager
def _connected() -> Iterator[psycopg.Connection[Any]]:
    """For one call, which ends in time however the bank answers."""
    with deadline.kept(psycopg.OperationalError), _connect() as connection:
        deadline.watch(connection.fileno())
        guard.connected()
        yield connection


def _connect() -> psycopg.Connection[Any]:
    """A connection of its own for each call: a job process forks, and the bank is called seldom."""
    terms = guard.terms()
    options = f"-c search_path=bank -c statement_timeout={terms.read_timeout_seconds * 1000:.0f}"
    seconds = max(2, ceil(terms.connect_timeout_seconds))  # libpq counts whole seconds, and takes 1 for 2
    address = settings.BANK_DATABASE_URL or _own_database()
    options += "" if settings.BANK_DATABASE_URL else f" -c role={bank_world.ROLE}"
    try:
        return psycopg.connect(address, options=options, connect_timeout=seconds)
    except psycopg.OperationalError as error:
        raise _refused(error) or error from None


def _refused(error: psycopg.OperationalError) -> psycopg.Error | None:
    """A refusal for good by its own class: of a connection that failed psycopg has the server's words alone.

    Not where several servers were asked: another of them may only be away.
    """
    words = str(error)
    if words.count("FATAL") != 1 or "Multiple connection attempts failed" in words:
        return None
    kind = next((kind for pattern, kind in REFUSALS if re.search(pattern, words)), None)
    return kind(words) if kind else None


def _own_database() -> str:
    """The project's database, as Django is connected to it now: in tests that is not what DATABASE_URL says."""
    settings_now = connections["default"].get_connection_params()
    return make_conninfo(**{name: value for name, value in settings_now.items() if name in ADDRESS})
