"""Chaos in its quick form; and that its judge notices what it is there to notice."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from agentops.chaos import faults, flood, guarded, inbox, invariants
from agentops.visitor import Answer
from reviews import decisions
from reviews.listing import Filters, Listing
from reviews.models import Review
from runs import commands, executor
from runs.models import Run

ROOT = Path(__file__).resolve().parent.parent
LONGEST_SECONDS = 90


def test_nothing_is_lost_and_nothing_happens_twice() -> None:
    command = [sys.executable, str(ROOT / "manage.py"), "chaos", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=4 * LONGEST_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["held"], result["broken"]) == (True, [])
    assert all(fault["runs"] >= 4 for fault in result["faults"])
    assert sum(fault["count"] for fault in result["faults"]) >= 16


def test_a_fault_of_the_full_form_comes_at_least_once_also_when_it_is_late() -> None:
    skipped = [fault for fault in guarded.GUARDED if fault.times[0] == 0]
    assert skipped
    assert {fault.comes(0) for fault in skipped} == {1}
    assert faults.Fault("", "", faults.pause, times=(0, 0)).comes(0) == 0


Lines = list[dict[str, Any]]


def line(run: Run, step: str, **other: Any) -> dict[str, Any]:
    key = {"run_id": run.pk, "step": step, "key": f"{run.pk}:{step}", "errand": step}
    return key | {"effect": "idempotent", "attempt": 1, "pid": 1, "at": run.created_at} | other


def sql(statement: str) -> Callable[[Run, Lines], None]:
    def plant(run: Run, ledger: Lines) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, [run.pk])

    return plant


def noted(**other: Any) -> Callable[[Run, Lines], None]:
    return lambda run, ledger: ledger.append(line(run, "count_3", **other))


def twice(run: Run, ledger: Lines) -> None:
    ledger[-1]["effect"] = "once"
    ledger.append(ledger[-1] | {"attempt": 2})


def after_another_took_it(run: Run, ledger: Lines) -> None:
    sql("""INSERT INTO runs_event (run_id, seq, kind, actor, data, at, prev_hash, hash)
           SELECT id, last_seq + 1, 'RunTakenOver', '', '{"fence": 2}', clock_timestamp(), '', '' FROM runs_run WHERE id = %s""")(
        run, ledger
    )
    ledger[-1]["at"] = run.created_at + timedelta(hours=1)


def written_by_another(run: Run, ledger: Lines) -> None:
    """Its last step gets a result again, from who no longer owns it."""
    for number, kind in enumerate(["RunTakenOver", "StepSucceeded"], start=1):
        sql(f"""INSERT INTO runs_event (run_id, seq, kind, step, actor, data, at, prev_hash, hash)
                SELECT id, last_seq + {number}, '{kind}', 3, '', '{{"fence": 2}}', clock_timestamp(), '', ''
                FROM runs_run WHERE id = %s""")(run, ledger)


PLANTED: dict[str, tuple[Callable[[Run, Lines], None], str]] = {
    "nobody advances it": (sql("UPDATE runs_run SET status = 'queued' WHERE id = %s"), "lost"),
    "a recorded step was tried again": (noted(attempt=2), "re-executed"),
    "the same effect under another key": (noted(key="0:count_3"), "duplicates"),
    "a payment was made twice": (twice, "duplicates"),
    "two processes in one tenure": (lambda run, ledger: ledger[-1].update(pid=2), "stale writes"),
    "an attempt that the log does not know": (lambda run, ledger: ledger[-1].update(attempt=7), "stale writes"),
    "a result of a process that was thought dead": (written_by_another, "stale writes"),
    "an event too few": (sql("UPDATE runs_run SET last_seq = last_seq + 1 WHERE id = %s"), "other"),
    "an ended run with an owner": (sql("UPDATE runs_run SET lease_until = now() WHERE id = %s"), "other"),
    "a waiting run without a question": (
        sql("UPDATE runs_run SET status = 'waiting', waiting_cause = 'person' WHERE id = %s"),
        "other",
    ),
    "a column that no event explains": (sql("UPDATE runs_run SET output = '1' WHERE id = %s"), "other"),
}


@pytest.fixture
def counted(db: None) -> tuple[Run, Lines]:
    """A run of three steps that has ended, and its ledger."""
    run = commands.start("counting", {"text": "hello", "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return run, [line(run, f"count_{number}") for number in (1, 2, 3)]


def test_the_judge_finds_nothing_wrong_with_a_run_that_went_well(counted: tuple[Run, Lines]) -> None:
    assert invariants.broken(counted[1]) == []


def test_the_judge_counts_effects_of_a_process_that_no_longer_owns_the_run(counted: tuple[Run, Lines]) -> None:
    invariants.broken(counted[1])
    assert invariants.late_effects() == []
    after_another_took_it(*counted)
    invariants.broken(counted[1])
    assert invariants.late_effects() == [(counted[0].pk, 1)]


@pytest.mark.parametrize("what", PLANTED)
def test_the_judge_notices(what: str, counted: tuple[Run, Lines]) -> None:
    plant, column = PLANTED[what]
    plant(*counted)
    found = invariants.broken(counted[1])
    assert column in {invariant.column for invariant, _ in found}
    assert all(run_ids for _, run_ids in found)


# --- the inbox ------------------------------------------------------------------------------------------------------


@pytest.fixture
def decided(people: dict[str, User]) -> Review:
    """A review that the first reviewer has approved."""
    run = commands.start("paying", {"text": "rent", "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    review = Review.objects.get(run=run)
    decisions.decide(review.pk, actor=people["reviewer"], kind="reject", seen=review.fingerprint, reason="no")
    return review


def conflict(review: Review) -> Answer:
    decision = Review.objects.get(pk=review.pk).decision
    assert decision
    return Answer(409, f"{decision.actor} was first, at {decision.decided_at:%Y-%m-%d %H:%M:%S}", "")


WON = Answer(302, "", "/reviews/")
INBOX_PLANTED: dict[str, Callable[[Answer], list[Answer]]] = {
    "two have won": lambda told: [WON, WON],
    "nobody has won": lambda told: [told, told],
    "who lost is not told who was first": lambda told: [WON, told._replace(body="too late")],
}


def world_of(phase: str) -> SimpleNamespace:
    return SimpleNamespace(people=SimpleNamespace(phase=phase), broken=[])


@pytest.mark.parametrize("what", INBOX_PLANTED)
def test_the_judge_of_the_inbox_notices(what: str, decided: Review) -> None:
    good, bad = world_of("good"), world_of("bad")
    inbox._one_has_won(good, decided, [WON, conflict(decided)])
    inbox._one_has_won(bad, decided, INBOX_PLANTED[what](conflict(decided)))
    assert (good.broken, len(bad.broken)) == ([], 1)


def test_the_judge_of_the_inbox_compares_what_a_person_was_told_with_the_rows(decided: Review) -> None:
    good, bad = world_of("good"), world_of("bad")
    assert inbox._they_agree(good, decided, WON, "cancel") is True
    inbox._they_agree(bad, decided, conflict(decided), "cancel")
    Review.objects.filter(pk=decided.pk).update(state="open")
    inbox._they_agree(bad, decided, WON, "cancel")
    assert (good.broken, len(bad.broken)) == ([], 4)


def test_the_judge_of_a_flood_notices_what_people_would_drown_in(decided: Review) -> None:
    bad = world_of("bad")
    bad.figures, bad.quick = {}, False
    flood._people_see_little_of_it(bad, decided.run, Listing(Filters()), critical=decided.run_id)
    assert len(bad.broken) == 3, "as many as the cap, in one row, and the critical one among the first"
    flood._others_wait_no_longer(bad, [0.1], [0.2])
    assert len(bad.broken) == 3
    flood._others_wait_no_longer(bad, [0.1], [5.0])
    assert bad.broken[-1].endswith("others came to their questions within 5.0 s, and within 0.1 s before the flood.")
