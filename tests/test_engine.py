"""The pure core, case by case."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.engine import backoff, outcome, policy
from runs.engine.canonical import PAYLOAD_LIMIT_BYTES, Unstorable, clean, dumps, dumps_plainly, normalise, stored
from runs.engine.errors import AskHuman, GiveUp, HeldBack, TryLater
from runs.engine.events import GENESIS, Draft, Fact, Kind, first_broken, write
from runs.engine.state import Status, fold

AT = datetime(2026, 1, 1, tzinfo=UTC)

# --- what can be stored -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (None, None), (True, True), (3, 3), (1.0, 1), (-0.0, 0), (0.1, 0.1), (1e16, 10**16), ("ä", "ä"),
        ((1, 2), [1, 2]), ({"b": 1.0, "a": [2.5]}, {"a": [2.5], "b": 1}), ([], []), ({}, {}),
    ],
)  # fmt: skip
def test_a_value_is_stored_as_the_database_would_return_it(value: object, clean: object) -> None:
    assert normalise(value) == clean
    assert dumps(normalise(value)) == dumps(json.loads(dumps(normalise(value))))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "nan"), (math.inf, "inf"), ("a\x00b", "NUL"), ("\ud800", "surrogate"), ({1: 2}, "not text"),
        ({"a": object()}, "object cannot be stored"), (b"bytes", "bytes cannot be stored"), ({1, 2}, "set cannot be stored"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_named(value: object, words: str) -> None:
    with pytest.raises(Unstorable, match=words):
        normalise(value)


def test_a_value_over_the_limit_names_the_limit() -> None:
    assert stored("x" * (PAYLOAD_LIMIT_BYTES - 2)).startswith("x")
    with pytest.raises(Unstorable, match="the limit is 10,000,000 bytes"):
        stored("x" * PAYLOAD_LIMIT_BYTES)


# --- policy, backoff, outcome -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "threshold", "needs_person"),
    [
        (None, 0.0, True), (None, 0.9, True), (0.9, 0.9, False), (0.8999, 0.9, True), (1.0, 1.0, False),
        (0.0, 0.0, False), (1.01, 0.5, True), (-0.1, 0.0, True), (math.nan, 0.0, True),
    ],
)  # fmt: skip
def test_confidence_under_the_threshold_needs_a_person(confidence: float | None, threshold: float, needs_person: bool) -> None:
    verdict = policy.judge(confidence, threshold)
    assert verdict.needs_person is needs_person
    assert verdict.why.endswith(".")


@pytest.mark.parametrize(
    ("confidence", "threshold", "said"),
    [(0.61, 0.9, "0.61 is under the threshold of 0.90"), (0.9482, 0.95, "0.948 is under the threshold of 0.950")],
)
def test_as_many_digits_as_show_that_it_is_under(confidence: float, threshold: float, said: str) -> None:
    assert policy.judge(confidence, threshold).why == f"Confidence {said}."


def test_every_cause_says_what_may_be_decided() -> None:
    assert set(policy.ALLOWED) == set(policy.Cause)
    says_no = {"reject", "not_happened", "cancel"}
    assert all(says_no & set(allowed) for allowed in policy.ALLOWED.values())
    assert "approve" not in policy.ALLOWED[policy.Cause.FAILED]


@pytest.mark.parametrize(
    ("attempt", "chance", "retry_after", "seconds"),
    [(1, 0.5, None, 1.0), (2, 0.5, None, 2.0), (3, 0.999, None, 7.992), (30, 0.5, None, 150.0), (9, 0.0, None, 0.0),
     (1, 0.5, 12.0, 12.0), (6, 0.5, 12.0, 32.0), (10**6, 1.0, None, 300.0)],
)  # fmt: skip
def test_backoff_grows_is_capped_and_honours_what_was_asked(
    attempt: int, chance: float, retry_after: float | None, seconds: float
) -> None:
    assert backoff.wait_seconds(attempt, chance=chance, retry_after=retry_after) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (TryLater("busy"), 1, outcome.TryAgain(1.0)),
        (TryLater("busy", retry_after=9.0), 2, outcome.TryAgain(9.0)),
        (TryLater("busy", retry_after=1e12), 1, outcome.TryAgain(86_400.0)),
        (TryLater("busy"), 3, outcome.FailFinally("It still failed after 3 attempts: busy")),
        (GiveUp("no such card"), 1, outcome.FailFinally("It cannot succeed by trying again: no such card")),
        (AskHuman("look at this"), 1, outcome.AskPerson("AskHuman: look at this")),
        (ZeroDivisionError("by zero"), 1, outcome.AskPerson("ZeroDivisionError: by zero")),
    ],
)
def test_what_follows_a_failed_attempt(error: Exception, attempt: int, expected: outcome.Outcome) -> None:
    assert outcome.after_failure(error, attempt=attempt, attempts=3, chance=0.5) == expected


TERMS = backoff.RetryTerms(attempts=5, first_wait_seconds=1.0, longest_wait_seconds=8.0, total_seconds=60.0)


def of_terms(error: TryLater) -> TryLater:
    """As guard raises it: with the terms of the dependency that failed."""
    error.terms = TERMS
    return error


@pytest.mark.parametrize(
    ("error", "attempt", "elapsed", "total", "expected"),
    [
        (of_terms(TryLater("busy")), 1, 0.0, None, outcome.TryAgain(0.5)),
        (of_terms(TryLater("busy")), 4, 0.0, None, outcome.TryAgain(4.0)),
        (of_terms(TryLater("busy")), 9, 0.0, None, outcome.TryAgain(4.0)),
        (of_terms(TryLater("busy", retry_after=30.0)), 1, 0.0, None, outcome.TryAgain(30.0)),
        (of_terms(TryLater("busy")), 1, 59.5, None, outcome.TryAgain(0.5)),
        (of_terms(TryLater("busy")), 1, 59.6, None, outcome.FailFinally("It still failed after 1 attempt in 60 s: busy")),
        (of_terms(TryLater("busy", retry_after=30.0)), 2, 31.0, None,
         outcome.FailFinally("It still failed after 2 attempts in 31 s: busy")),
        (TryLater("busy"), 1, 86_399.0, None, outcome.TryAgain(1.0)),
        (TryLater("busy"), 1, 86_399.1, None, outcome.FailFinally("It still failed after 1 attempt in 86399 s: busy")),
        (TryLater("busy"), 1, 4.0, 5.0, outcome.TryAgain(1.0)),
        (TryLater("busy"), 1, 4.1, 5.0, outcome.FailFinally("It still failed after 1 attempt in 4 s: busy")),
        (of_terms(TryLater("busy")), 1, 59.6, 1e9, outcome.FailFinally("It still failed after 1 attempt in 60 s: busy")),
        (TryLater(30, why="no file"), 1, 1e9, None, outcome.NotYet(30.0, "no file")),
        (TryLater(30, why="no file"), 1, 30.0, 60.0, outcome.NotYet(30.0, "no file")),
        (TryLater(30, why="no file"), 1, 31.0, 60.0, outcome.FailFinally("It could not be done within 60 s: no file")),
        (HeldBack("breaker", "shop", 30, "It is open."), 1, 0.0, 60.0, outcome.NotYet(30.0, "It is open.", "breaker", "shop")),
        (HeldBack("breaker", "shop", 90, "It is open."), 1, 0.0, 60.0,
         outcome.FailFinally("It could not be done within 60 s: It is open.")),
        (GiveUp("no"), 1, 0.0, 60.0, outcome.FailFinally("It cannot succeed by trying again: no")),
        (ZeroDivisionError("odd"), 1, 0.0, 60.0, outcome.AskPerson("ZeroDivisionError: odd")),
    ],
)  # fmt: skip
def test_attempts_and_time_are_limited_by_the_dependency_and_by_the_step(
    error: Exception, attempt: int, elapsed: float, total: float | None, expected: outcome.Outcome
) -> None:
    following = outcome.after_failure(
        error, attempt=attempt, attempts=20, chance=0.5, elapsed_seconds=elapsed, total_seconds=total
    )
    assert following == expected


@given(attempt=st.integers(1, 10**6), chance=st.floats(0, 1, exclude_max=True), retry_after=st.none() | st.floats(0, 1e9))
def test_a_wait_lies_between_what_was_asked_and_the_cap(attempt: int, chance: float, retry_after: float | None) -> None:
    seconds = backoff.wait_seconds(attempt, chance=chance, retry_after=retry_after, terms=TERMS)
    least = min(retry_after or 0.0, backoff.LONGEST_SECONDS)
    assert least <= seconds <= max(least, min(8.0, 2.0 ** min(attempt - 1, 30)))


@pytest.mark.parametrize(
    ("reason", "is_timeout"),
    [("because it took longer than 2 s", True), ("because its run was cancelled", False), ("together with w1", False),
     ("by signal 9 (killed)", False)],
)  # fmt: skip
def test_which_attempts_took_too_long(reason: str, is_timeout: bool) -> None:
    assert outcome.is_timeout({"reason": reason}) is is_timeout


@pytest.mark.parametrize("error", [TryLater("busy"), GiveUp("no"), SystemExit(3)])
def test_what_may_happen_only_once_is_never_repeated_by_itself(error: BaseException) -> None:
    next_ = outcome.after_failure(error, attempt=1, attempts=3, chance=0.5, effect="once")
    assert isinstance(next_, outcome.AskPerson)
    assert next_.why.endswith(outcome.UNKNOWN)


def test_free_text_can_always_be_stored_and_says_what_was_cut() -> None:
    assert clean("a\x00b\ud800c") == "a\ufffdb?c"
    assert clean("x" * 10, 10) == "x" * 10
    assert clean("x" * 5000, 100).endswith("x … (5,000 letters in all)")
    assert len(clean("x" * 5000, 100)) == 100


def test_only_waits_over_two_seconds_park() -> None:
    assert not outcome.TryAgain(2.0).parks
    assert outcome.TryAgain(2.001).parks


# --- the chain --------------------------------------------------------------------------------------------------


def chain_of(*drafts: Draft, run_id: int = 7) -> list[Fact]:
    facts: list[Fact] = []
    for number, draft in enumerate(drafts, start=1):
        prev_hash = facts[-1].hash if facts else GENESIS
        at = AT + timedelta(seconds=number)
        facts.append(write(draft, run_id=run_id, seq=number, at=at, prev_hash=prev_hash))
    return facts


REQUESTED = Draft(
    Kind.RUN_REQUESTED,
    {"agent": "a", "agent_version": "1", "input": {}, "summary": "", "config": {"version": 1}},
    actor="operator",
)
STARTED = Draft(Kind.RUN_STARTED, {"owner": "x", "fence": 1})
STEP = {"name": "look_up", "worker": "w", "title": "Look up", "fingerprint": "f", "input": {"id": 1}, "effect": "none"}
STEP_STARTED = Draft(Kind.STEP_STARTED, STEP | {"attempt": 1}, 1)


def test_an_untouched_chain_holds() -> None:
    assert first_broken(7, chain_of(REQUESTED, STARTED)) == ""


def test_each_kind_of_tampering_is_found_and_named() -> None:
    facts = chain_of(REQUESTED, STARTED, STEP_STARTED)
    changed = Fact(2, facts[1].kind, {"owner": "y"}, None, "", facts[1].at, facts[1].prev_hash, facts[1].hash)
    assert first_broken(7, [facts[0], changed, facts[2]]) == "event 2 (RunStarted) was changed after it was written"
    assert first_broken(7, [facts[0], facts[2]]) == "event 2 is missing (found 3)"
    assert first_broken(8, facts) == "event 1 (RunRequested) was changed after it was written"
    rewritten = write(STARTED, run_id=7, seq=2, at=AT, prev_hash="f" * 64)
    assert first_broken(7, [facts[0], rewritten]) == "event 2 does not follow event 1"


# --- the fold ---------------------------------------------------------------------------------------------------


def escalated(cause: str, subject: str, proposal: object) -> Draft:
    return Draft(Kind.STEP_ESCALATED, {"cause": cause, "subject": subject, "proposal": proposal, "why": "because"}, 1)


def decided(decision: str, value: object = None) -> Draft:
    return Draft(Kind.STEP_DECIDED, {"decision": decision, "reason": "so", "value": value}, 1, actor="reviewer")


PARKED = Draft(Kind.RUN_PARKED, {"cause": "person"}, 1)
CHANGED_AND_BACK = [escalated("code_changed", "output", None), PARKED, decided("retry")]


@pytest.mark.parametrize(
    ("drafts", "run", "step"),
    [
        ([], Status.RUNNING, None),
        ([STEP_STARTED], Status.RUNNING, Status.RUNNING),
        ([STEP_STARTED, Draft(Kind.STEP_SUCCEEDED, {"output": 1}, 1)], Status.RUNNING, Status.SUCCEEDED),
        ([STEP_STARTED, Draft(Kind.ATTEMPT_FAILED, {"error": {}, "wait_seconds": 1.5}, 1)], Status.RUNNING, Status.RETRYING),
        ([STEP_STARTED, Draft(Kind.ATTEMPT_FAILED, {"error": {}, "wait_seconds": None}, 1)], Status.RUNNING, Status.FAILED),
        ([STEP_STARTED, escalated("low_confidence", "output", 5), PARKED], Status.WAITING, Status.WAITING),
        (
            [STEP_STARTED, escalated("low_confidence", "output", 5), PARKED, decided("approve", 5)],
            Status.QUEUED,
            Status.SUCCEEDED,
        ),
        ([STEP_STARTED, escalated("low_confidence", "output", 5), PARKED, decided("reject")], Status.QUEUED, Status.REJECTED),
        ([STEP_STARTED, escalated("low_confidence", "output", 5), PARKED, decided("retry")], Status.QUEUED, Status.QUEUED),
        (
            [STEP_STARTED, escalated("gated", "input", {"id": 1}), PARKED, decided("edit", {"id": 2})],
            Status.QUEUED,
            Status.QUEUED,
        ),
        ([STEP_STARTED, escalated("code_changed", "output", None), PARKED, decided("retry")], Status.QUEUED, Status.RUNNING),
        ([STEP_STARTED, escalated("code_changed", "output", None), PARKED, decided("reject")], Status.QUEUED, Status.REJECTED),
        (
            [STEP_STARTED, escalated("code_changed", "output", None), PARKED, decided("fork"), Draft(Kind.RUN_CANCELLED)],
            Status.CANCELLED,
            Status.CANCELLED,
        ),
        (  # a sleep, over which the code changed, and was as before again
            [
                Draft(Kind.STEP_REQUESTED, STEP, 1),
                Draft(Kind.STEP_PARKED, {"cause": "timer"}, 1),
                *CHANGED_AND_BACK,
                Draft(Kind.RUN_CANCELLED),
                Draft(Kind.RUN_RETRIED),
            ],
            Status.QUEUED,
            Status.WAITING,
        ),
        (  # the same over what a person had rejected, which then ended the run
            [
                STEP_STARTED,
                escalated("low_confidence", "output", 5),
                decided("reject"),
                *CHANGED_AND_BACK,
                Draft(Kind.RUN_FAILED, {"error": {}}, 1),
                Draft(Kind.RUN_RETRIED),
            ],
            Status.QUEUED,
            Status.QUEUED,
        ),
        (
            [STEP_STARTED, escalated("outcome_unknown", "output", None), PARKED, decided("happened", 5)],
            Status.QUEUED,
            Status.SUCCEEDED,
        ),
        (
            [STEP_STARTED, escalated("outcome_unknown", "output", None), PARKED, decided("not_happened")],
            Status.QUEUED,
            Status.REJECTED,
        ),
        ([STEP_STARTED, escalated("outcome_unknown", "output", None), PARKED, decided("retry")], Status.QUEUED, Status.QUEUED),
        ([Draft(Kind.STEP_COPIED, {**STEP_STARTED.data, "status": "rejected", "run": 3}, 1)], Status.RUNNING, Status.REJECTED),
        ([STEP_STARTED, Draft(Kind.RUN_CANCELLED)], Status.CANCELLED, Status.CANCELLED),
        ([STEP_STARTED, Draft(Kind.RUN_SUCCEEDED, {"output": {}})], Status.SUCCEEDED, Status.RUNNING),
        (
            [STEP_STARTED, decided("reject"), Draft(Kind.RUN_FAILED, {"error": {}}, 1), Draft(Kind.RUN_RETRIED)],
            Status.QUEUED,
            Status.QUEUED,
        ),
        (
            [STEP_STARTED, decided("reject"), Draft(Kind.RUN_FAILED, {"error": {}}), Draft(Kind.RUN_RETRIED)],
            Status.QUEUED,
            Status.REJECTED,
        ),
        ([STEP_STARTED, Draft(Kind.RUN_CANCELLED), Draft(Kind.RUN_RETRIED)], Status.QUEUED, Status.RUNNING),
        (
            [STEP_STARTED, escalated("failed", "output", None), PARKED, Draft(Kind.RUN_CANCELLED), Draft(Kind.RUN_RETRIED)],
            Status.QUEUED,
            Status.WAITING,
        ),
        ([STEP_STARTED, Draft(Kind.RUN_RELEASED)], Status.QUEUED, Status.RUNNING),
    ],
)
def test_state_after(drafts: list[Draft], run: str, step: str | None) -> None:
    state = fold(chain_of(REQUESTED, STARTED, *drafts))
    assert state.status == run
    assert (state.steps[1].status if state.steps else None) == step


def test_an_edited_gate_changes_the_input_and_lets_it_pass() -> None:
    state = fold(chain_of(REQUESTED, STEP_STARTED, escalated("gated", "input", {"id": 1}), PARKED, decided("edit", {"id": 2})))
    assert (state.steps[1].input, state.steps[1].gate_passed) == ({"id": 2}, True)


def test_an_unknown_kind_changes_nothing_but_the_cursor() -> None:
    facts = chain_of(REQUESTED, Draft("FromTheFuture", {"x": 1}))  # type: ignore[arg-type]
    state = fold(facts)
    assert (state.seq, state.status) == (2, Status.QUEUED)


@given(st.lists(st.sampled_from([STEP_STARTED, decided("approve", 1), escalated("failed", "output", None), PARKED]), max_size=12))
def test_folding_in_two_parts_is_folding_at_once(drafts: list[Draft]) -> None:
    facts = chain_of(REQUESTED, STEP_STARTED, *drafts)
    middle = len(facts) // 2
    assert fold(facts[middle:], fold(facts[:middle])) == fold(facts)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        ('grün \U0001f600 \x01 \x7f / \\ "', '"grün \U0001f600 \\u0001 \x7f / \\\\ \\""'),
        (0.0000001, "1e-7"),
        (2**64, "18446744073709551616"),
        ({"b": 2**70, "a": 1e-7}, '{"a":1e-07,"b":1180591620717411303424}'),
    ],
)
def test_canonical_text(value: Any, text: str) -> None:
    assert dumps(value) == text
    assert json.loads(text) == value


def test_deep_values_have_a_text() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert json.loads(dumps(deep)) == deep


def test_a_log_whose_numbers_were_written_as_before_still_holds() -> None:
    draft = Draft(Kind.STEP_SUCCEEDED, {"confidence": 1e-7}, 1)
    fact = write(draft, run_id=7, seq=1, at=datetime(2026, 11, 1, tzinfo=UTC), prev_hash=GENESIS, text=dumps_plainly(draft.data))
    assert fact.hash != write(draft, run_id=7, seq=1, at=fact.at, prev_hash=GENESIS).hash
    assert first_broken(7, [fact]) == ""
    assert first_broken(7, [fact._replace(data={"confidence": 2e-7})]) != ""
