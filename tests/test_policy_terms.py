"""What a policy says of a step, as pure functions: every condition, every cause, every default."""

from typing import Any

import pytest

from runs.engine import condition
from runs.engine import policy as judging
from runs.engine.condition import Unclear, holds

ORDER = {
    "amount": 120.5,
    "paid": "42.00",
    "by": "2026-11-23",
    "items": [{"n": 1}, {"n": 20}],
    "tags": ["a"],
    "ok": True,
    "no": None,
}


# --- conditions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "operator", "value", "expected"),
    [
        ("amount", ">", 100, True), ("amount", ">", 120.5, False), ("amount", ">=", 120.5, True), ("amount", "<", "121", True),
        ("amount", "<=", 120, False), ("amount", "=", 120.5, True), ("amount", "!=", 120.5, False), ("paid", ">", 41.99, True),
        ("paid", "=", 42, True), ("paid", "=", "42.0", False), ("by", ">", "2026-01-01", True),
        ("by", "<", "2026-01-01T10:00:00", False),
        ("items.1.n", ">", 19, True), ("items.0.n", ">", 19, False), ("tags", "contains", "a", True),
        ("tags", "contains", "b", False),
        ("by", "contains", "-11-", True), ("by", "contains", "X", False), ("ok", "=", True, True), ("ok", "!=", True, False),
        ("no", "is empty", None, True), ("no", "=", "x", False), ("no", "!=", "x", True), ("amount", "is empty", None, False),
        ("tags", "is empty", None, False), ("", "is empty", None, False),
    ],
)  # fmt: skip
def test_a_condition_holds_or_not(path: str, operator: str, value: Any, expected: bool) -> None:
    assert holds(ORDER, path, operator, value) is expected


@pytest.mark.parametrize(
    ("path", "operator", "value"),
    [
        ("missing", ">", 1), ("items.2.n", ">", 1), ("items.x", "=", 1), ("amount.cents", ">", 1), ("ok", ">", 0), ("no", ">", 0),
        ("by", ">", 5), ("by", ">", "tomorrow"), ("by", "<", "2026-01-01T10:00:00+00:00"), ("ok", "=", 1), ("tags", "=", "a"),
        ("amount", "contains", 1), ("amount", "resembles", 1), ("amount", "", 1), ("amount", ">", None), ("amount", ">", True),
        ("items.-1.n", ">", 1), ("missing", "is empty", None), ("items.00000000099.n", "=", 1), (f"items.{'9' * 5000}", "=", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_said(path: str, operator: str, value: Any) -> None:
    with pytest.raises(Unclear):
        holds(ORDER, path, operator, value)


def test_what_is_masked_is_not_compared() -> None:
    with pytest.raises(Unclear, match="masked"):
        holds({"card": "•••"}, "card", "contains", "4")


def made(**said: Any) -> judging.Policy:
    return judging.Policy.read({"id": 12, "version": 3, **said})


CHECKED = {"when": "condition", "path": "amount", "operator": ">", "value": 100}


@pytest.mark.parametrize(
    ("said", "judged", "confidence", "asks_before", "asks_after"),
    [
        ({}, True, 0.7, "", "low_confidence"), ({}, True, 0.8, "", ""), ({}, True, None, "", "low_confidence"),
        ({}, False, None, "", ""),
        ({"worker": "w"}, False, None, "", "low_confidence"), ({"threshold": 0.5}, True, 0.7, "", ""),
        ({"threshold": 0.99}, True, 0.98, "", "low_confidence"), ({"when": "never"}, True, None, "", ""),
        ({"when": "always"}, True, 1.0, "", "gated"), ({"when": "always", "subject": "input"}, True, 1.0, "gated", ""),
        ({"when": "always", "subject": "input"}, True, 0.1, "gated", "low_confidence"),
        (CHECKED, True, 1.0, "", "gated"), (CHECKED | {"value": 200}, True, 1.0, "", ""),
        (CHECKED | {"value": 200}, True, 0.1, "", "low_confidence"), (CHECKED | {"subject": "input"}, False, None, "gated", ""),
        (CHECKED | {"path": "x"}, True, 1.0, "", "gated"), (CHECKED | {"path": "x", "subject": "input"}, True, 1.0, "gated", ""),
        (CHECKED | {"operator": "like"}, True, 1.0, "", "gated"), ({"when": "sometimes"}, True, 1.0, "gated", "gated"),
        (CHECKED | {"subject": "both"}, True, 1.0, "gated", "gated"),
    ],
)  # fmt: skip
def test_a_policy_says_when_a_person_is_asked(
    said: dict[str, Any], judged: bool, confidence: float | None, asks_before: str, asks_after: str
) -> None:
    terms = made(**said)
    before = judging.before(terms, ORDER)
    after = judging.after(terms, ORDER, judged=judged, confidence=confidence, threshold=0.8)
    assert (before.cause if before.needs_person else "", after.cause if after.needs_person else "") == (asks_before, asks_after)
    assert all(verdict.why for verdict in (before, after) if verdict.needs_person)


def test_the_reviewer_reads_the_rule_and_the_value() -> None:
    terms = made(**CHECKED)
    assert terms.rule == "Policy 12, version 3: amount > 100"
    assert judging.after(terms, ORDER, judged=False, confidence=None, threshold=0.8).why == f"{terms.rule}. It is 120.5."
    assert len(made(**CHECKED | {"path": "x" * 200}).rule) <= judging.RULE_LETTERS


def test_the_workers_own_policy_wins_whole() -> None:
    config = {"policies": [{"worker": "", "when": "always"}, {"worker": "w", "when": "never"}]}
    assert [judging.policy_of(config, name).when for name in ("w", "other")] == ["never", "always"]
    assert judging.policy_of({"policies": []}, "w") == judging.policy_of({}, "w") == judging.NONE


@pytest.mark.parametrize(
    ("default", "cause", "effect", "risk", "can_skip", "expected"),
    [
        ("approve", "gated", "none", "", True, "approve"), ("approve", "low_confidence", "none", "low", False, "approve"),
        ("approve", "gated", "none", "high", True, "expire"), ("approve", "gated", "idempotent", "low", True, "expire"),
        ("approve", "gated", "once", "low", True, "expire"), ("approve", "failed", "none", "", True, "expire"),
        ("approve", "outcome_unknown", "once", "low", True, "expire"), ("skip", "failed", "none", "", True, "skip"),
        ("skip", "failed", "none", "", False, "expire"), ("skip", "outcome_unknown", "once", "", True, "expire"),
        ("skip", "question", "none", "", True, "expire"), ("expire", "gated", "none", "", True, "expire"),
        ("explode", "gated", "none", "", True, "expire"),
    ],
)  # fmt: skip
def test_a_timeout_approves_nothing_irreversible(
    default: str, cause: str, effect: str, risk: str, can_skip: bool, expected: str
) -> None:
    assert judging.default_of(made(default=default, risk=risk), cause, effect, can_skip=can_skip) == expected


def test_the_risk_is_the_policys_or_follows_from_what_the_step_does() -> None:
    risks = [judging.risk_of(judging.NONE, "failed", effect) for effect in ("none", "idempotent", "once")]
    assert risks == ["normal", "normal", "high"]
    assert judging.risk_of(made(risk="low"), "gated", "once") == "low"
    assert judging.risk_of(made(risk="low"), "outcome_unknown", "once") == "high"


@pytest.mark.parametrize("risk", ["", "low", "normal", "high"])
@pytest.mark.parametrize("effect", ["none", "idempotent", "once"])
def test_what_the_code_declares_of_high_risk_stays_so_and_no_clock_approves_it(risk: str, effect: str) -> None:
    terms = made(risk=risk, default="approve")
    assert judging.risk_of(terms, "gated", effect, declared="high") == "high"
    assert judging.default_of(terms, "gated", effect, can_skip=False, declared="high") == "expire"
    sent_back = judging.after_remark(terms, judging.Verdict(False), effect, declared="high")
    assert (sent_back.needs_person, sent_back.cause) == (True, "gated")


def test_the_same_steps_are_drawn_by_whoever_draws() -> None:
    drawn = [judging.is_drawn(0.25, run, "step") for run in range(4000)]
    assert drawn == [judging.is_drawn(0.25, run, "step") for run in range(4000)]
    assert 800 < sum(drawn) < 1200
    assert (judging.is_drawn(0.0, 1, "x"), judging.is_drawn(1.0, 1, "x")) == (False, True)


def test_a_value_in_a_sentence_is_one_short_line() -> None:
    shown = condition.shown("a\nfake banner " * 50)
    assert len(shown) <= condition.SHOWN_LETTERS
    assert "\n" not in shown
