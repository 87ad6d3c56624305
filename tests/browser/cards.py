"""One review of each kind, as runs open them."""

from django.utils import timezone

from reviews.models import Cause, Review
from runs import commands, event_log, executor, policies, sdk
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import agents
from tests.browser.pages import ATTACK

EDITED = {"colour": "green", "amount": 1}


def stopped(slug, text="a message", number=3):
    """The review at which a new run of the agent stops, or one about a step that it did not stop at."""
    run = commands.start(slug, {"text": text, "number": number}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.select_related("run").open().get(run=run)


def of_unknown_outcome(text="of unknown outcome"):
    """A payment whose process was killed in the middle of it."""
    review = stopped("paying", text)
    commands.decide(review.run_id, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
    Review.objects.filter(pk=review.pk).update(state="decided")
    log, opening = event_log.take(review.run_id, owner="killed")
    log.append(opening, Draft(Kind.ATTEMPT_STARTED, {"attempt": 1, "remark": ""}, 1))
    Run.objects.filter(pk=review.run_id).update(lease_until=timezone.now())
    executor.advance(review.run_id, owner="test")
    return Review.objects.open().get(run=review.run_id, cause="outcome_unknown")


def of_changed_code(text="of changed code"):
    """A question before which the code counts since it was asked."""

    def supervisor(run: sdk.Run, order: agents.Order) -> agents.Answer:
        run.step("count", agents.count, number=1)
        return agents.Answer(said="?")

    review, known = stopped("asking", text), sdk.AGENTS.pop("asking")
    try:
        sdk.agent("asking", title="Asking", version="2")(supervisor)
        commands.decide(review.run_id, 1, "answer", by="reviewer", fingerprint=review.fingerprint, value=EDITED)
        Review.objects.filter(pk=review.pk).update(state="decided")
        executor.advance(review.run_id, owner="test")
    finally:
        sdk.AGENTS["asking"] = known
    return Review.objects.open().get(run=review.run_id, cause="code_changed")


def of_a_budget():
    commands.configure("consuming", by="admin", run_money="0.20")
    return stopped("consuming", "line")


def of_a_budget_that_may_end():
    """Of a run that finishes with what there is."""
    commands.configure("careful", by="admin", run_money="0.20")
    return stopped("careful", "line")


def of_what_may_be_skipped():
    agents.FAILURES["optional"] = [sdk.AskHuman("Nobody knows")]
    return stopped("leaving-out", "optional")


def of_a_sample():
    policies.configure(by="admin", agent="guessing", sample_share=1.0)
    return stopped("guessing", "a sample", 9)


def every_card():
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    cards = {
        "gated": stopped("paying", "x" * 3000),
        "low confidence": stopped("guessing", ATTACK),
        "question": stopped("asking", "w" * 300),
        "failed": stopped("stumbling", "tired"),
        "outcome unknown": of_unknown_outcome(),
        "code changed": of_changed_code(),
        "budget": of_a_budget(),
        "sample": of_a_sample(),
        "of two": stopped("guessing", "of two"),
    }
    assert set(Review.objects.values_list("cause", flat=True)) == set(Cause.values), "each cause has a card here"
    return cards
