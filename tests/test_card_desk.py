"""The card desk's input, rules and replies, case by case."""

import csv
import re
from datetime import date
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from runs import sdk
from runs.agents import card_desk as desk
from runs.integrations import message_gateway
from runs.integrations.bank import Account, Card, Transaction
from runs.integrations.message_classifier import DATA

STOLEN = "Someone stole my card"
ARRIVAL = "When will my new card arrive?"
CHARGED = "Why was I charged a fee for withdrawing cash?"

# --- input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"message": ""}, "at least 1 character"), ({"message": "  \n "}, "at least 1 character"), ({}, "Field required"),
        ({"message": "x" * 4001}, "at most 4000 characters"), ({"message": "a\x00b"}, "control characters"),
        ({"message": "\x1b[31m"}, "control characters"), ({"message": "a\x85b"}, "control characters"),
        ({"message": 5}, "valid string"), ({"message": None}, "valid string"),
        ({"message": "x", "customer": "1042"}, "looks like C-1042"),
        ({"message": "x", "customer": "C-1; DROP"}, "looks like C-1042"), ({"message": "x", "customer": 5}, "valid string"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_used_is_refused_with_a_reason(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        desk.CustomerMessage.model_validate(given)


def test_spaces_around_a_message_are_not_part_of_it() -> None:
    message = desk.CustomerMessage.model_validate({"message": f"\t{'x' * 4000}\r\n", "customer": " "})
    assert (len(message.message), message.customer) == (4000, None)


def test_the_gateway_gives_each_message_one_of_the_bank_s_customers() -> None:
    numbers = {message_gateway.sender(f"message {number}") for number in range(3000)}
    assert message_gateway.sender(ARRIVAL) == message_gateway.sender(ARRIVAL)
    assert numbers == {f"C-{number}" for number in range(1001, 1201)}


def test_what_people_read_has_a_name_in_words() -> None:
    """A model is called what it is about, and a field of several words, or in cents, says so in its title."""
    workers = [worker for name, worker in sdk.WORKERS.items() if name.startswith(("card_desk.", "ask_human[runs.agents.card"))]
    models = (desk.CustomerMessage, desk.DeskAnswer, desk.CardDeskConfig)
    schemas = [model.model_json_schema() for model in models]
    schemas += [schema for worker in workers for schema in (worker.input_model.model_json_schema(), worker.output.json_schema())]
    objects = [part for schema in schemas for part in (schema, *schema.get("$defs", {}).values()) if "properties" in part]
    assert {"Customer number", "Amount in cents", "Fee in cents"} <= {title for title, _ in titles(objects)}
    assert [title for title, name in titles(objects) if "_" in name and title == name.replace("_", " ").title()] == []
    camel = [part["title"] for part in objects if re.search("[a-z][A-Z]", part["title"])]
    assert camel == []


def titles(objects: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(field.get("title", ""), name) for part in objects for name, field in part["properties"].items()]


# --- rules --------------------------------------------------------------------------------------------------------


def account(*transactions: Transaction, cards: tuple[str, ...] = ("active",)) -> Account:
    expires_on = date(2030, 1, 1)
    return Account(
        customer="C-1042",
        name="Ada Ito",
        cards=[
            Card(
                number=f"K-{place}",
                kind="virtual" if place else "physical",
                last_four="1234",
                status=status,
                expires_on=expires_on,
            )  # type: ignore[arg-type]
            for place, status in enumerate(cards)
        ],
        transactions=list(transactions),
    )


def booked(
    number: str, kind: Any = "card payment", *, day: int = 1, amount: int = 1000, fee: int = 0, status: Any = "booked"
) -> Transaction:
    return Transaction(
        number=number, card="K-0", booked_on=date(2026, 1, day), kind=kind, counterparty="Corner Grocer",
        amount_cents=amount, fee_cents=fee, status=status,
    )  # fmt: skip


TWINS = (booked("T-3", day=3), booked("T-2", day=2), booked("T-1", day=2))


@pytest.mark.parametrize(
    ("queue", "message", "given", "expected"),
    [
        ("other", "what is the capital of France", account(), ("hand_over", "", "", 0)),
        ("identity_account", "Please close my account", account(), ("hand_over", "", "", 0)),
        ("identity_account", "How do I verify my identity?", account(), ("explain", "", "", 0)),
        ("fraud", "Somebody paid with my card", account(), ("freeze_card", "K-0", "", 0)),
        ("fraud", STOLEN, account(), ("replace_card", "K-0", "", 0)),
        ("fraud", "I can't find my card", account(), ("replace_card", "K-0", "", 0)),
        ("fraud", "My phone was stolen", account(), ("freeze_card", "K-0", "", 0)),
        ("fraud", STOLEN, account(cards=("frozen", "active")), ("replace_card", "K-1", "", 0)),
        ("fraud", STOLEN, account(cards=("frozen", "expired")), ("hand_over", "", "", 0)),
        ("fraud", STOLEN, account(cards=()), ("hand_over", "", "", 0)),
        ("card_problem", "The machine swallowed my card", account(), ("replace_card", "K-0", "", 0)),
        ("card_problem", "My payment kept getting declined", account(), ("explain", "", "", 0)),
        ("cards_issue", ARRIVAL, account(), ("explain", "", "", 0)),
        ("payments_refunds", "I was charged twice", account(*TWINS), ("reverse_charge", "", "T-2", 1000)),
        ("payments_refunds", "I was charged twice", account(booked("T-1")), ("hand_over", "", "", 0)),
        ("payments_refunds", "I was charged a fee", account(booked("T-1", fee=250)), ("refund_fee", "", "T-1", 250)),
        ("cash_atm", CHARGED, account(booked("T-1", "cash withdrawal", fee=300)), ("refund_fee", "", "T-1", 300)),
        ("cash_atm", CHARGED, account(booked("T-1", "transfer", fee=300)), ("hand_over", "", "", 0)),
        ("cash_atm", CHARGED, account(booked("T-1", "cash withdrawal", fee=300, status="reverted")), ("hand_over", "", "", 0)),
        ("cash_atm", "Where can I withdraw cash?", account(), ("explain", "", "", 0)),
        ("top_up", "Are there fees for a top-up?", account(booked("T-1", "top-up", fee=9)), ("explain", "", "", 0)),
        ("transfers", "Why was I charged", account(booked("T-1", "transfer", fee=4000)), ("refund_fee", "", "T-1", 4000)),
        ("currency_exchange", "Why was I charged for the exchange", account(), ("explain", "", "", 0)),
    ],
)  # fmt: skip
def test_the_policy(queue: str, message: str, given: Account, expected: tuple[str, str, str, int]) -> None:
    plan = desk.decide(queue=queue, message=message, account=given)
    assert isinstance(plan, desk.Plan), "one transaction fits at most: this is a fact, not an estimate"
    assert (plan.action, plan.card, plan.transaction, plan.amount_cents) == expected
    assert plan.why


def test_where_two_fees_fit_a_person_says_which_is_meant() -> None:
    given = account(booked("T-2", "cash withdrawal", fee=300), booked("T-1", "cash withdrawal", fee=200))
    estimate = desk.decide(queue="cash_atm", message=CHARGED, account=given)
    assert isinstance(estimate, sdk.Result)
    assert estimate.confidence is None
    assert (estimate.value.transaction, estimate.value.amount_cents) == ("T-2", 300)
    assert "T-1 (Corner Grocer, 2026-01-01)" in estimate.why


@pytest.mark.parametrize(
    ("cents", "limit", "gated"), [(2500, 25, False), (2501, 25, True), (1, 0, True), (0, 0, False), (9999, 1000, False)]
)
def test_the_limit_for_refunds(cents: int, limit: float, gated: bool) -> None:
    plan = desk.Plan(action="refund_fee", why="", amount_cents=cents)
    assert bool(desk.over_limit(plan, desk.CardDeskConfig(refund_limit_eur=limit), account())) is gated


SAYS = {
    "card_frozen": "We have frozen your card", "card_replaced": "We have blocked your card for good",
    "fee_refunded": "We have refunded the fee of 2.50 EUR", "charge_reversed": "We have reversed the charge of 2.50 EUR",
    "left_to_a_colleague": "nothing has been changed",
}  # fmt: skip


@pytest.mark.parametrize("queue", get_args(desk.Queue))
@pytest.mark.parametrize("deed", get_args(desk.Deed))
def test_a_reply_says_what_was_done_and_nothing_else(queue: str, deed: str) -> None:
    done = desk.Done(deed=deed, reference="REF-1" if deed in SAYS else "", amount_cents=250)  # type: ignore[arg-type]
    reply = desk.draft_from_template(queue=queue, name="Ada & Ito", message="hello", done=done).reply
    assert [other for other, words in SAYS.items() if words in reply] == ([deed] if deed in SAYS else [])
    assert ("REF-1" in reply) is (deed in SAYS and deed != "left_to_a_colleague")
    assert reply.startswith("Dear Ada & Ito,\n\n")
    assert reply.endswith("Kind regards,\nthe card desk")
    assert not {"{{", "{%", "\n\n\n", "Policy"} & {part for part in ("{{", "{%", "\n\n\n", "Policy") if part in reply}


def test_every_critical_worker_names_its_fallback_and_every_effect_can_be_repeated() -> None:
    workers = [worker for name, worker in sdk.WORKERS.items() if name.startswith("card_desk.")]
    assert {worker.name for worker in workers if worker.effect == "once"} == set()
    acting = {"freeze_card", "replace_card", "refund_fee", "reverse_charge", "queue_reply"}
    assert {worker.function.__name__ for worker in workers if worker.effect == "idempotent"} == acting
    assert [worker.name for worker in workers if worker.critical and worker.fallback is None] == []
    assert {worker.function.__name__ for worker in workers if worker.gate} == {"freeze_card", "replace_card"}
    final = {"replace_card", "refund_fee", "reverse_charge"}  # who is given money, or a card blocked for good, keeps it
    assert {worker.function.__name__ for worker in workers if worker.risk == "high"} == final


def test_the_sample_is_real_messages_that_were_never_trained_on() -> None:
    from runs.integrations import message_classifier_training as training

    with (DATA / "banking77/sample.csv").open(newline="") as file:
        sample = [row["message"] for row in csv.DictReader(file)]
    assert len(sample) == len(set(sample)) == 200
    assert set(sample) <= {example.text.strip() for example in training.held_out()}
    assert [desk.CustomerMessage(message=message).message for message in sample] == sample
