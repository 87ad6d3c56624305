"""Whole runs of the card desk, from a message to a queued reply."""

from typing import Any, get_args

import pytest

from agentops.outside import Outside
from reviews.models import Review
from runs import commands, executor
from runs.agents import card_desk as desk
from runs.integrations import bank
from runs.integrations.bank import Transaction
from runs.integrations.message_classifier import MessageClassifier
from runs.models import Run
from tests.desk import replies

STOLEN = "Someone stole my card"
ARRIVAL = "When will my new card arrive?"
CHARGED = "Why was I charged a fee for withdrawing cash?"


@pytest.fixture
def ready(db: None, demo_bank: None, classifier: MessageClassifier, outside: Outside) -> Outside:
    """All that a run needs."""
    return outside


def carried(message: str, customer: str = "C-1042") -> Run:
    return advanced(commands.start("card-desk", {"message": message, "customer": customer}, by="operator"))


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    return run


def decided(run: Run, decision: str, **more: Any) -> Run:
    review = Review.objects.open().get(run=run)
    commands.decide(run.pk, review.position, decision, by="reviewer", fingerprint=review.fingerprint, **more)
    review.delete()
    return advanced(run)


def waiting(run: Run) -> tuple[str, str]:
    """Which step waits for a person, and why."""
    assert run.status == "waiting"
    review = Review.objects.open().get(run=run)
    return run.steps.get(position=review.position).name, review.cause


def with_one_fee(kind: str, *, above: int = 0, upto: int = 99_999) -> tuple[str, Transaction]:
    """A customer whose account shows exactly one fee of that kind, of that size."""
    for number in range(1001, 1201):
        fees = bank.find_account(f"C-{number}").with_fee(kind)
        if len(fees) == 1 and above < fees[0].fee_cents <= upto:
            return f"C-{number}", fees[0]
    raise AssertionError(kind)


def test_a_question_is_answered_without_a_person(ready: Outside) -> None:
    run = carried(ARRIVAL)
    assert run.status == "succeeded"
    assert [step.name for step in run.steps.all()] == ["classify", "look_up", "decide", "draft", "queue_reply"]
    assert run.output["reply"].startswith("Dear Omar Moreau,")
    key = f"{run.pk}:queue_reply"
    assert replies(key) == [("C-1042", "cards_issue", "nothing", "", run.output["reply"])]
    assert ready.card_processor.effects == {}


def test_a_stolen_card_is_replaced_only_after_a_person_approved(ready: Outside) -> None:
    run = carried(STOLEN)
    assert waiting(run) == ("replace_card", "gated")
    assert ready.card_processor.effects == {}
    run = decided(run, "approve")
    assert (run.status, run.output["action"]) == ("succeeded", "card_replaced")
    assert ready.card_processor.cards == {"K-10421": "replaced"}
    assert ready.seen[-1]["key"] == f"{run.pk}:replace_card"
    assert f"reference {run.output['reference']}" in run.output["reply"]


def test_the_card_that_a_person_puts_in_is_the_one_that_is_replaced(ready: Outside) -> None:
    run = decided(carried(STOLEN), "edit", value={"card": "K-77"})
    assert (run.status, ready.card_processor.cards) == ("succeeded", {"K-77": "replaced"})


def test_what_a_person_refuses_is_not_done_and_the_reply_says_so(ready: Outside) -> None:
    run = decided(carried(STOLEN), "reject", reason="Call the customer first.")
    assert (run.status, run.output["action"], run.output["reference"]) == ("succeeded", "left_to_a_colleague", "")
    assert "A colleague will look into this" in run.output["reply"]
    assert "We have" not in run.output["reply"]
    assert ready.card_processor.effects == {}


def test_a_small_fee_is_refunded_without_a_person(ready: Outside) -> None:
    customer, fee = with_one_fee("cash withdrawal", upto=2500)
    run = carried(CHARGED, customer)
    assert (run.status, run.output["action"]) == ("succeeded", "fee_refunded")
    assert ready.card_processor.settled == {fee.number: "refunded"}
    assert f"{fee.fee_cents / 100:.2f} EUR" in run.output["reply"]


def test_a_fee_above_the_limit_waits_for_a_person(ready: Outside) -> None:
    customer, fee = with_one_fee("transfer", above=2500)
    run = carried("Why was I charged a fee for my transfer?", customer)
    assert waiting(run) == ("refund_fee", "gated")
    assert "above the limit of 25.00 EUR" in Review.objects.open().get(run=run).why
    run = decided(run, "approve")
    assert ready.card_processor.settled == {fee.number: "refunded"}


def test_an_admin_s_limit_is_obeyed(ready: Outside) -> None:
    commands.configuration("card-desk")
    commands.configure("card-desk", by="admin", values={"refund_limit_eur": 0})
    customer, _ = with_one_fee("cash withdrawal", upto=2500)
    assert waiting(carried(CHARGED, customer)) == ("refund_fee", "gated")


def test_a_fee_that_was_refunded_already_goes_to_a_person(ready: Outside) -> None:
    customer, _ = with_one_fee("cash withdrawal", upto=2500)
    assert carried(CHARGED, customer).status == "succeeded"
    run = carried(CHARGED, customer)
    assert waiting(run) == ("refund_fee", "failed")
    run = decided(run, "reject", reason="Once is enough.")
    assert run.output["action"] == "left_to_a_colleague"
    assert ready.card_processor.effects == {"refunded": 1}


def test_a_message_that_is_none_of_the_desk_s_business_is_answered_by_a_person(ready: Outside) -> None:
    run = carried("what is the tallest mountain in the world")
    if waiting(run) == ("classify", "low_confidence"):
        run = decided(run, "edit", value={"queue": "other"})
    assert waiting(run) == ("hand_over", "question")
    run = decided(run, "answer", value={"reply": "That is Mount Everest."})
    assert (run.status, run.output["action"], run.output["reply"]) == (
        "succeeded",
        "answered_by_a_person",
        "That is Mount Everest.",
    )
    assert replies(f"{run.pk}:queue_reply")[0][4] == "That is Mount Everest."


def test_a_doubtful_message_goes_where_a_person_puts_it(ready: Outside) -> None:
    run = carried("Can you help me with my card?")
    assert waiting(run) == ("classify", "low_confidence")
    review = Review.objects.open().get(run=run)
    assert set(review.schema["properties"]["queue"]["enum"]) == set(get_args(desk.Queue))
    run = decided(run, "edit", value={"queue": "identity_account"})
    assert (run.status, run.output["queue"]) == ("succeeded", "identity_account")


def test_a_customer_nobody_knows_goes_to_a_person(ready: Outside) -> None:
    run = carried(ARRIVAL, "C-9")
    assert waiting(run) == ("look_up", "failed")
    assert "The bank knows no customer C-9" in Review.objects.open().get(run=run).why


def test_a_processor_that_stumbles_does_it_once(ready: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.executor.random.random", lambda: 0.0)  # no wait between attempts
    ready.faults.add({"kind": "reset", "path": "/v1/refunds", "after": True})
    customer, _ = with_one_fee("cash withdrawal", upto=2500)
    run = carried(CHARGED, customer)
    assert (run.status, run.steps.get(name="refund_fee").attempt) == ("succeeded", 2)
    assert ready.card_processor.effects == {"refunded": 1}
    assert [request["replayed"] for request in ready.seen] == [False, True]


def test_a_model_s_draft_waits_for_a_person_who_may_change_it(ready: Outside, model: Outside) -> None:
    run = carried(ARRIVAL)
    assert waiting(run) == ("draft", "low_confidence")
    review = Review.objects.open().get(run=run)
    assert (review.confidence, "A model wrote this reply." in review.why) == (None, True)
    assert review.proposal["reply"].startswith("Thank you for writing")
    run = decided(run, "edit", value={"reply": "It is on its way."})
    assert replies(f"{run.pk}:queue_reply")[0][4] == "It is on its way."


def test_a_draft_that_is_sent_back_is_written_again_with_the_remark(ready: Outside, model: Outside) -> None:
    decided(carried(ARRIVAL), "retry", reason="Mention the app.")
    assert "A colleague asks for: Mention the app." in str(model.seen[-1]["body"]["messages"])


def test_a_model_that_is_gone_falls_back_to_the_template(ready: Outside, model: Outside) -> None:
    model.faults.add({"kind": "401", "path": "/v1/chat"})
    run = carried(ARRIVAL)
    assert run.status == "succeeded"
    assert run.steps.get(name="draft").fallback == "card_desk.draft_from_template"
    assert run.output["reply"].startswith("Dear Omar Moreau,")
