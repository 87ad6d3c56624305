"""decide(): every decision, everything it refuses, and two people at once."""

import json
import threading
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pydantic import ValidationError

from reviews import claims, decisions
from reviews.models import Decision, Review
from runs import access, commands, event_log, executor, pen, sdk
from runs.engine.canonical import Unstorable
from runs.engine.events import Kind
from runs.models import Run
from tests import agents, cast

GOOD = {"colour": "green", "amount": 12.5}


def opened(slug: str, text: str = "hello") -> Review:
    """The review at which a new run of the agent stops."""
    run = commands.start(slug, {"text": text, "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


def failed() -> Review:
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    return opened("stumbling", "tired")


def decide(review: Review, kind: str, *, by: str = "reviewer", **more: Any) -> Decision:
    more.setdefault("seen", review.fingerprint)
    return decisions.decide(review.pk, actor=User.objects.get(username=by), kind=kind, **more)


def finished(review: Review) -> Run:
    executor.advance(review.run_id, owner="test")
    return Run.objects.get(pk=review.run_id)


def decided_events(review: Review) -> list[dict[str, Any]]:
    return [fact.data for fact in event_log.facts(review.run_id) if fact.kind == Kind.STEP_DECIDED]


# --- each decision, and what the run makes of it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "kind", "more", "output"),
    [
        ("paying", "approve", {"reason": "It is owed."}, "paid 3.0"),
        ("paying", "take_over", {"value": "paid by hand", "reason": "It was urgent."}, "paid by hand"),
        ("paying", "edit", {"value": {"amount": "7", "ledger": ""}, "reason": "It is less."}, "paid 7.0"),
        ("paying", "reject", {"reason": "Too dear."}, "not paid: Too dear."),
        ("guessing", "approve", {}, "red 5"),
        ("guessing", "edit", {"value": GOOD}, "green 12.5"),
        ("guessing", "send_back", {"reason": "Look again."}, "red 5"),
        ("asking", "answer", {"value": GOOD}, "green"),
        ("stumbling", "retry", {}, "stood up"),
        ("stumbling", "take_over", {"value": "carried"}, "carried"),
    ],
)
@pytest.mark.django_db
def test_the_run_goes_on_from_the_decision(
    people: dict[str, User], slug: str, kind: str, more: dict[str, Any], output: str
) -> None:
    review = failed() if slug == "stumbling" else opened(slug)
    decision = decide(review, kind, **more)
    review.refresh_from_db()
    assert (review.state, decision.kind, decision.actor.username) == ("decided", kind, "reviewer")
    assert decision.seen_fingerprint == review.fingerprint
    assert decision.reason == more.get("reason", "")
    run = finished(review)
    assert (run.status, run.output) == ("succeeded", {"said": output})


@pytest.mark.django_db
def test_a_rejection_that_the_supervisor_does_not_catch_fails_the_run(people: dict[str, User]) -> None:
    review = opened("guessing")
    decide(review, "reject", reason="Neither colour.")
    run = finished(review)
    assert run.status == "failed"
    assert "Neither colour." in run.error["message"]


@pytest.mark.django_db
def test_the_event_and_the_row_say_the_same(people: dict[str, User]) -> None:
    review = opened("guessing")
    decision = decide(review, "edit", value={"colour": "green", "amount": "12.5"}, reason="  by its shade ")
    said = {"decision": "edit", "reason": "by its shade", "value": GOOD, "seen": review.fingerprint}
    assert decided_events(review) == [said]
    assert (decision.value, decision.reason) == (GOOD, "by its shade")
    whole = decide(opened("guessing"), "edit", value={"colour": "red", "amount": 7})
    assert json.dumps(whole.value) == '{"colour": "red", "amount": 7}'


@pytest.mark.django_db
def test_a_decision_costs_four_statements(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    review, reviewer, own = opened("guessing"), people["reviewer"], []
    reviewer.get_all_permissions()
    event_log.now()
    execute = pen.execute
    monkeypatch.setattr(pen, "execute", lambda statement, values: own.append(statement) or execute(statement, values))
    with CaptureQueriesContext(connection) as asked:
        decisions.decide(review.pk, actor=reviewer, kind="approve", seen=review.fingerprint)
    assert len(own) == 3, own  # the log is read, and written; and the decision
    assert len(asked) == 1, [query["sql"] for query in asked]


# --- what is refused, and changes nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "kind", "more", "refusal"),
    [
        ("paying", "retry", {}, commands.Refused),
        ("paying", "answer", {"value": GOOD}, commands.Refused),
        ("asking", "approve", {}, commands.Refused),
        ("stumbling", "approve", {}, commands.Refused),
        ("guessing", "delete", {}, commands.Refused),
        ("guessing", "retry", {}, commands.Refused),
        ("guessing", "take_over", {"value": GOOD}, commands.Refused),
        ("guessing", "skip", {}, commands.Refused),
        ("guessing", "send_back", {}, commands.Refused),
        ("guessing", "reject", {"reason": "No.", "tag": "because"}, commands.Refused),
        ("paying", "approve", {}, commands.Refused),
        ("paying", "take_over", {"value": "by hand"}, commands.Refused),
        ("paying", "edit", {"value": {"amount": 3, "ledger": ""}}, commands.Refused),
        ("paying", "take_over", {"value": 7, "reason": "Urgent."}, ValidationError),
        ("stumbling", "edit", {"value": "carried"}, commands.Refused),
        ("guessing", "approve", {"seen": "0" * 64}, decisions.Stale),
        ("guessing", "approve", {"seen": ""}, decisions.Stale),
        ("guessing", "reject", {}, commands.Refused),
        ("guessing", "reject", {"reason": " \n"}, commands.Refused),
        ("guessing", "reject", {"reason": "a\x00b"}, Unstorable),
        ("guessing", "reject", {"reason": "x" * 10_000_001}, Unstorable),
        ("guessing", "edit", {"value": {"colour": "blue", "amount": 1}}, ValidationError),
        ("guessing", "edit", {"value": None}, ValidationError),
        ("paying", "edit", {"value": {"amount": 1, "to": "me"}, "reason": "Less."}, ValidationError),
        ("paying", "edit", {"value": {"amount": float("nan")}, "reason": "Less."}, Unstorable),
        ("asking", "answer", {"value": {}}, ValidationError),
        ("guessing", "approve", {"by": "outsider"}, PermissionDenied),
    ],
)
@pytest.mark.django_db
def test_a_refusal_changes_nothing(
    people: dict[str, User], slug: str, kind: str, more: dict[str, Any], refusal: type[Exception]
) -> None:
    review = failed() if slug == "stumbling" else opened(slug)
    before = event_log.facts(review.run_id)
    with pytest.raises(refusal):
        decide(review, kind, **more)
    review.refresh_from_db()
    assert review.is_open
    assert not Decision.objects.exists()
    assert event_log.facts(review.run_id) == before


@pytest.mark.django_db
def test_nobody_decides_what_is_not_there() -> None:
    cast.people()
    with pytest.raises(Review.DoesNotExist):
        decisions.decide(987654321, actor=User.objects.get(username="reviewer"), kind="approve", seen="")
    assert not access.may_decide(AnonymousUser())


@pytest.mark.django_db
def test_a_decision_after_a_decision_is_a_conflict_that_names_the_first(people: dict[str, User]) -> None:
    review = opened("guessing")
    decide(review, "approve", by="reviewer2")
    with pytest.raises(decisions.Conflict) as conflict:
        decide(review, "reject", reason="No.")
    assert str(conflict.value.review.decision) == "Approved by reviewer2"
    assert len(decided_events(review)) == 1


@pytest.mark.django_db
def test_a_decision_after_a_cancel_is_a_conflict(people: dict[str, User]) -> None:
    review = opened("guessing")
    commands.cancel(review.run_id, by="operator")
    with pytest.raises(decisions.Conflict) as conflict:
        decide(review, "approve")
    assert conflict.value.review.state == "cancelled"


@pytest.mark.django_db
def test_a_claim_of_somebody_else_is_courtesy_and_ends_with_the_decision(people: dict[str, User]) -> None:
    review = opened("guessing")
    assert claims.claim(review.pk, people["reviewer2"])
    decide(review, "approve")
    assert Review.objects.get(pk=review.pk).held() is None


# --- at the same instant --------------------------------------------------------------------------------------------


def at_once(*acts: Any) -> list[Any]:
    """Start each in a thread of its own with a connection of its own; what each returned or raised."""
    barrier, results = threading.Barrier(len(acts)), [None] * len(acts)

    def carry_out(place: int) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=10)
            results[place] = acts[place]()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=carry_out, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return results


@pytest.mark.django_db(transaction=True)
def test_of_two_reviewers_at_once_one_wins_and_the_other_is_told() -> None:
    cast.people()
    for _ in range(5):
        review = opened("guessing")
        results = at_once(
            lambda review=review: decide(review, "approve", by="reviewer"),
            lambda review=review: decide(review, "edit", by="reviewer2", value=GOOD),
        )
        won = [result for result in results if isinstance(result, Decision)]
        lost = [result for result in results if isinstance(result, decisions.Conflict)]
        assert (len(won), len(lost)) == (1, 1), results
        assert lost[0].review.decision == won[0]
        assert len(decided_events(review)) == 1
        assert finished(review).output == {"said": "red 5" if won[0].kind == "approve" else "green 12.5"}


@pytest.mark.django_db(transaction=True)
def test_a_decision_and_a_cancel_at_once_do_not_lock_each_other_out() -> None:
    cast.people()
    for _ in range(5):
        review = opened("guessing")
        decided, cancelled = at_once(
            lambda review=review: decide(review, "approve"), lambda review=review: commands.cancel(review.run_id, by="operator")
        )
        assert cancelled is None
        assert isinstance(decided, Decision | decisions.Conflict), decided
        review.refresh_from_db()
        assert review.state == ("decided" if isinstance(decided, Decision) else "cancelled")
        assert finished(review).status == "cancelled"


# --- an edit that changes nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slug", "more"), [("guessing", {}), ("paying", {"reason": "It is owed."})])
def test_an_edit_that_changes_nothing_is_none(people: dict[str, User], slug: str, more: dict[str, str]) -> None:
    review = opened(slug)
    with pytest.raises(decisions.Unchanged, match="approve it instead"):
        decide(review, "edit", value=review.proposal, **more)
    review.refresh_from_db()
    assert (review.is_open, Decision.objects.count(), decided_events(review)) == (True, 0, [])
    decide(review, "approve", **more)
    assert decided_events(review)[0]["decision"] == "approve"


def test_of_a_sample_that_is_not_corrected_it_is_said_that_it_was_right(people: dict[str, User]) -> None:
    review = opened("guessing")
    Review.objects.filter(pk=review.pk).update(cause="sample")
    with pytest.raises(decisions.Unchanged, match="say that it was right"):
        decide(review, "edit", value=review.proposal)


def test_the_page_says_beside_the_form_that_nothing_is_changed(people: dict[str, User]) -> None:
    review, client = opened("guessing"), Client()
    client.force_login(people["reviewer"])
    typed = {f"value.{name}": str(value) for name, value in review.proposal.items()}
    told = {"decision": "edit", "seen": review.fingerprint}
    answer = client.post(reverse("decide_review", args=[review.pk]), told | typed)
    form = answer.content.decode().partition('id="choice-edit"')[2].partition("</details>")[0]
    assert (answer.status_code, Decision.objects.count()) == (422, 0)
    assert "Nothing is changed, so this is no edit: approve it instead, or change something." in form
    assert client.post(reverse("decide_review", args=[review.pk]), told | typed | {"value.amount": "7"}).status_code == 302
