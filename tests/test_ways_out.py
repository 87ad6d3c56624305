"""Reviews of a run that can only go on by another way: changed code (with or without a fork), and an unknown outcome."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from reviews.models import Review
from runs import audit, commands, event_log, sdk
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import agents
from tests.test_fork import carried, client, decided, on, only_known_agents, registered

__all__ = ["client", "only_known_agents"]
pytestmark = pytest.mark.django_db


# --- a review that ends the run, with or without a fork ----------------------------------------------------------------


def waiting_at_changed_code(monkeypatch: pytest.MonkeyPatch) -> Review:
    """A run whose third step is no longer what the code asks for."""
    registered("changing", counting_and_asking("third"))
    run = carried("changing")
    registered("changing", counting_and_asking("other"))
    commands.cancel(run.pk, by="operator")
    commands.retry(run.pk, by="operator")
    assert on(run).status == "waiting"
    return Review.objects.open().get(run=run)


def counting_and_asking(name: str) -> Any:
    def supervisor(run: Any, order: Any) -> Any:
        total = sum(run.step(f"count_{step}", agents.count, number=step) for step in (1, 2))
        return agents.Answer(said=run.step(name, sdk.ask_human(agents.Choice), question=f"{total}?").colour)

    return supervisor


def post(client: Client, review: Review, decision: str, **typed: Any) -> Any:
    sent = {"decision": decision, "seen": review.fingerprint} | typed
    return client.post(f"/reviews/{review.pk}/decision/", sent)


def test_changed_code_can_be_forked_from_its_review(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    review = waiting_at_changed_code(monkeypatch)
    page = client.get(review.get_absolute_url()).text
    assert "step 3 was `third`, the code now asks for `other`" in page
    assert "A new run takes over steps 1 and 2 as recorded, and executes step 3 and all after it" in page
    assert post(client, review, "fork").status_code == 302
    forked, run = Run.objects.get(forked_from=review.run_id), Run.objects.get(pk=review.run_id)
    assert (forked.forked_step, run.status) == (3, "cancelled")
    review.refresh_from_db()
    assert (review.state, review.decision.kind) == ("decided", "fork")
    assert on(forked).status == "waiting"
    assert forked.steps.get(position=3).name == "other"
    assert f"Run {forked.pk}, which goes on" in client.get(review.get_absolute_url()).text
    for one in (run, forked):
        assert audit.first_wrong(one.pk) == ""


def test_changed_code_can_end_the_run(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    review = waiting_at_changed_code(monkeypatch)
    assert post(client, review, "reject").status_code == 400
    assert post(client, review, "cancel", reason="no longer wanted").status_code == 302
    run = Run.objects.get(pk=review.run_id)
    assert (run.status, Run.objects.count()) == ("cancelled", 1)
    assert [step.status for step in run.steps.all()] == ["succeeded", "succeeded", "cancelled"]


# --- an effect of which nobody knows whether it happened ---------------------------------------------------------------


def of_unknown_outcome(ledger: Path) -> Review:
    run = carried("paying", number=5, ledger=str(ledger))
    review = Review.objects.open().get(run=run)
    commands.decide(run.pk, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
    Review.objects.filter(pk=review.pk).update(state="decided")
    log, opening = event_log.take(run.pk, owner="killed")  # type: ignore[misc]
    log.append(opening, Draft(Kind.ATTEMPT_STARTED, {"attempt": 1, "remark": ""}, 1))
    Run.objects.filter(pk=run.pk).update(lease_until=run.created_at)
    on(run)
    return Review.objects.open().get(run=run)


@pytest.mark.parametrize(
    ("decision", "typed", "said", "paid"),
    [
        ("happened", {"value": "paid by hand", "reason": "The bank says so."}, "paid by hand", 0),
        ("not_happened", {"reason": "the bank has no such entry"}, "not paid: the bank has no such entry", 0),
        ("retry", {"twice": "on", "reason": "The bank knows nothing of it."}, "paid 5.0", 1),
    ],
)
def test_an_unknown_outcome_has_three_answers(
    client: Client, people: dict[str, User], tmp_path: Path, decision: str, typed: dict[str, str], said: str, paid: int
) -> None:
    ledger = tmp_path / "ledger"
    client.force_login(people["reviewer"])  # not who started it: the risk is high
    review = of_unknown_outcome(ledger)
    assert (review.cause, review.allowed) == ("outcome_unknown", ["happened", "not_happened", "retry"])
    page = client.get(review.get_absolute_url()).text
    assert "“Pay” is carried out once more. If it did happen, it will have happened twice." in page
    assert post(client, review, decision, **typed).status_code == 302
    run = on(review.run)
    assert (run.status, run.output) == ("succeeded", {"said": said})
    assert len(ledger.read_text().splitlines() if ledger.exists() else []) == paid
    assert client.get(f"/runs/{run.pk}/").status_code == client.get(review.get_absolute_url()).status_code == 200


def test_it_is_not_carried_out_again_without_the_confirmation(client: Client, people: dict[str, User], tmp_path: Path) -> None:
    client.force_login(people["reviewer"])
    review = of_unknown_outcome(tmp_path / "ledger")
    refused = post(client, review, "retry")
    assert refused.status_code == 422
    assert "Confirm it, or choose another decision." in refused.text
    assert [post(client, review, kind).status_code for kind in ("edit", "approve", "reject")] == [400] * 3
    review.refresh_from_db()
    assert review.is_open


def test_a_supervisor_that_does_not_go_another_way_fails_with_what_the_person_said(tmp_path: Path) -> None:
    def supervisor(run: Any, order: Any) -> Any:
        return agents.Answer(said=run.step("pay", agents.stumble_once, text=order.text))

    registered("paying-plainly", supervisor)
    agents.FAILURES["hello"] = [TimeoutError("no answer")]
    run = carried("paying-plainly")
    assert Review.objects.get(run=run).cause == "outcome_unknown"
    run = decided(run, "not_happened")
    assert (run.status, run.error["message"]) == ("failed", "reviewer says that it did not happen: because")
    assert json.dumps(run.error).count("rejected it") == 0
