"""A fork: which steps it takes over, what it executes itself, and what is said, refused and shown."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reviews.models import Review
from runs import commands, event_log, executor, timeline
from runs.models import Run

pytestmark = pytest.mark.django_db


def carried(slug: str, **given: Any) -> Run:
    run = commands.start(slug, {"text": "hello"} | given, by="operator")
    return on(run)


def on(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def decided(run: Run, decision: str, value: Any = None) -> Run:
    review = Review.objects.open().get(run=run)
    commands.decide(
        run.pk, review.position, decision, by="reviewer", fingerprint=review.fingerprint, value=value, reason="because"
    )
    review.delete()
    return on(run)


def said(run: Run) -> list[str]:
    return [line.sentence for line in timeline.log(run.pk, after=0, most=100)]


def effects(ledger: Path) -> Counter[str]:
    """Idempotency key -> how often it reached the outside."""
    return Counter(line.split()[0] for line in ledger.read_text().splitlines())


def test_the_recorded_steps_are_taken_over_and_the_others_executed_again(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    original = carried("counting", number=4, ledger=str(ledger))
    facts = event_log.facts(original.pk)
    fork = commands.fork(original.pk, step=3, by="operator")
    assert (fork.forked_from_id, fork.forked_step, fork.status) == (original.pk, 3, "queued")
    fork = on(fork)
    assert (fork.status, fork.output) == ("succeeded", {"said": "4"})
    keys = [f"{run}:count_{step}" for run, steps in ((original.pk, (1, 2, 3, 4)), (fork.pk, (3, 4))) for step in steps]
    assert effects(ledger) == Counter(keys)
    assert event_log.facts(original.pk) == facts
    assert event_log.first_wrong(fork.pk) == ""
    assert list(original.forks.all()) == [fork]


def test_a_step_keeps_all_that_was_recorded_of_it() -> None:
    run = decided(carried("guessing", number=3), "edit", {"colour": "green", "amount": 7})
    again = commands.fork(run.pk, step=1, by="operator")
    assert event_log.RunLog.load(again.pk).state.steps == {}
