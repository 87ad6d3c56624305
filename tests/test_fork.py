"""A fork: which steps it takes over, what it executes itself, what is refused, and its page."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pydantic import ValidationError

from reviews.models import Review
from runs import audit, commands, event_log, executor, sdk, timeline
from runs.engine.events import Draft, Kind
from runs.engine.state import copied
from runs.models import Run
from tests import agents

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_known_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))


def started(slug: str, **given: Any) -> Run:
    return commands.start(slug, {"text": "hello"} | given, by="operator")


def on(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def carried(slug: str, **given: Any) -> Run:
    return on(started(slug, **given))


def fork(run: Run, step: int, **more: Any) -> Run:
    return commands.fork(run.pk, step=step, by="operator", **more)


def decided(run: Run, decision: str, value: Any = None) -> Run:
    review = Review.objects.open().get(run=run)
    commands.decide(
        run.pk, review.position, decision, by="reviewer", fingerprint=review.fingerprint, value=value, reason="because"
    )
    Review.objects.filter(pk=review.pk).update(state="decided")
    return on(run)


def told(run: Run) -> list[str]:
    return [line.sentence for line in timeline.log(run.pk, after=0, most=100)]


def effects(ledger: Path) -> Counter[str]:
    """Idempotency key -> how often it reached the outside."""
    return Counter(line.split()[0] for line in ledger.read_text().splitlines())


# --- what it takes over and what it executes -------------------------------------------------------------------------


def test_recorded_steps_are_taken_over_and_the_others_executed_under_keys_of_the_fork(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    original = carried("counting", number=4, ledger=str(ledger))
    facts = event_log.facts(original.pk)
    forked = fork(original, 3)
    assert (forked.forked_from_id, forked.forked_step, forked.status) == (original.pk, 3, "queued")
    forked = on(forked)
    assert (forked.status, forked.output) == ("succeeded", {"said": "4"})
    keys = [f"{run}:count_{step}" for run, steps in ((original.pk, (1, 2, 3, 4)), (forked.pk, (3, 4))) for step in steps]
    assert effects(ledger) == Counter(keys)
    assert event_log.facts(original.pk) == facts
    assert audit.first_wrong(forked.pk) == ""
    assert f"operator forked run {original.pk} from step 3, as a run of counting, version 1." in told(forked)
    assert f"Step 2 (Count) was taken over from run {original.pk} as it was recorded." in told(forked)


@pytest.mark.parametrize("state", ["queued", "waiting", "succeeded", "failed", "cancelled", "running"])
def test_an_original_of_any_status_is_forked_and_stays_as_it_is(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = started("paying") if state == "queued" else carried("paying", number=5)
    if state == "succeeded":
        original = decided(original, "approve")
    if state == "failed":
        original = decided(carried("guessing"), "reject")
    if state == "cancelled":
        commands.cancel(original.pk, by="operator")
    if state == "running":
        review = Review.objects.open().get(run=original)
        commands.decide(original.pk, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
        log, opening = event_log.take(original.pk, owner="another")  # type: ignore[misc]
        log.append(opening)
    original.refresh_from_db()
    assert original.status == state
    before = event_log.facts(original.pk)
    if state == "queued":
        with pytest.raises(commands.Refused, match="There is no step 1 to fork from"):
            fork(original, 1)
    else:
        assert on(fork(original, 1)).status == "waiting"
    assert event_log.facts(original.pk) == before


def test_a_step_keeps_all_that_was_recorded_of_it() -> None:
    """A decision, a rejection and a payload that stands beside the log."""

    def supervisor(run: Any, order: Any) -> Any:
        big = run.step("big", agents.repeat, text="x", times=100_000)
        choice = run.step("guess", agents.guess, text=order.text, confidence=0.0)
        try:
            run.step("pay", agents.pay.gated("ask"), amount=1.0)
        except sdk.Rejected:
            return agents.Answer(said=f"{len(big)} {choice.colour} {run.step('count', agents.count, number=1)}")

    registered("keeping", supervisor)
    original = decided(decided(carried("keeping"), "edit", {"colour": "green", "amount": 7}), "reject")
    forked = on(fork(original, 4))
    assert (forked.output, original.output) == ({"said": "100000 green 2"},) * 2
    ours, theirs = (event_log.RunLog.load(run.pk).state.steps for run in (forked, original))
    for position in (1, 2, 3):
        mine, other = (copied(steps[position]) for steps in (ours, theirs))
        assert mine == other
    assert (ours[2].decision, ours[2].confidence, ours[3].status, ours[3].reason) == ("edit", 0, "rejected", "because")
    assert audit.first_wrong(forked.pk) == ""
    again = on(fork(forked, 4))  # a fork of a fork
    assert (again.output, again.forked_from_id) == (forked.output, forked.pk)


def registered(slug: str, supervisor: Any) -> None:
    supervisor.__annotations__ = {"run": sdk.Run, "order": agents.Order, "return": agents.Answer}
    sdk.AGENTS.pop(slug, None)
    sdk.agent(slug, title=slug.capitalize(), version="1")(supervisor)


def test_many_steps_are_taken_over_in_one_transaction_of_several_statements() -> None:
    original = started("counting", number=0)
    log, opening = event_log.take(original.pk, owner="another")  # type: ignore[misc]
    request = {"worker": "agents.count", "title": "Count", "fingerprint": "", "input": {}, "effect": "none", "attempt": 1}
    log.append(opening, *(start_of(position, request) for position in range(1, 252)))
    log.append(*(Draft(Kind.STEP_SUCCEEDED, {"output": position}, position) for position in range(1, 251)))
    forked = fork(original, 251)
    copies = [fact.data["output"] for fact in event_log.facts(forked.pk) if fact.kind == Kind.STEP_COPIED]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT xmin::text, cmin::text::int, count(*) FROM runs_event WHERE run_id = %s GROUP BY 1, 2", [forked.pk]
        )
        transactions, _, statements = zip(*sorted(cursor.fetchall(), key=lambda row: row[1]), strict=True)
    assert (copies, len(set(transactions)), statements) == (list(range(1, 251)), 1, (1, 100, 100, 50))
    assert audit.first_wrong(forked.pk) == ""


def test_an_empty_input_and_an_empty_output_are_taken_over() -> None:
    @sdk.worker
    def nothing() -> dict[str, int]:
        return {}

    def supervisor(run: Any, order: Any) -> Any:
        return agents.Answer(said=f"{run.step('nothing', nothing)} {run.step('count', agents.count, number=1)}")

    registered("emptying", supervisor)
    original = carried("emptying")
    assert on(fork(original, 2)).output == original.output == {"said": "{} 2"}


def test_another_input_is_given_to_the_step_and_said() -> None:
    original = carried("counting", number=3)
    forked = on(fork(original, 2, input={"number": 40}))
    assert forked.output == {"said": "42"}
    (step,) = timeline.steps_of(forked.pk, forked.steps.filter(position=2))
    assert step.input == {"number": 40, "ledger": "", "seconds": 0}
    assert "That step gets another input, given by operator." in told(forked)[0]


def test_another_input_of_a_gated_step_is_what_the_person_is_asked_about() -> None:
    forked = on(fork(carried("paying", number=5), 1, input={"amount": 9}))
    assert Review.objects.open().get(run=forked).proposal == {"amount": 9, "ledger": ""}
    assert decided(forked, "approve").output == {"said": "paid 9.0"}


def test_an_input_for_a_worker_that_the_code_no_longer_asks_for_fails_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    forked = fork(carried("counting", number=2), 1, input={"number": 40})

    def other(run: Any, order: Any) -> Any:
        run.step("pay", pay, amount=1.0)  # type: ignore[name-defined]  # noqa: F821

    monkeypatch.setattr(sdk.AGENTS["counting"].function, "__code__", other.__code__)
    said = "The input given for step 1 is for agents.count, but the code now asks for agents.pay."
    assert on(forked).error["message"] == said


def test_the_configuration_is_the_recorded_one_or_the_one_in_force() -> None:
    original = carried("guessing", number=3)
    commands.configure("guessing", by="admin", threshold=0.1)
    assert on(fork(original, 1)).status == "waiting"
    current = on(fork(original, 1, config="current"))
    assert (current.status, current.config_version) == ("succeeded", 2)


def test_a_secret_is_taken_from_the_supervisor_and_never_from_a_form(client: Client) -> None:
    seen = []

    @sdk.worker(masked=("card",))
    def freeze(card: str, day: int = 1) -> str:
        seen.append((card, day))
        return "frozen"

    def supervisor(run: Any, order: Any) -> Any:
        return agents.Answer(said=run.step("freeze", freeze, card="4111 1111"))

    registered("freezing", supervisor)
    run = carried("freezing")
    with pytest.raises(ValidationError, match="card is never recorded"):
        fork(run, 1, input={"card": "4222 2222", "day": 2})
    sent = {"config": "recorded", "own_input": "on", "value.card": "4222 2222", "value.day": "2"}
    refused = client.post(f"/runs/{run.pk}/steps/1/fork/", sent)
    assert refused.status_code == 422
    assert "card is never recorded, so it cannot be given here." in refused.text
    assert client.post(f"/runs/{run.pk}/steps/1/fork/", sent | {"value.card": "•••"}).status_code == 302
    on(Run.objects.get(forked_from=run))
    assert seen == [("4111 1111", 1), ("4111 1111", 2)]


# --- what is refused, and leaves nothing behind -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "more", "error", "words"),
    [
        (0, {}, commands.Refused, "no step 0"),
        (3, {}, commands.Refused, "no step 3 to fork from; the run has 2"),
        (1, {"input": {"number": "many"}}, ValidationError, "number"),
        (1, {"input": {"other": 1}}, ValidationError, "other"),
    ],
)
def test_what_is_refused_starts_nothing(step: int, more: dict[str, Any], error: type[Exception], words: str) -> None:
    original = carried("counting", number=2)
    with pytest.raises(error, match=words):
        fork(original, step, **more)
    assert Run.objects.count() == 1


def test_a_step_before_it_that_has_not_ended_is_named() -> None:
    def supervisor(run: Any, order: Any) -> Any:
        run.step("one", agents.count, number=1)
        raise KeyError

    registered("unended", supervisor)
    run = started("unended")
    log, opening = event_log.take(run.pk, owner="another")  # type: ignore[misc]
    request = {"worker": "agents.count", "title": "Count", "fingerprint": "", "input": {}, "effect": "none", "attempt": 1}
    log.append(opening, *(start_of(position, request) for position in (1, 2)))
    with pytest.raises(commands.Refused, match=r"Step 1 \(Count\) has not ended"):
        fork(run, 2)


def start_of(position: int, request: dict[str, Any]) -> Draft:
    return Draft(Kind.STEP_STARTED, request | {"name": f"step_{position}"}, position)


def test_an_agent_that_is_disabled_or_no_longer_takes_the_input_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    original = carried("counting", number=2)
    commands.configure("counting", by="admin", enabled=False)
    with pytest.raises(commands.Refused, match="is disabled"):
        fork(original, 2)
    commands.configure("counting", by="admin", enabled=True)
    monkeypatch.setitem(sdk.AGENTS, "counting", replace(sdk.AGENTS["counting"], input_model=agents.Choice))
    with pytest.raises(commands.Refused, match=r"The input of run \d+ does not fit the agent .*: colour: Field required"):
        fork(original, 2)
    with pytest.raises(Run.DoesNotExist):
        commands.fork(987654, step=1, by="operator")


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    browser = Client()
    browser.force_login(people["operator"])
    return browser


def test_the_page_says_what_will_happen_and_leads_to_the_fork(client: Client) -> None:
    run = carried("counting", number=3)
    address = f"/runs/{run.pk}/steps/2/fork/"
    assert f'href="{address}"' in client.get(f"/runs/{run.pk}/").text
    page = client.get(address).text
    assert "It takes over step 1 as recorded. Step 2 (Count) and all after it are executed again, by version 1" in page
    assert "<li>step 2 (Count)</li>" in page
    assert 'name="value.number" value="1"' in page
    sent = {"config": "recorded", "value.number": "1", "value.ledger": "", "value.seconds": "0.0"}
    forked = Run.objects.get(forked_from=run) if client.post(address, sent).status_code == 302 else None
    assert forked is not None
    assert "override" not in event_log.facts(forked.pk)[0].data
    assert f'<a href="/runs/{run.pk}/">run {run.pk}</a>, at step 2' in client.get(f"/runs/{forked.pk}/").text
    assert "Input, given by" not in client.get(f"/runs/{forked.pk}/").text
    assert f"From run {run.pk}</span>" in client.get(f"/runs/{forked.pk}/").text
    assert f'<a href="/runs/{forked.pk}/">run {forked.pk}</a> from step 2' in client.get(f"/runs/{run.pk}/").text
    assert client.get("/runs/", {"original": run.pk}).context["page"].rows == [forked]


def test_another_input_is_typed_chosen_and_checked_and_nothing_is_lost(client: Client) -> None:
    run = carried("counting", number=3)
    address, typed = f"/runs/{run.pk}/steps/2/fork/", {"config": "recorded", "value.ledger": "", "value.seconds": "0"}
    wrong = client.post(address, typed | {"own_input": "on", "value.number": "many"})
    assert (wrong.status_code, Run.objects.count()) == (422, 1)
    assert "Enter a whole number." in wrong.text
    assert 'value="many"' in wrong.text
    slip = client.post(address, typed | {"value.number": "40"})
    assert (slip.status_code, Run.objects.count()) == (422, 1)
    assert "You changed the input below. Tick this" in slip.text
    assert client.post(address, typed | {"own_input": "on", "value.number": "40"}).status_code == 302
    forked = on(Run.objects.get(forked_from=run))
    assert event_log.facts(forked.pk)[0].data["override"]["input"]["number"] == 40
    assert client.get(f"/runs/{forked.pk}/").text.count("Input, given by operator") == 1


def test_the_page_offers_the_configuration_where_it_changed_and_says_why_it_cannot_be_forked(client: Client) -> None:
    run = carried("guessing", number=9)
    address = f"/runs/{run.pk}/steps/1/fork/"
    assert 'type="radio"' not in client.get(address).text
    commands.configure("guessing", by="admin", threshold=0.95)
    page = client.get(address).text
    assert "As it is now: version 2, threshold 0.95, 3 attempts" in page
    sent = {"config": "current", "value.text": "hello", "value.confidence": "0.9"}
    assert client.post(address, sent).status_code == 302
    assert Run.objects.get(forked_from=run).config_version == 2
    commands.configure("guessing", by="admin", enabled=False)
    refused = client.post(address, sent)
    assert refused.status_code == 409
    assert "an admin can enable it" in refused.text
    assert client.get(f"/runs/{run.pk}/steps/7/fork/").status_code == 404


@pytest.mark.parametrize(("name", "status"), [("operator", 200), ("reviewer", 403), ("outsider", 403)])
def test_only_who_may_control_runs_may_fork(people: dict[str, User], name: str, status: int) -> None:
    run, browser = carried("counting", number=1), Client()
    browser.force_login(people[name])
    assert browser.get(f"/runs/{run.pk}/steps/1/fork/").status_code == status
    if status == 403:
        assert browser.post(f"/runs/{run.pk}/steps/1/fork/", {"config": "recorded"}).status_code == 403
        assert Run.objects.count() == 1
