"""Secrets: what a worker masks is nowhere in the database, and the worker still gets it, also after a restart and an edit."""

from typing import Any

import pytest
from django.db import connection
from pydantic import BaseModel

from runs import audit, sdk
from runs.engine.errors import GiveUp
from runs.engine.masking import MASK, mask, secrets, unmask
from runs.sdk import BadDeclaration, Result, agent, worker
from tests.agents import Answer, Order
from tests.test_executor import advanced, decide, started

CARD, PIN = "4929-1234-5678-9012", "pin-8841"
SEEN: list[str] = []


@pytest.mark.parametrize(
    ("value", "names", "expected"),
    [
        ({"card": CARD, "to": "me"}, {"card"}, {"card": MASK, "to": "me"}),
        ({"a": [{"card": CARD}], "note": f"card {CARD}!"}, {"card"}, {"a": [{"card": MASK}], "note": f"card {MASK}!"}),
        ({"card": None, "n": 3}, {"card"}, {"card": None, "n": 3}),
        ({"card": "me", "note": "me too"}, {"card"}, {"card": MASK, "note": "me too"}),
        (f"refused {CARD}", {"card"}, f"refused {CARD}"),
        ({}, {"card"}, {}),
    ],
)
def test_texts_under_a_name_are_masked_and_found_elsewhere(value: Any, names: set[str], expected: Any) -> None:
    assert mask(value, names, set(secrets(value, names))) == expected


@pytest.mark.parametrize(
    ("recorded", "real", "expected"),
    [
        ({"card": MASK, "to": "me"}, {"card": CARD, "to": "me"}, {"card": CARD, "to": "me"}),
        ({"card": MASK, "to": "you"}, {"card": CARD, "to": "me"}, {"card": CARD, "to": "you"}),
        ({"card": "other"}, {"card": CARD}, {"card": "other"}),
        ({"a": [MASK, "b"]}, {"a": [CARD, "b"]}, {"a": [CARD, "b"]}),
        ({"a": [MASK]}, {"a": []}, {"a": [MASK]}),
        ({"new": 1}, {}, {"new": 1}),
    ],
)
def test_only_what_is_masked_is_put_back(recorded: Any, real: Any, expected: Any) -> None:
    assert unmask(recorded, real) == expected


class Paid(BaseModel):
    card_number: str
    pin: str = ""
    note: str = ""


@worker(masked=("card_number", "pin"))
def pay_with(card_number: str, to: str) -> Result[Paid]:
    SEEN.append(f"{card_number} {to}")
    if to == "nobody":
        raise GiveUp(f"the bank refuses {card_number}")
    certain = None if to == "unsure" else 1.0
    return Result(Paid(card_number=card_number, pin=PIN, note=f"paid with {card_number}, {PIN}"), certain, why=f"by {PIN}")


@agent("secretive", title="Secretive", version="1")
def secretive(run: sdk.Run, given: Order) -> Answer:
    """Pays with a card that it must not tell."""
    paying = pay_with.gated("A person must look.") if given.text == "gated" else pay_with
    return Answer(said=run.step("pay", paying, card_number=CARD, to=given.text).note)


def everything_recorded() -> str:
    with connection.cursor() as cursor:
        texts = []
        for table in ("runs_run", "runs_step", "runs_event", "runs_payload", "reviews_review", "reviews_decision"):
            cursor.execute(f"SELECT coalesce(string_agg(one::text, ' '), '') FROM {table} AS one")
            texts.append(cursor.fetchone()[0])
    return " ".join(texts)


@pytest.mark.django_db
@pytest.mark.parametrize("to", ["me", "unsure", "nobody"])
def test_a_secret_is_in_no_table_whatever_comes_of_the_step(to: str) -> None:
    SEEN.clear()
    run = advanced(started("secretive", text=to))
    assert run.status == ("succeeded" if to == "me" else "waiting")
    assert [f"{CARD} {to}"] == SEEN
    recorded = everything_recorded()
    assert MASK in recorded
    assert CARD not in recorded
    assert PIN not in recorded
    assert audit.first_wrong(run.pk) == ""


@pytest.mark.django_db
def test_the_worker_gets_the_secret_after_a_person_has_edited_the_rest() -> None:
    SEEN.clear()
    run = advanced(started("secretive", text="gated"))
    assert run.reviews.get().proposal == {"card_number": MASK, "to": "gated"}
    run = decide(run, "edit", value={"card_number": MASK, "to": "you"})
    assert (SEEN, run.output) == ([f"{CARD} you"], {"said": f"paid with {MASK}, {MASK}"})


@worker(masked=("card_number",))
def answer_badly(card_number: str) -> Paid:
    return {"card_number": PIN, "pin": 7, "note": [PIN]}


@worker(fallback=pay_with)
def pay_otherwise(card_number: str, to: str) -> Result[Paid]:
    raise GiveUp(f"cannot charge {card_number}")


@agent("clumsy", title="Clumsy", version="1")
def clumsy(run: sdk.Run, given: Order) -> Answer:
    """Tells its secret in every wrong way."""
    if given.text == "missing":
        run.step("pay", pay_with, card_number=CARD)
    if given.text == "fallback":
        return Answer(said=run.step("pay", pay_otherwise, card_number=CARD, to="me").note)
    return Answer(said=run.step("pay", answer_badly, card_number=CARD).note)


@pytest.mark.django_db
@pytest.mark.parametrize(("wrong", "status"), [("missing", "failed"), ("output", "waiting"), ("fallback", "succeeded")])
def test_what_does_not_fit_is_said_without_the_secret(wrong: str, status: str) -> None:
    run = advanced(started("clumsy", text=wrong))
    assert run.status == status
    recorded = everything_recorded()
    assert (CARD in recorded, PIN in recorded) == (False, False)
    if wrong == "missing":
        assert run.error["message"] == "The value does not fit Pay with: to: Field required."


@pytest.mark.parametrize(
    ("masked", "words"),
    [("card", "must be a tuple"), (("nothing",), "neither its inputs nor its output"), (("amount",), "must be plain text")],
)
def test_what_cannot_be_masked_is_said_at_the_start(masked: Any, words: str) -> None:
    def pay_badly(card: str, amount: int) -> str:
        return card

    with pytest.raises(BadDeclaration, match=words):
        worker(masked=masked)(pay_badly)
