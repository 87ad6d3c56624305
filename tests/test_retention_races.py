"""Retention among others: killed in the middle, several at once, and somebody who wants to keep the run at that moment."""

from contextlib import suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from agentops.seeding import filling
from reviews.models import Presence, Review
from runs import clock, commands, families, holds, retention
from runs.models import Hold, Run, Tombstone
from runs.models.event import Event
from tests.interleaved import behind
from tests.processes import eventually, kill, process
from tests.test_retention import ended, prune

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("people")
def test_killed_and_taken_up_by_two_at_once_each_run_goes_once_and_every_chain_ends_in_its_tombstone(tmp_path: Path) -> None:
    filling.fill(400, days=20, seed=3, tell=lambda done, of: None)
    held = Run.objects.filter(status="succeeded").earliest("finished_at")
    holds.hold(held.pk, by="ann", reason="a lawyer asked")
    before = clock.now() - timedelta(days=1)
    *_, expected = retention.would_prune(before)
    heads = dict(Run.objects.values_list("pk", "head_hash"))
    arguments = ("prune", "--older-than", "1d", "--archive", str(tmp_path))
    with process(*arguments) as first:
        eventually(Tombstone.objects.exists)
        kill(first)
    assert 0 < Tombstone.objects.count() < expected.runs
    with process(*arguments) as one, process(*arguments) as other:
        assert [each.wait(120) for each in (one, other)] == [0, 0]
    *_, left = retention.would_prune(before)
    if left.runs:  # what each found in the other's hands
        call_command(*arguments, stdout=StringIO(), stderr=StringIO())
    tombstones = dict(Tombstone.objects.values_list("run_id", "head_hash"))
    assert len(tombstones) == expected.runs
    assert tombstones.items() <= heads.items()
    assert (
        set(heads) - set(tombstones)
        == set(Run.objects.values_list("pk", flat=True))
        == set(Event.objects.values_list("run", flat=True))
    )
    assert held.pk not in tombstones
    for also in ((), ("--archive", str(tmp_path))):
        out = StringIO()
        call_command("verify", "--processes", "1", *also, stdout=out, stderr=StringIO())
        assert "verified" in out.getvalue()


def test_what_is_in_use_or_too_slow_keeps_no_others(monkeypatch: pytest.MonkeyPatch, people: dict[str, User]) -> None:
    free, slow, looked_at = ended(), ended(), ended("guessing", number=5)
    commands.cancel(looked_at.pk, by="ann")
    monkeypatch.setattr(retention, "LIMITS", "SET LOCAL statement_timeout = '1s'; SET LOCAL lock_timeout = '200ms'")
    monkeypatch.setattr(retention, "REST", 0)
    with connection.cursor() as cursor:
        cursor.execute(SLOW.format(slow.pk))
    try:
        with behind(prune) as pruning:
            Presence.objects.create(review=Review.objects.get(run=looked_at), reviewer=people["reviewer"])
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # so that the review is locked now
            pruning.waits()
            assert pruning.begun
            report = pruning.begun.result(60)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION slow CASCADE")
    assert report.such_as == {retention.BUSY: looked_at.pk, retention.TOO_SLOW: slow.pk}
    assert set(Tombstone.objects.values_list("run_id", flat=True)) == {free.pk}
    assert prune().runs == 2


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN OLD; END';
CREATE TRIGGER slow BEFORE DELETE ON runs_step FOR EACH ROW WHEN (OLD.run_id = {}) EXECUTE FUNCTION slow()
"""


def test_who_holds_it_at_that_moment_comes_before_or_finds_it_removed() -> None:
    first, second, third = ended(), ended(), ended()
    with behind(prune) as pruning:
        holds.hold(first.pk, by="ann", reason="a lawyer asked")
        pruning.waits()
        report = pruning.begun.result(60)  # it waits for nobody
    assert report.such_as == {retention.BUSY: first.pk}
    assert report.runs == 2
    assert prune().such_as == {families.HELD: first.pk}
    assert {second.pk, third.pk} == set(Tombstone.objects.values_list("run_id", flat=True))


@pytest.mark.parametrize("what", ["hold", "retry", "fork"])
def test_who_wants_it_while_it_is_removed_is_told_that_it_is_gone(what: str) -> None:
    run = ended()
    acts = {
        "hold": lambda: holds.hold(run.pk, by="ann", reason="a lawyer asked"),
        "retry": lambda: commands.retry(run.pk, by="ann"),
        "fork": lambda: commands.fork(run.pk, step=1, by="ann"),
    }

    def act() -> str:
        with suppress(Run.DoesNotExist):
            acts[what]()
            return "done"
        return "gone"

    with behind(act) as other:
        assert prune().runs == 1
        other.waits()
    assert other.result == "gone"
    assert not Run.objects.exists()
    assert not Hold.objects.exists()
