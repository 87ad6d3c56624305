"""Whole runs of the card desk, from a message to a queued reply."""

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError as Invalid
from django.urls import reverse
from pydantic import ValidationError

from agentops.outside import Outside
from reviews import confirmation, decisions
from reviews.models import Review, Risk
from reviews.selection import why_alone
from runs import commands, event_log, executor, policies
from runs.agents import card_desk as desk
from runs.engine.events import Kind
from runs.integrations.bank import Account, Transaction
from runs.integrations.message_classifier import MessageClassifier
from runs.models import Run
from tests.desk import known, replies
from tests.reviewing import signed_in

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


def accounts() -> Iterator[Account]:
    return (known(f"C-{number}") for number in range(1001, 1201))


def with_one_fee(kind: str, *, above: int = 0, upto: int = 99_999) -> tuple[str, Transaction]:
    """A customer whose account shows exactly one fee of that kind, of that size."""
    for account in accounts():
        fees = account.with_fee(kind)
        if len(fees) == 1 and above < fees[0].fee_cents <= upto:
            return account.customer, fees[0]
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


def test_what_cannot_be_taken_back_is_looked_at_by_itself_says_whose_it_is_and_needs_a_reason(
    ready: Outside, people: dict[str, User]
) -> None:
    run = carried(STOLEN)
    review = Review.objects.with_people().get(run=run)
    assert (review.risk, why_alone(review)) == (Risk.HIGH, "High risk: each of these is looked at by itself.")
    assert re.search(r"Card K-10421, which ends in \d{4}, is that of Omar Moreau \(C-1042\)\.$", review.why)
    client, place = signed_in(people["reviewer"]), reverse("decide_review", args=[review.pk])
    said = {"decision": "approve", "seen": review.fingerprint}
    assert "Say why: the risk is high." in client.post(place, said).content.decode()
    session = client.session
    session[confirmation.SIGNED_IN_AT] -= confirmation.CONFIRMED_SECONDS
    session.save()
    again = client.post(place, said | {"reason": "The customer called."})
    assert again.headers["Location"].startswith(reverse("account_reauthenticate"))
    with pytest.raises(decisions.NotYours, match="You started this run"):
        decisions.decide(review.pk, actor=people["operator"], kind="approve", seen=review.fingerprint, reason="It is stolen.")
    assert Review.objects.get(pk=review.pk).is_open
    with pytest.raises(Invalid, match="Replace the card is of high risk, and a policy may not lower that") as refused:
        policies.configure(agent="card-desk", worker="card_desk.replace_card", risk="low", by="admin")
    assert list(refused.value.message_dict) == ["risk"]
    assert policies.configure(agent="card-desk", risk="low", by="admin").risk == "low", "of the others of this agent"


def test_the_card_that_a_person_puts_in_is_the_one_that_is_replaced(ready: Outside) -> None:
    customer, cards = next((one.customer, one.active_cards()) for one in accounts() if len(one.active_cards()) == 2)
    other = cards[1].number
    run = decided(carried(STOLEN, customer), "edit", value={"customer": customer, "card": other})
    assert (run.status, ready.card_processor.cards) == ("succeeded", {other: "replaced"})


@pytest.mark.parametrize("card", ["K-99999", "K-10431", ""], ids=["nobody's", "another customer's", "none"])
@pytest.mark.parametrize(("message", "step"), [(STOLEN, "replace_card"), ("My phone was stolen", "freeze_card")])
def test_a_card_that_is_not_the_customer_s_is_left_alone(ready: Outside, message: str, step: str, card: str) -> None:
    run = carried(message)
    if waiting(run) == ("classify", "low_confidence"):
        run = decided(run, "edit", value={"queue": "fraud"})
    assert waiting(run) == (step, "gated")
    run = decided(run, "edit", value={"customer": "C-1042", "card": card})
    assert waiting(run) == (step, "failed")
    why = f"{card} is not a card of customer C-1042, so nothing was done. The cards of C-1042: K-10421."
    assert why in Review.objects.open().get(run=run).why
    run = decided(run, "reject", reason="I mistyped it.")
    assert (run.status, run.output["action"]) == ("succeeded", "left_to_a_colleague")
    assert "We have" not in run.output["reply"]
    assert ready.seen == type(ready.seen)(), "the card processor was not even asked"


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


def gated_refund() -> tuple[Run, Transaction]:
    """A run that waits before it refunds a fee, whatever the amount, and the transaction."""
    commands.configuration("card-desk")
    commands.configure("card-desk", by="admin", values={"refund_limit_eur": 0})
    customer, fee = with_one_fee("cash withdrawal", upto=2500)
    return carried(CHARGED, customer), fee


def whose(one: Transaction) -> str:
    return f"C-{one.card[2:6]}"


def test_an_admin_s_limit_is_obeyed(ready: Outside) -> None:
    run, _ = gated_refund()
    assert waiting(run) == ("refund_fee", "gated")


@pytest.mark.parametrize("more", [1, 2_500_000, -99_999])
def test_no_person_can_refund_more_than_the_fee_or_less_than_nothing(ready: Outside, more: int) -> None:
    run, fee = gated_refund()
    asked = {"customer": whose(fee), "transaction": fee.number, "amount_cents": fee.fee_cents + more}
    run = decided(run, "edit", value=asked)
    assert waiting(run) == ("refund_fee", "failed")
    assert f"the fee of {fee.number} is {fee.fee_cents / 100:.2f} EUR" in Review.objects.open().get(run=run).why
    assert ready.card_processor.effects == {}


def test_a_person_may_refund_a_part_and_another_fee_of_the_customer(ready: Outside) -> None:
    one = next(one for one in accounts() if len(one.with_fee("cash withdrawal")) == 1 and one.with_fee("transfer"))
    commands.configuration("card-desk")
    commands.configure("card-desk", by="admin", values={"refund_limit_eur": 0})
    other = one.with_fee("transfer")[0]
    asked = {"customer": one.customer, "transaction": other.number, "amount_cents": other.fee_cents - 1}
    run = decided(carried(CHARGED, one.customer), "edit", value=asked)
    assert (run.status, run.output["action"]) == ("succeeded", "fee_refunded")
    assert f"the fee of {(other.fee_cents - 1) / 100:.2f} EUR" in run.output["reply"]
    assert ready.card_processor.settled == {other.number: "refunded"}


def test_a_person_refunds_no_transaction_of_another_customer(ready: Outside) -> None:
    run, fee = gated_refund()
    customer = whose(fee)
    other = next(one.number for one in known("C-1099").transactions if one.fee_cents > 1)
    run = decided(run, "edit", value={"customer": customer, "transaction": other, "amount_cents": 1})
    assert waiting(run) == ("refund_fee", "failed")
    assert f"{other} is not a transaction of customer {customer}" in Review.objects.open().get(run=run).why
    assert ready.card_processor.effects == {}


def test_a_charge_booked_twice_is_reversed_once_and_never_for_more(ready: Outside) -> None:
    one = next(one for one in accounts() if len(one.booked_twice()) == 1 and one.booked_twice()[0].amount_cents > 2500)
    twin = one.booked_twice()[0]
    asked = {"customer": one.customer, "transaction": twin.number, "amount_cents": twin.amount_cents}
    run = carried("I was charged twice for the same payment", one.customer)
    assert waiting(run) == ("reverse_charge", "gated")
    refused = decided(run, "edit", value=asked | {"amount_cents": twin.amount_cents + 1})
    assert waiting(refused) == ("reverse_charge", "failed")
    assert ready.card_processor.effects == {}
    run = decided(carried("I was charged twice for the same payment", one.customer), "approve")
    assert (run.output["action"], ready.card_processor.settled) == ("charge_reversed", {twin.number: "reversed"})


def test_a_fee_that_was_refunded_already_goes_to_a_person(ready: Outside) -> None:
    customer, _ = with_one_fee("cash withdrawal", upto=2500)
    assert carried(CHARGED, customer).status == "succeeded"
    run = carried(CHARGED, customer)
    assert waiting(run) == ("refund_fee", "failed")
    run = decided(run, "reject", reason="Once is enough.")
    assert run.output["action"] == "left_to_a_colleague"
    assert ready.card_processor.effects == {"refunded": 1}


def test_a_message_that_is_none_of_the_desk_s_business_is_answered_by_a_person(ready: Outside, people: dict[str, User]) -> None:
    run = carried("what is the tallest mountain in the world")
    if waiting(run) == ("classify", "low_confidence"):
        run = decided(run, "edit", value={"queue": "other"})
    assert waiting(run) == ("hand_over", "question")
    review = Review.objects.open().get(run=run)
    assert review.proposal["reply"].startswith("Dear Omar Moreau,\n\nYour message is not about cards")
    page = signed_in(people["reviewer"]).get(review.get_absolute_url()).content.decode()
    assert page.count("Your message is not about cards") == 1, "it is suggested, and typed into no field"
    assert "What the agent suggests as the answer" in page
    assert re.search(r'<textarea name="value.reply"[^>]*>\s*</textarea>', page)
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


def test_a_person_finds_out_who_wrote_where_the_bank_knows_no_such_customer(ready: Outside) -> None:
    run = carried(ARRIVAL, "C-9999")
    assert waiting(run) == ("who_wrote", "question")
    review = Review.objects.open().get(run=run)
    question = f"The bank knows no customer C-9999. Find out which customer wrote this: {ARRIVAL}"
    assert (review.title, review.why) == ("Find out who wrote", question)
    run = decided(run, "answer", value={"customer": "C-8888"})
    assert waiting(run) == ("who_wrote_2", "question")
    assert "knows no customer C-8888" in Review.objects.open().get(run=run).why
    run = decided(run, "answer", value={"customer": " C-1042 "})
    steps = ["classify", "look_up", "who_wrote", "look_up_2", "who_wrote_2", "look_up_3", "decide", "draft", "queue_reply"]
    assert [step.name for step in run.steps.all()] == steps
    assert (run.status, replies(f"{run.pk}:queue_reply")[0][0]) == ("succeeded", "C-1042")
    assert run.output["reply"].startswith("Dear Omar Moreau,")


@pytest.mark.parametrize("given", ["", "1042", "C-", "C-1042; DROP"])
def test_who_wrote_is_answered_with_a_customer_number(ready: Outside, given: str) -> None:
    run = carried(ARRIVAL, "C-9999")
    with pytest.raises(ValidationError, match="A customer number looks like C-1042"):
        decided(run, "answer", value={"customer": given})
    assert waiting(run) == ("who_wrote", "question")


def test_where_nobody_knows_who_wrote_a_person_answers(ready: Outside) -> None:
    run = decided(carried(STOLEN, "C-9999"), "reject", reason="The number is not in any of our books.")
    assert waiting(run) == ("hand_over", "question")
    why = Review.objects.open().get(run=run).why
    assert why == f"Nobody could say which customer wrote. Please answer the sender (C-9999), who wrote: {STOLEN}"
    run = decided(run, "answer", value={"reply": "Please sign in to the app and write to us from there."})
    assert (run.status, run.output["action"]) == ("succeeded", "answered_by_a_person")
    assert replies(f"{run.pk}:queue_reply")[0][0] == "C-9999"
    assert ready.card_processor.effects == {}


def test_a_processor_that_stumbles_does_it_once(ready: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.attempts.random.random", lambda: 0.0)  # no wait between attempts
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
    standard = desk.draft_from_template(
        queue="cards_issue", name="Omar Moreau", message=ARRIVAL, done=desk.Done(deed="nothing")
    ).reply
    assert f"The desk's standard reply, to compare: {standard}" in review.why
    assert review.proposal["reply"].startswith("Thank you for writing")
    (call,) = event_log.rows(run.pk).get(kind=Kind.STEP_ESCALATED).data["model_calls"]
    assert [one["role"] for one in call["messages"]] == ["system", "user", "assistant"]
    run = decided(run, "edit", value={"reply": "It is on its way."})
    assert replies(f"{run.pk}:queue_reply")[0][4] == "It is on its way."


def test_a_draft_that_is_sent_back_is_written_again_with_the_remark(ready: Outside, model: Outside) -> None:
    decided(carried(ARRIVAL), "send_back", reason="Mention the app.")
    assert "A colleague asks for: Mention the app." in str(model.seen[-1]["body"]["messages"])


def test_a_model_that_is_gone_falls_back_to_the_template(ready: Outside, model: Outside) -> None:
    model.faults.add({"kind": "401", "path": "/v1/chat"})
    run = carried(ARRIVAL)
    assert run.status == "succeeded"
    assert run.steps.get(name="draft").fallback == "card_desk.draft_from_template"
    assert run.output["reply"].startswith("Dear Omar Moreau,")
