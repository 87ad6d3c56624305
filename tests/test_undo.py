"""A decision can be taken back until it is carried out: then the step waits as it did; at the same instant, one of the two."""

import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentops.benchmarks import history
from reviews import decisions
from reviews.models import Decision, Review
from runs import audit, clock, commands, dispatch, event_log, executor, sweeper
from runs.engine.events import Kind
from runs.models import Run
from runs.sdk import Expired, agent, ask_human, call
from runs.sdk import Run as Handle
from tests import cast
from tests.agents import Answer, Choice, Order, count, guess, pay
from tests.test_decisions import GOOD, at_once, decide, failed, opened

LONG = 600.0


def kinds(run_id: int) -> list[str]:
    return [fact.kind for fact in event_log.facts(run_id)]


def advanced(run_id: int) -> Run:
    executor.advance(run_id, owner="test")
    return Run.objects.get(pk=run_id)


def step_of(review: Review) -> Any:
    return event_log.state(review.run_id).steps[review.position]


def when_due(run_id: int) -> Run:
    """The run advanced, as soon as a job process may."""
    end = time.monotonic() + 30
    while time.monotonic() < end and not Run.objects.due().filter(pk=run_id).exists():
        time.sleep(0.01)
    return advanced(run_id)


@pytest.mark.parametrize(
    ("slug", "kind", "more"),
    [
        ("paying", "approve", {"reason": "It is owed."}),
        ("paying", "edit", {"value": {"amount": 7, "ledger": ""}, "reason": "It is less."}),
        ("paying", "reject", {"reason": "No."}),
        ("paying", "take_over", {"value": "by hand", "reason": "It was urgent."}),
        ("guessing", "approve", {}),
        ("guessing", "edit", {"value": GOOD}),
        ("guessing", "send_back", {"reason": "Look again."}),
        ("guessing", "reject", {"reason": "No."}),
        ("asking", "answer", {"value": GOOD}),
        ("stumbling", "retry", {}),
        ("stumbling", "take_over", {"value": "by hand"}),
    ],
)
@pytest.mark.django_db
def test_what_is_taken_back_waits_exactly_as_it_did(people: dict[str, User], slug: str, kind: str, more: dict[str, Any]) -> None:
    review = failed() if slug == "stumbling" else opened(slug)
    asked = step_of(review)
    decision = decide(review, kind, undo_seconds=LONG, **more)
    assert decision.effective_at is not None
    assert advanced(review.run_id).status == "queued", "nobody may go on with it yet"
    found = decisions.undoable(people["reviewer"])
    assert found is not None
    assert (found.last, found.until, found.count, found.is_earlier) == (decision, decision.effective_at, 1, False)
    decisions.undo(review.pk, actor=people["reviewer"])
    review.refresh_from_db()
    assert (review.is_open, review.closed_at, review.decision) == (True, None, None)
    assert decisions.undoable(people["reviewer"]) is None
    assert step_of(review) == asked
    run = advanced(review.run_id)
    assert (run.status, run.waiting_cause, run.waiting_step) == ("waiting", "person", review.position)
    assert Review.objects.open().get(run=run) == review
    assert decide(review, kind, **more).effective_at is None
    assert audit.first_wrong(run.pk) == ""
    before = Run.objects.filter(pk=run.pk).values().get()
    event_log.reproject(run.pk)
    assert Run.objects.filter(pk=run.pk).values().get() == before


@pytest.mark.django_db
def test_what_is_not_taken_back_is_carried_out_when_its_time_has_come(people: dict[str, User]) -> None:
    review = opened("guessing")
    decide(review, "edit", value=GOOD, undo_seconds=0.2)
    run = when_due(review.run_id)
    assert (run.status, run.output) == ("succeeded", {"said": "green 12.5"})
    with pytest.raises(commands.Refused, match="ended"):
        decisions.undo(review.pk, actor=people["reviewer"])
    assert decisions.undoable(people["reviewer"]) is None


@pytest.mark.django_db
def test_it_is_carried_out_at_its_time_and_not_at_the_next_sweep(people: dict[str, User]) -> None:
    review, begun = opened("guessing"), clock.now()
    decide(review, "approve", undo_seconds=0.2)
    call = dispatch.Call(review.run_id, Run.objects.get(pk=review.run_id).last_seq)
    sweeper.sweep()
    assert dispatch.missing([call]) == [call], "its time has not come"
    sweeper.wake_on_time(0.3, since=begun)
    assert dispatch.missing([call]) == []
    assert Run.objects.due().filter(pk=review.run_id).exists(), "it was not called before its time"


# The one decided review, so many times more, a minute apart.
LONG_AGO = """WITH copied AS (
    INSERT INTO reviews_review (position, {of_review})
    SELECT 1 + number, {of_review} FROM reviews_review, generate_series(1, 2000) AS number RETURNING id, position)
  INSERT INTO reviews_decision (review_id, decided_at, effective_at, {of_decision})
  SELECT copied.id, now() - make_interval(mins => copied.position * 10), now(), {of_decision} FROM reviews_decision, copied"""


@pytest.mark.django_db
def test_what_can_be_taken_back_is_found_without_reading_all_that_somebody_ever_decided(people: dict[str, User]) -> None:
    decide(opened("guessing"), "approve")
    of_review = history.columns(Review, "id", "position")
    of_decision = history.columns(Decision, "id", "review_id", "decided_at", "effective_at")
    with connection.cursor() as cursor:
        cursor.execute(LONG_AGO.format(of_review=of_review, of_decision=of_decision))
        cursor.execute("ANALYZE reviews_decision, reviews_review")
        with CaptureQueriesContext(connection) as asked:
            decisions.undoable(people["reviewer"])
        cursor.execute(f"EXPLAIN {asked.captured_queries[0]['sql']}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    looks = re.findall(r"Scan.* on reviews_decision .*\n *(.*)", plan)
    assert looks, plan
    assert all(re.match("Index Cond: .*decided_at >", condition) for condition in looks), plan


@pytest.mark.django_db
def test_a_late_undo_and_somebody_elses_change_nothing(people: dict[str, User]) -> None:
    review = opened("guessing")
    with pytest.raises(commands.Refused, match="no decision"):
        decisions.undo(review.pk, actor=people["reviewer"])
    decide(review, "approve", undo_seconds=LONG)
    with pytest.raises(decisions.NotYours, match="reviewer decided this"):
        decisions.undo(review.pk, actor=people["reviewer2"])
    decisions.undo(review.pk, actor=people["admin"])
    decide(review, "approve", by="reviewer2", undo_seconds=LONG)
    commands.cancel(review.run_id, by="operator")
    with pytest.raises(commands.Refused, match="has ended"):
        decisions.undo(review.pk, actor=people["reviewer2"])
    late = opened("guessing")
    decide(late, "approve", undo_seconds=1e-6)
    with pytest.raises(commands.Refused, match="already being carried out"):
        decisions.undo(late.pk, actor=people["reviewer"])
    assert kinds(late.run_id).count(Kind.DECISION_REVOKED) == 0


@agent("side-by-side", title="Side by side", version="1")
def side_by_side(run: Handle, order: Order) -> Answer:
    """Asks about two things at once, and counts meanwhile."""
    asked = run.gather(
        call("guess", guess, text=order.text, confidence=0.1),
        call("pay", pay.gated("Money."), amount=1.0, ledger=order.ledger),
        call("count", count, number=order.number),
    )
    colour: Any = asked[0]
    decided = run.decision("guess")
    return Answer(said=f"{colour.colour} {asked[1]} {decided.kind if decided else ''} {decided.replaced if decided else ''}")


@pytest.mark.django_db
def test_several_decisions_of_one_run_each_have_their_time(people: dict[str, User], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    run = commands.start("side-by-side", {"text": "x", "number": 1, "ledger": str(ledger)}, by="operator")
    advanced(run.pk)
    guessed, paid = Review.objects.open().filter(run=run).order_by("position")
    decide(guessed, "edit", value=GOOD, undo_seconds=0.2)
    decide(paid, "approve", reason="Owed.", undo_seconds=LONG)
    with pytest.raises(commands.Refused, match="still be taken back"):
        commands.fork(run.pk, step=3, by="operator")
    run = when_due(run.pk)
    assert (run.status, run.waiting_cause, run.waiting_step) == ("waiting", "undo", paid.position)
    assert not ledger.exists()
    decisions.undo(paid.pk, actor=people["reviewer"])
    run = advanced(run.pk)
    assert (run.status, run.waiting_cause, run.waiting_step) == ("waiting", "person", paid.position)
    decide(paid, "approve", reason="Owed.")
    assert advanced(run.pk).output == {"said": "green paid 1.0 edit True"}


@agent("hurried", title="Hurried", version="1")
def hurried(run: Handle, order: Order) -> Answer:
    """Waits a moment for an answer."""
    try:
        return Answer(said=run.step("choose", ask_human(Choice, within=0.4), question="Which?").colour)
    except Expired:
        return Answer(said="nobody")


class Meanwhile:
    """Does something once, in the middle of a pass, as another process would."""

    def __init__(self, act: Any) -> None:
        self.act, self.done = act, False

    def __call__(self, *args: Any, **more: Any) -> Any:
        if not self.done:
            self.done = True
            self.act()
        return self.original(*args, **more)

    original: Any = None


@pytest.mark.django_db
def test_a_pass_that_went_on_from_a_decision_leaves_when_it_is_taken_back(
    people: dict[str, User], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo holds the row's lock since before the time had come, and commits after the pass has looked at the clock."""
    ledger = tmp_path / "ledger"
    run = commands.start("paying", {"text": "x", "number": 1, "ledger": str(ledger)}, by="operator")
    advanced(run.pk)
    review = Review.objects.open().get(run=run)
    decide(review, "approve", reason="Owed.", undo_seconds=0.2)
    in_time = event_log.now()
    append = Meanwhile(lambda: decisions.undo(review.pk, actor=people["reviewer"]))
    append.original = event_log.pen.write
    monkeypatch.setattr(event_log, "looked_at_clock", lambda: in_time)
    monkeypatch.setattr(event_log.pen, "write", append)
    run = when_due(run.pk)
    assert (run.status, run.waiting_cause) == ("queued", "")
    assert not ledger.exists()
    run = advanced(run.pk)
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert Kind.ATTEMPT_STARTED not in kinds(run.pk)


@pytest.mark.django_db(transaction=True)
def test_of_an_undo_and_the_run_that_goes_on_at_the_same_instant_one_happens(tmp_path: Path) -> None:
    people, outcomes = cast.people(), []
    for number in range(16):
        ledger = tmp_path / f"ledger-{number}"
        run = commands.start("paying", {"text": "x", "number": 1, "ledger": str(ledger)}, by="operator")
        advanced(run.pk)
        review = Review.objects.open().get(run=run)
        until = decide(review, "approve", reason="Owed.", undo_seconds=0.3).effective_at

        def take_back(review: Review = review, until: Any = until, early: int = number % 4) -> Review:
            while event_log.now() < until - timedelta(milliseconds=early):
                pass
            return decisions.undo(review.pk, actor=people["reviewer"])

        at_its_end = number % 4 > 0
        act = take_back if at_its_end else lambda review=review: decisions.undo(review.pk, actor=people["reviewer"])
        undone, _ = at_once(act, lambda run=run: when_due(run.pk))
        review.refresh_from_db()
        paid = ledger.read_text().count("paid") if ledger.exists() else 0
        assert (isinstance(undone, Review), paid) == (review.is_open, 0 if review.is_open else 1), undone
        assert kinds(run.pk).count(Kind.DECISION_REVOKED) == review.is_open
        outcomes.append(review.is_open)
    assert set(outcomes) == {True, False}


# --- other decisions at the same instant ------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_decision_and_the_end_of_its_time_at_once_have_one_outcome() -> None:
    cast.people()
    outcomes = set()
    for early in (60, 0.02, 0.004, 0) * 3:  # seconds before its end: the first is surely in time, the last is not
        run = commands.start("hurried", {"text": "x", "number": 1}, by="operator")
        advanced(run.pk)
        review = Review.objects.open().get(run=run)
        until = step_of(review).deadline

        def late(review: Review = review, until: Any = until, early: float = early) -> Decision:
            while (until - event_log.now()).total_seconds() > early:
                pass
            return decide(review, "answer", value=GOOD)

        decided, _ = at_once(late, lambda r=run: when_due(r.pk))
        review.refresh_from_db()
        run = when_due(run.pk) if Run.objects.get(pk=run.pk).status == "queued" else Run.objects.get(pk=run.pk)
        expected = "decided" if isinstance(decided, Decision) else "expired"
        assert review.state == expected, decided
        assert run.output == {"said": "green" if expected == "decided" else "nobody"}
        assert kinds(run.pk).count(Kind.STEP_DECIDED) + kinds(run.pk).count(Kind.STEP_EXPIRED) == 1
        outcomes.add(expected)
    assert outcomes == {"decided", "expired"}


@pytest.mark.django_db(transaction=True)
def test_a_decision_and_a_fork_at_once_do_not_lock_each_other_out() -> None:
    cast.people()
    for _ in range(8):
        run = commands.start("asking", {"text": "x", "number": 1}, by="operator")
        advanced(run.pk)
        review = Review.objects.open().get(run=run)
        decided, forked = at_once(
            lambda review=review: decide(review, "answer", value=GOOD),
            lambda run=run: commands.fork(run.pk, step=1, by="operator"),
        )
        assert isinstance(decided, Decision), decided
        assert isinstance(forked, Run), forked
        assert Review.objects.get(pk=review.pk).state == "decided"
        assert event_log.state(forked.pk).forked_from == run.pk
