"""Makes the demo's bank: a schema with a role of its own, and customers, cards and transactions from a seed."""

import random
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import errors

ROLE = "bank_desk"
SEED = 1042
VERSION = 1  # raise it when the rows below change: an older world is then made anew
CUSTOMERS = 200
FIRST_CUSTOMER = 1001
LOCK = 77_1042  # advisory: two processes that start at once build one after the other

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS bank;
CREATE TABLE IF NOT EXISTS bank.world (seed integer NOT NULL, version integer NOT NULL, built_on date NOT NULL);
CREATE TABLE IF NOT EXISTS bank.customers (number text PRIMARY KEY, name text NOT NULL, joined_on date NOT NULL);
CREATE TABLE IF NOT EXISTS bank.cards (
    number text PRIMARY KEY, customer text NOT NULL REFERENCES bank.customers, kind text NOT NULL,
    last_four text NOT NULL, status text NOT NULL, expires_on date NOT NULL);
CREATE INDEX IF NOT EXISTS cards_of_customer ON bank.cards (customer);
CREATE TABLE IF NOT EXISTS bank.transactions (
    number text PRIMARY KEY, card text NOT NULL REFERENCES bank.cards, booked_on date NOT NULL, kind text NOT NULL,
    counterparty text NOT NULL, amount_cents integer NOT NULL, fee_cents integer NOT NULL, status text NOT NULL);
CREATE INDEX IF NOT EXISTS transactions_of_card ON bank.transactions (card, booked_on);
CREATE TABLE IF NOT EXISTS bank.replies (
    key text PRIMARY KEY, customer text NOT NULL, queue text NOT NULL, action text NOT NULL, reference text NOT NULL,
    body text NOT NULL, queued_at timestamptz NOT NULL DEFAULT now());
"""
# The desk reads what it needs and adds replies; it can neither read nor change the replies of others.
GRANTS = """
GRANT USAGE ON SCHEMA bank TO bank_desk;
GRANT SELECT ON bank.customers, bank.cards, bank.transactions TO bank_desk;
GRANT INSERT ON bank.replies TO bank_desk;
"""
FIRST_NAMES = (
    "Ada",
    "Ben",
    "Chloe",
    "Dana",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ivo",
    "Jana",
    "Kofi",
    "Lena",
    "Malik",
    "Nora",
    "Omar",
    "Petra",
    "Ravi",
    "Sofia",
    "Tomas",
    "Yara",
)
LAST_NAMES = (
    "Adler",
    "Brandt",
    "Costa",
    "Duval",
    "Eriksen",
    "Fischer",
    "Gruber",
    "Haddad",
    "Ito",
    "Jansen",
    "Kaya",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
)
SHOPS = ("Corner Grocer", "Rail & Road", "Blue Bottle Books", "Northside Pharmacy", "Streamly", "Parkway Fuel", "Studio 9 Gym")
# kind, counterparties, amounts in euros, share of them that carry a fee, fees in cents
KINDS = (
    ("card payment", SHOPS, (4, 180), 0.12, (90, 450)),
    ("cash withdrawal", ("ATM Main Square", "ATM Airport", "ATM Old Town"), (20, 300), 0.35, (175, 495)),
    ("top-up", ("Top-up by card", "Top-up by bank transfer"), (10, 400), 0.2, (50, 350)),
    ("transfer", ("Transfer to landlord", "Transfer abroad", "Transfer to savings"), (25, 900), 0.2, (150, 4200)),
)
WEIGHTS = (6, 2, 1, 2)


CARD = re.compile(r"K-([0-9]{4})[12]")
TRANSACTION = re.compile(r"T-([0-9]{5})[0-9]{2}9?")


class BankNotBuilt(Exception):
    """The demo's bank could not be made; the message says what to do."""


def may_have_card(number: str) -> bool:
    """Whether a card of this world can have that number: for who numbers cards as the bank does, and cannot ask it."""
    match = CARD.fullmatch(number)
    return match is not None and int(match[1]) in range(FIRST_CUSTOMER, FIRST_CUSTOMER + CUSTOMERS)


def may_have_transaction(number: str) -> bool:
    match = TRANSACTION.fullmatch(number)
    return match is not None and may_have_card(f"K-{match[1]}")


def build(conninfo: str, *, seed: int, today: date | None = None) -> None:
    """Make schema, role and rows; nothing happens when this world is there already. Replies are never touched."""
    try:
        with psycopg.connect(conninfo, connect_timeout=5) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            _make_role(connection)
            connection.execute(SCHEMA)
            connection.execute(GRANTS)
            _fill(connection, seed=seed, today=today or datetime.now(UTC).date())
    except errors.InsufficientPrivilege as error:
        raise BankNotBuilt(
            f"The demo's bank could not be made: {error}. Give the database role CREATEROLE and CREATE on the database, "
            "or set BANK_DATABASE_URL to a bank that exists."
        ) from error


def _make_role(connection: psycopg.Connection[Any]) -> None:
    """Roles belong to the whole server: another checkout or test session may be making this one right now."""
    try:
        with connection.transaction():
            connection.execute(f"CREATE ROLE {ROLE} NOLOGIN")
    except (errors.DuplicateObject, errors.UniqueViolation):
        pass  # it is there, which is what was wanted
    for last_try in (False, False, True):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL ROLE {ROLE}")
                connection.execute("RESET ROLE")
            return
        except errors.InsufficientPrivilege:
            _join_role(connection, last_try=last_try)


def _join_role(connection: psycopg.Connection[Any], *, last_try: bool) -> None:
    try:
        with connection.transaction():
            connection.execute(f"GRANT {ROLE} TO CURRENT_USER")
    except errors.InternalError:  # "tuple concurrently updated": somebody else grants it at this moment
        if last_try:
            raise


def _fill(connection: psycopg.Connection[Any], *, seed: int, today: date) -> None:
    built = connection.execute("SELECT seed, version FROM bank.world").fetchone()
    if built == (seed, VERSION):
        return
    connection.execute("TRUNCATE bank.world, bank.customers, bank.cards, bank.transactions")
    chance = random.Random(seed)  # noqa: S311 - a world that is the same everywhere, not a secret
    customers = list(_customers(chance, today))
    cards = [card for customer in customers for card in _cards(chance, customer[0], today)]
    transactions = [row for card in cards for row in _transactions(chance, card[0], today)]
    _copy(connection, "customers", customers)
    _copy(connection, "cards", cards)
    _copy(connection, "transactions", transactions)
    _copy(connection, "world", [(seed, VERSION, today)])


def _copy(connection: psycopg.Connection[Any], table: str, rows: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY bank.{table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _customers(chance: random.Random, today: date) -> Iterator[tuple[Any, ...]]:
    for number in range(FIRST_CUSTOMER, FIRST_CUSTOMER + CUSTOMERS):
        name = f"{chance.choice(FIRST_NAMES)} {chance.choice(LAST_NAMES)}"
        yield f"C-{number}", name, today - timedelta(days=chance.randint(30, 2000))


def _cards(chance: random.Random, customer: str, today: date) -> Iterator[tuple[Any, ...]]:
    """One physical card each, and for some a virtual or disposable one."""
    kinds = ["physical"]
    if chance.random() < 0.35:
        kinds.append(chance.choice(("virtual", "disposable")))
    for place, kind in enumerate(kinds):
        number = f"K-{customer[2:]}{place + 1}"
        status = chance.choices(("active", "ordered", "expired", "frozen"), (88, 6, 3, 3))[0]
        expires_on = today + timedelta(days=-20 if status == "expired" else chance.randint(10, 1400))
        yield number, customer, kind, f"{chance.randint(0, 9999):04}", status, expires_on


def _transactions(chance: random.Random, card: str, today: date) -> Iterator[tuple[Any, ...]]:
    """About a dozen a card in the last 60 days; now and then a payment is booked twice."""
    for number in range(chance.randint(8, 16)):
        kind, counterparties, euros, fee_share, fees = chance.choices(KINDS, WEIGHTS)[0]
        amount_cents = chance.randint(euros[0] * 100, euros[1] * 100)
        fee_cents = chance.randint(*fees) if chance.random() < fee_share else 0
        status = chance.choices(("booked", "pending", "reverted"), (88, 9, 3))[0]
        booked_on = today - timedelta(days=chance.randint(0, 60))
        rest = (card, booked_on, kind, chance.choice(counterparties), amount_cents, fee_cents, status)
        yield f"T-{card[2:]}{number:02}", *rest
        if kind == "card payment" and status == "booked" and chance.random() < 0.08:
            yield f"T-{card[2:]}{number:02}9", *rest
