"""Code that changed under a run: each change stops it at exactly the step where it shows, and is named."""

from typing import Any

import pytest

from reviews.models import Review
from runs import audit, commands, executor, sdk
from runs.engine import divergence
from runs.engine.canonical import digest
from runs.engine.state import StepState
from runs.models import Run
from tests import agents


def step(position: int, name: str, given: Any, *, worker: str = "bank.find") -> StepState:
    return StepState(position, name, worker, "Find", digest(name, worker, given), given)


RECORDED = {
    1: step(1, "classify", {"text": "x"}),
    2: step(2, "look_up", {"account": 7, "day": "Monday", "limit": 5}),
    3: step(3, "reply", {"to": 7}),
}
SAME = {"name": "look_up", "worker": "bank.find", "input": RECORDED[2].input}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (None, "step 2 was `look_up`, the code now ends before it."),
        (
            SAME | {"name": "fetch"},
            "step 2 was `look_up`, the code now asks for `fetch`, by the same worker with the same input.",
        ),
        (SAME | {"name": "fetch", "worker": "bank.fetch"}, "step 2 was `look_up`, the code now asks for `fetch`."),
        (SAME | {"name": "reply"}, "step 2 was `look_up`, the code now asks for `reply`, which was step 3."),
        (
            SAME | {"worker": "bank.fetch"},
            "step 2 was `look_up` by bank.find, the code now asks for `look_up` by bank.fetch.",
        ),
        (
            SAME | {"input": {"account": 8, "day": "Monday", "limit": 5}},
            "step 2 was `look_up`, the code now asks for it with another input (account).",
        ),
        (
            SAME | {"input": {"account": 8, "day": "Monday", "most": 5}},
            "step 2 was `look_up`, the code now asks for it with another input (account, limit, most).",
        ),
        (
            SAME | {"input": dict.fromkeys("abcd", 1)},
            "step 2 was `look_up`, the code now asks for it with another input (a, account, b, c, d and 2 more).",
        ),
    ],
)
def test_a_change_is_named(asked: dict[str, Any] | None, sentence: str) -> None:
    assert divergence.told(RECORDED[2], asked, RECORDED) == sentence


def test_fields_that_a_person_edited_or_that_were_masked_are_not_named() -> None:
    edited = StepState(2, "look_up", "bank.find", "Find", RECORDED[2].fingerprint, {"account": 9})
    told = divergence.told(edited, SAME | {"input": {"account": 8}}, RECORDED)
    assert told == "step 2 was `look_up`, the code now asks for it with another input."


# --- on a run ---------------------------------------------------------------------------------------------------------

BEFORE = ["one", "two", "three"]


def doing(names: list[str], *, number: int = 0) -> Any:
    """A supervisor that counts under these names and then asks a person."""

    def supervisor(run: sdk.Run, order: agents.Order) -> agents.Answer:
        for name in names:
            run.step(name, agents.count, number=number if name == "two" else 0)
        return agents.Answer(said=run.step("ask", sdk.ask_human(agents.Choice), question="?").colour)

    return supervisor


@pytest.mark.parametrize(
    ("now", "number", "stops_at", "words"),
    [
        (["one", "second", "three"], 0, 2, "step 2 was `two`, the code now asks for `second`, by the same worker"),
        (["one", "three", "two"], 0, 2, "step 2 was `two`, the code now asks for `three`, which was step 3"),
        (["one", "two"], 0, 3, "step 3 was `three`, the code now asks for `ask`, which was step 4"),
        (["zero", "one", "two", "three"], 0, 1, "step 1 was `one`, the code now asks for `zero`, by the same worker"),
        (["one", "two", "three"], 5, 2, "step 2 was `two`, the code now asks for it with another input (number)"),
    ],
    ids=["renamed", "reordered", "removed", "added before", "other input"],
)
@pytest.mark.django_db
def test_a_run_stops_at_the_step_that_changed_and_a_fork_goes_on_from_it(
    monkeypatch: pytest.MonkeyPatch, now: list[str], number: int, stops_at: int, words: str
) -> None:
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    sdk.agent("changing", title="Changing", version="1")(doing(BEFORE))
    run = commands.start("changing", {"text": "x"}, by="operator")
    executor.advance(run.pk, owner="test")
    del sdk.AGENTS["changing"]
    sdk.agent("changing", title="Changing", version="2")(doing(now, number=number))
    review = Review.objects.open().get(run=run)
    commands.decide(run.pk, 4, "answer", by="reviewer", fingerprint=review.fingerprint, value={"colour": "red", "amount": 1})
    Review.objects.update(state="decided")
    executor.advance(run.pk, owner="test")
    review = Review.objects.open().get(run=run)
    assert (review.cause, review.position) == ("code_changed", stops_at)
    assert words in review.why
    commands.decide(run.pk, stops_at, "fork", by="reviewer", fingerprint=review.fingerprint)
    forked = Run.objects.get(forked_from=run)
    executor.advance(forked.pk, owner="test")
    names = list(forked.steps.order_by("position").values_list("name", flat=True))
    assert (names, forked.agent_version) == ([*now, "ask"], "2")
    assert audit.first_wrong(run.pk) == audit.first_wrong(forked.pk) == ""


@pytest.mark.django_db
def test_a_step_that_a_person_had_rejected_stops_the_run_as_long_as_the_code_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    sdk.agent("changing", title="Changing", version="1")(doing([]))
    run = commands.start("changing", {"text": "x"}, by="operator")
    executor.advance(run.pk, owner="test")
    review = Review.objects.open().get(run=run)
    commands.decide(run.pk, 1, "reject", by="reviewer", fingerprint=review.fingerprint, reason="no")
    Review.objects.update(state="decided")
    del sdk.AGENTS["changing"]
    sdk.agent("changing", title="Changing", version="2")(doing(BEFORE))
    for _ in range(2):
        executor.advance(run.pk, owner="test")
        review = Review.objects.open().get(run=run, cause="code_changed")
        commands.decide(run.pk, 1, "retry", by="reviewer", fingerprint=review.fingerprint)
        Review.objects.update(state="decided")
    assert audit.first_wrong(run.pk) == ""
