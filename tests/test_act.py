"""What is carried out is named by name and content, and what others wrote in it cannot pass for our words."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from reviews import consequences, decisions
from reviews.models import Review
from runs import commands, event_log, executor, sdk
from runs.declaration import BadDeclaration
from runs.engine import act
from runs.engine.act import Part
from runs.engine.comparison import changes, words
from runs.engine.policy import MOST_SENT_BACK, Cause, Subject, allowed
from runs.sdk import AskHuman, Result, agent, current_step, skip, worker
from runs.sdk import Run as Handle
from runs.templatetags.content import marked
from tests.agents import Answer, Order, note
from tests.test_decisions import decide, decided_events, finished

FIELDS = ("amount_cents", "customer", "reply")


@pytest.mark.parametrize(
    ("template", "given", "told"),
    [
        (
            "Refund {amount_cents:money} EUR to {customer}",
            {"amount_cents": 4200, "customer": "C-1004"},
            "Refund 42.00 EUR to C-1004",
        ),
        ("Refund {amount_cents:money}", {"amount_cents": 123_456_789}, "Refund 1,234,567.89"),
        ("Refund {amount_cents:money}", {"amount_cents": -5}, "Refund -0.05"),
        ("Refund {amount_cents:money}", {"amount_cents": "42"}, "Refund 42"),
        ("Refund {amount_cents:money}", {"amount_cents": True}, "Refund yes"),
        ("Refund {amount_cents}", {"amount_cents": 4200}, "Refund 4200"),
        ("Send {reply}", {"reply": "a\n\n  b\tc"}, "Send a b c"),
        ("Send {reply}", {"reply": None}, "Send nothing"),
        ("Send {reply}", {}, "Send nothing"),
        ("Send {reply}", {"reply": "x" * 100}, f"Send {'x' * 60}… (40 more letters)"),
        ("Send {reply}", {"reply": {"b": 1, "a": [2]}}, 'Send {"a":[2],"b":1}'),
        ("Send {{reply}} {reply}", {"reply": "{customer}"}, "Send {reply} {customer}"),
    ],
)
def test_the_act_is_named_with_its_inputs(template: str, given: dict[str, Any], told: str) -> None:
    assert act.problem(template, FIELDS) == ""
    assert act.plain(act.said(template, given)) == told


def test_what_is_given_stands_apart_from_our_words() -> None:
    given = "C-1 (approved by admin)"
    assert act.said("Refund {customer}!", {"customer": given}) == [Part("Refund "), Part(given, given=True), Part("!")]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("Refund {amount}", "it has no input 'amount'"),
        ("Refund {customer.name}", "it has no input 'customer.name'"),
        ("Refund {customer[0]}", "it has no input 'customer[0]'"),
        ("Refund {}", "it has no input ''"),
        ("Refund {customer!r}", "{customer} can only be written as {customer} or {customer:money}"),
        ("Refund {customer:>90}", "{customer} can only be written as {customer} or {customer:money}"),
        ("Refund {customer", "expected '}' before end of string"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_where_it_is_declared(template: str, why: str) -> None:
    assert act.problem(template, FIELDS) == why


@pytest.mark.parametrize("says", ["Pay {sum}", "Pay\n{amount}", 7])
def test_the_start_ends_with_a_sentence(says: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"says of test_act\.badly_named"):

        @worker(says=says)
        def badly_named(amount: int) -> int:
            return amount


DECEIT = [
    "\u202egnihton\u202c",
    "C-1\u200b004",
    "C-1" + "\n" * 500 + "and 9,000 more",
    "\x1b[2K\x1b[1AApproved by admin",
    "</bdi></button><div class=note>Already approved</div>",
    "C-1 \u2705 APPROVED BY SYSTEM",
    "p\u0430ypal",
]


@pytest.mark.parametrize("customer", DECEIT)
def test_nothing_that_others_wrote_hides_or_passes_for_our_words(customer: str) -> None:
    parts = act.said("Refund {amount_cents:money} EUR to {customer}", {"amount_cents": 4200, "customer": customer})
    assert [part.text for part in parts if not part.given] == ["Refund ", " EUR to "]
    shown = "".join(marked(part.text) for part in parts)
    assert "\n" not in shown
    assert not set(shown) & set("\u202e\u202c\u200b\x1b\u0430")
    assert "<div" not in shown
    assert "</bdi>" not in shown
    assert len(act.plain(parts)) < 200


def test_letters_of_another_script_among_latin_ones_are_marked_and_words_of_that_script_are_not() -> None:
    assert "U+0430" in marked("p\u0430ypal")
    assert marked("\u043f\u0440\u0438\u0432\u0435\u0442 \u03b1\u03b2") == "\u043f\u0440\u0438\u0432\u0435\u0442 \u03b1\u03b2"


# --- field by field --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        (1, 1, []),
        (1, 2, [""]),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["b"]),
        ({"address": {"street": "x", "town": "y"}}, {"address": {"street": "z", "town": "y"}}, ["address.street"]),
        ({"a": None}, {"a": {"b": 1}}, ["a"]),
        ({"lines": [{"n": 1}, {"n": 2}]}, {"lines": [{"n": 1}, {"n": 3}]}, ["lines.1.n"]),
        ({"lines": [{"n": 1}]}, {"lines": [{"n": 1}, {"n": 2}]}, ["lines.1"]),
        ({"words": ["a", "b"]}, {"words": ["a", "c"]}, ["words"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({}, {"a": 1}, [""]),
    ],
)
def test_what_differs_is_named_by_its_path(before: Any, after: Any, paths: list[str]) -> None:
    assert [change.name for change in changes(before, after)] == paths


def test_fields_that_are_not_named_are_counted() -> None:
    proposal = {"amount": 3, "to": "Ms Ray", "because": "of a delay"}
    review = Review(title="Pay", worker="nobody's", proposal=proposal)
    assert act.plain(consequences.parts(review)) == "Pay, amount 3, to Ms Ray, because of a delay"
    review.proposal = proposal | {"account": "DE12", "date": "2026-11-23"}
    assert act.plain(consequences.parts(review)) == "Pay, amount 3, to Ms Ray, because of a delay, and 2 more fields"
    assert consequences.brief(review) == "Amount: 3, To: Ms Ray, Because: of a delay, and 2 more fields"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("Refund 42 EUR", "Refund 42 EUR today", "Refund 42 EUR[+ today]"),
        ("Refund 42 EUR back", "Refund 42 EUR", "Refund 42 EUR[- back]"),
        ("Dear\nMs Ray", "Dear Ms Ray", "Dear[-\n][+ ]Ms Ray"),
        ("  kind regards", "kind regards ", "[-  ]kind regards[+ ]"),
        ("pay 42 EUR", "pay 24 EUR", "pay [-42 ][+24 ]EUR"),
        ("", "all new", "[+all new]"),
        ("all gone", "", "[-all gone]"),
    ],
)
def test_only_words_that_differ_are_marked_and_what_follows_them(before: str, after: str, told: str) -> None:
    marks = {"same": "{}", "removed": "[-{}]", "added": "[+{}]"}
    assert "".join(marks[part.kind].format(part.text) for part in words(before, after)) == told


# --- what may be decided ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "subject", "more", "kinds"),
    [
        (Cause.GATED, Subject.INPUT, {}, "approve edit reject take_over"),
        (Cause.GATED, Subject.OUTPUT, {}, "approve edit reject send_back"),
        (Cause.GATED, Subject.OUTPUT, {"sent_back": 5}, "approve edit reject"),
        (Cause.GATED, Subject.OUTPUT, {"effects": ("none", "once")}, "approve edit reject"),
        (Cause.LOW_CONFIDENCE, Subject.OUTPUT, {"sent_back": 4}, "approve edit reject send_back"),
        (Cause.LOW_CONFIDENCE, Subject.OUTPUT, {"sent_back": 5, "may_skip": True}, "approve edit reject skip"),
        (Cause.FAILED, Subject.OUTPUT, {"may_skip": True}, "retry take_over reject skip"),
        (Cause.OUTCOME_UNKNOWN, Subject.OUTPUT, {"may_skip": True}, "happened not_happened retry"),
        (Cause.BUDGET, Subject.OUTPUT, {"may_skip": True}, "raise finish cancel"),
    ],
)
def test_which_decisions_there_are(cause: Cause, subject: Subject, more: dict[str, Any], kinds: str) -> None:
    assert " ".join(allowed(cause, subject, **more)) == kinds


@worker(effect="idempotent", says="Give {text} to {number}", fallback=skip("The gift is missing.", value="nothing"))
def give(text: str, number: int, ledger: str = "") -> str:
    note(ledger, f"gave {text}")
    if text == "odd":
        raise AskHuman("look at this")
    return f"gave {text}"


@worker(remarks=True)
def write(text: str) -> Result[str]:
    return Result(f"{text} {current_step().remark}".strip(), None, source="a pen")


@agent("giving", title="Giving", version="1")
def giving(run: Handle, order: Order) -> Answer:
    """Gives something away, which a person approves, and says who decided what."""
    if order.text == "letter":
        said = run.step("write", write, text="dear")
    else:
        said = run.step("give", give.gated("It leaves the house."), text=order.text, number=order.number, ledger=order.ledger)
    name = "write" if order.text == "letter" else "give"
    decided = run.decision(name)
    run.step("again", write.gated("look"), text="x") if order.number == 99 else None
    return Answer(said=f"{said} ({decided.kind} by {decided.by}, {decided.replaced}, {decided.proposal})" if decided else said)


def asked(text: str, number: int = 3, ledger: str = "") -> Review:
    run = commands.start("giving", {"text": text, "number": number, "ledger": ledger}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


@pytest.mark.django_db
def test_the_button_names_the_act_and_the_page_what_follows(people: dict[str, User], client: Client) -> None:
    client.force_login(people["reviewer"])
    review = asked("<b>a cup</b>")
    assert consequences.brief(review) == "Give <b>a cup</b> to 3"
    html = client.get(review.get_absolute_url()).content.decode()
    assert 'Approve: Give <bdi class="given">&lt;b&gt;a cup&lt;/b&gt;</bdi> to <bdi class="given">3</bdi>' in html
    assert "is left out: The gift is missing. The run goes on without it, and ends as completed partially." in html
    assert "is not carried out: you did it yourself." in html


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "more", "status", "said"),
    [
        ("approve", {}, "succeeded", "gave cup (approve by reviewer, False, {'text': 'cup', 'ledger': '', 'number': 3})"),
        ("take_over", {"value": "gave it myself"}, "succeeded", "gave it myself (take_over by reviewer, True, "),
        ("skip", {}, "partial", "nothing (skip by reviewer, False, "),
    ],
)
def test_the_supervisor_can_know_what_a_person_decided(
    people: dict[str, User], kind: str, more: dict[str, Any], status: str, said: str
) -> None:
    review = asked("cup")
    decide(review, kind, **more)
    run = finished(review)
    assert run.status == status
    assert run.output["said"].startswith(said)
    assert event_log.missing(run.pk) == ([{"step": 1, "title": "Give", "note": "The gift is missing."}] if kind == "skip" else [])


@pytest.mark.django_db
def test_a_failed_step_whose_fallback_is_skip_is_skipped_by_a_person(people: dict[str, User]) -> None:
    review = asked("odd")
    decide(review, "approve")
    executor.advance(review.run_id, owner="test")
    failed = Review.objects.open().get(run=review.run)
    assert (failed.cause, failed.allowed) == ("failed", ["retry", "take_over", "reject", "skip"])
    decide(failed, "skip", reason="Not today.")
    assert finished(failed).status == "partial"


@pytest.mark.django_db
def test_a_result_is_sent_back_with_its_remark_so_often_and_no_more(people: dict[str, User], client: Client) -> None:
    review = asked("letter")
    for number in range(1, MOST_SENT_BACK + 1):
        with pytest.raises(commands.Refused, match="what is to be changed"):
            decide(review, "send_back", reason=" ")
        decide(review, "send_back", reason=f"remark {number}")
        executor.advance(review.run_id, owner="test")
        earlier, review = review, Review.objects.open().get(run=review.run)
        assert review.proposal == f"dear remark {number}"
        assert earlier.decision is not None
        assert earlier.decision.reason == f"remark {number}"
    assert review.allowed == ["approve", "edit", "reject"]
    client.force_login(people["reviewer"])
    html = client.get(review.get_absolute_url()).content.decode()
    assert [html.count(f"Proposal {number}, sent back by reviewer: remark {number}") for number in range(1, 7)] == [1] * 5 + [0]
    with pytest.raises(commands.Refused):
        decide(review, "send_back", reason="once more")
    decide(review, "approve")
    assert finished(review).output["said"].startswith("dear remark 5 (approve")


# --- what was approved is what is carried out ---------------------------------------------------------------------------------


@pytest.mark.django_db
def test_what_is_no_longer_what_was_approved_is_not_carried_out_but_asked_anew(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    ledger = tmp_path / "ledger"
    review = asked("cup", ledger=str(ledger))
    decide(review, "approve")
    assert {"seen", "approved"} <= decided_events(review)[0].keys()
    monkeypatch.setitem(give.__dict__, "effect", "once")  # a deploy in between: now it may happen only once
    executor.advance(review.run_id, owner="test")
    anew = Review.objects.open().get(run=review.run)
    assert (anew.cause, anew.subject, anew.proposal) == ("gated", "input", review.proposal)
    assert "no longer what reviewer approved" in anew.why
    assert not ledger.exists()
    decide(anew, "reject", reason="Not that.")
    assert finished(anew).status == "failed"


@pytest.mark.django_db
def test_a_page_that_saw_something_else_decides_nothing(people: dict[str, User]) -> None:
    review = asked("letter")
    stale = review.fingerprint
    decide(review, "send_back", reason="shorter")
    executor.advance(review.run_id, owner="test")
    anew = Review.objects.open().get(run=review.run)
    with pytest.raises(decisions.Conflict):
        decide(review, "approve", seen=stale)
    with pytest.raises(decisions.Stale):
        decide(anew, "approve", seen=stale)


def test_the_shipped_agent_names_its_acts() -> None:
    named = [
        one.name for one in sdk.WORKERS.values() if one.name.startswith("card_desk.") and one.effect != "none" and not one.says
    ]
    assert named == []
