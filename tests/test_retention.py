"""Old runs go and leave a tombstone each; what is open, held or related to what stays, stays, and history can be verified."""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, models, transaction
from django.db.models import Sum
from django.test import Client
from pytest_django import Settings

from reviews import decisions
from reviews.models import BulkDecision, Review
from runs import archives, audit, clock, commands, executor, families, holds, nightly, retention
from runs.alerts import audits, readings
from runs.models import Alert, AlertEvent, AlertRule, BulkAction, BulkActionItem, Hold, Pruning, Reading, Reveal, Run, Tombstone
from runs.models.event import Event
from runs.requests import Refused
from tests.test_audit import LARGE, as_an_intruder, runs_of_all_sorts
from tests.test_children import started, two

pytestmark = pytest.mark.django_db
SignedIn = Callable[..., Client]


def said(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def ended(slug: str = "counting", **given: Any) -> Run:
    run = commands.start(slug, {"text": "hello"} | given, by="ann")
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def prune(**said: Any) -> retention.Report:
    """Every run that has ended until now."""
    pruning = Pruning.objects.create(**{"by": "ann", "ended_before": clock.now() + timedelta(seconds=1)} | said)
    *_, report = retention.prune(pruning)
    return report


def rows() -> dict[str, int]:
    """How many rows each table has that hangs on runs."""
    with connection.cursor() as cursor:
        tables = {table for table, _ in retention.hanging()} | {"runs_run"}
        return {table: cursor.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}


def test_what_has_ended_goes_with_all_its_rows_and_the_rest_stays_as_it_was(people: Any) -> None:
    waits = ended("guessing", number=5)
    before = rows()
    for run_id in runs_of_all_sorts():
        if Run.objects.get(pk=run_id).status not in retention.families.ENDED:
            commands.cancel(run_id, by="bob")
    Review.objects.exclude(run=waits).update(state="cancelled")  # decided past their rows, some of them
    review = Review.objects.get(run=ended("guessing", number=5))
    begun = BulkDecision.objects.create(actor=people["reviewer"], kind="approve", previewed_at=clock.now(), begun_at=clock.now())
    begun.items.create(review=review, seen="")
    decisions.decide(review.pk, actor=people["reviewer"], kind="reject", seen=review.fingerprint, reason="no")
    executor.advance(review.run_id, owner="test")
    all_runs, all_events = Run.objects.exclude(pk=waits.pk), Event.objects.exclude(run=waits)
    heads = dict(all_runs.values_list("pk", "head_hash"))
    count, events = all_runs.count(), all_events.count()
    report = prune()
    assert (report.runs, report.events, report.kept) == (count, events, {})
    assert rows() == before
    assert not BulkDecision.objects.exists()
    assert dict(Tombstone.objects.values_list("run_id", "head_hash")) == heads
    assert Tombstone.objects.aggregate(total=Sum("last_seq")) == {"total": events}
    found = audit.audit(connection.connection, audit.Part(audit.LOWEST, audit.HIGHEST, 0))
    assert (found.runs, found.wrong, audit._broken_tombstone(connection.connection).wrong) == (1, "", "")
    assert prune().runs == 0


def test_every_table_that_hangs_on_a_run_is_emptied_or_meant_to_outlive_it() -> None:
    emptied = {table for table, _ in retention.hanging()}
    for model, kept in ((Run, {Hold, Reveal, Run}), (Review, set())):
        related = [one for one in model._meta.get_fields(include_hidden=True) if isinstance(one, models.ManyToOneRel)]
        assert {one.related_model._meta.db_table for one in related if one.related_model not in kept} <= emptied
        assert not [one for one in related if one.on_delete is models.SET_NULL]


def test_a_family_goes_as_a_whole_or_stays_as_a_whole() -> None:
    parent = started(two)
    executor.advance(parent.pk, owner="test")
    children = list(parent.children.order_by("pk"))
    for child in children:
        executor.advance(child.pk, owner="test")
    assert prune().kept == {families.OPEN: 3}
    executor.advance(parent.pk, owner="test")
    forked = commands.fork(parent.pk, step=1, by="ann")
    assert prune().such_as == {families.OPEN: forked.pk}
    commands.cancel(forked.pk, by="ann")
    holds.hold(children[0].pk, by="ann", reason="a lawyer asked")
    assert prune().kept == {families.HELD: Run.objects.count()}
    holds.release(children[0].pk, by="bob")
    whole = Run.objects.count()
    assert prune(ended_before=Run.objects.get(pk=forked.pk).finished_at).kept == {families.YOUNG: whole}
    assert prune().runs == whole
    assert not Run.objects.exists()
    assert Hold.objects.get().released_by == "bob"


def test_an_open_review_and_a_log_that_does_not_hold_keep_a_run() -> None:
    asked, broken = ended(), ended()
    stray = ended("guessing", number=5)
    Review.objects.filter(run=stray).update(run=asked, cause="sample")
    with as_an_intruder() as cursor:
        cursor.execute("UPDATE runs_event SET actor = 'eve' WHERE run_id = %s AND seq = 2", [broken.pk])
    report = prune()
    assert report.such_as == {families.ASKED: asked.pk, families.BROKEN: broken.pk}
    assert prune().such_as == report.such_as, "now it is known as broken"


def test_the_database_lets_go_only_what_has_a_true_tombstone() -> None:
    run, other, waits = ended(), ended(), ended("guessing", number=5)
    pruning = Pruning.objects.create(by="ann", ended_before=clock.now())
    tombstone = Tombstone(
        run_id=run.pk, pruning=pruning, place=1, last_seq=run.last_seq, head_hash=run.head_hash, by="ann", at=clock.now(),
        prev_hash="", hash="",
    )  # fmt: skip

    def refuses(*change: Callable[[], Any]) -> None:
        for one in change:
            with pytest.raises(DatabaseError), transaction.atomic():
                one()

    refuses(Event.objects.filter(run=run).delete)
    for wrong in ({"last_seq": 1}, {"head_hash": "0" * 64}, {"run_id": waits.pk, "head_hash": waits.head_hash}):
        refuses(lambda wrong=wrong: Tombstone(**{**vars_of(tombstone), **wrong}).save(force_insert=True))
    holds.hold(run.pk, by="ann", reason="a lawyer asked")
    refuses(lambda: tombstone.save(force_insert=True))
    holds.release(run.pk, by="ann")
    refuses(Hold.objects.get().delete, lambda: Hold.objects.update(released_by="eve"))
    holds.hold(run.pk, by="ann", reason="a lawyer asked again")
    for moved in ({"run": other}, {"by": "eve"}, {"reason": "none"}, {"at": clock.now() - timedelta(days=1)}):
        refuses(lambda moved=moved: Hold.objects.filter(released_at=None).update(**moved))
    holds.release(run.pk, by="ann")
    tombstone.save(force_insert=True)
    refuses(tombstone.delete, lambda: Tombstone.objects.update(by="eve"), Event.objects.filter(run=other).delete)
    assert Event.objects.filter(run=run).delete()[0] == run.last_seq


def vars_of(tombstone: Tombstone) -> dict[str, Any]:
    return {field.attname: getattr(tombstone, field.attname) for field in tombstone._meta.concrete_fields}


def test_verify_finds_tombstones_that_are_not_what_was_written() -> None:
    first, second, third = (ended().pk for _ in range(3))
    prune()
    changes = {
        f"Run {second}: its tombstone (2 of pruning": "UPDATE runs_tombstone SET by = 'eve' WHERE run_id = %(second)s",
        f"Run {second}: tombstone 1 of": "DELETE FROM runs_tombstone WHERE run_id = %(first)s",
        "Retention: pruning": "DELETE FROM runs_tombstone WHERE run_id = %(third)s",
    }
    for sentence, change in changes.items():
        with transaction.atomic():
            with as_an_intruder() as cursor:
                cursor.execute(change, {"first": first, "second": second, "third": third})
            assert audit._broken_tombstone(connection.connection).sentence.startswith(sentence)
            audits.look()
            assert Pruning.objects.get().wrong.startswith(sentence)
            readings.read_gauges(clock.now())
            assert Reading.objects.get(measure="broken_logs").value == 1, "which an alert says"
            transaction.set_rollback(True)
    Pruning.objects.update(wrong="Run 1: it was wrong")
    audits.look()
    assert Pruning.objects.get().wrong == ""
    with as_an_intruder() as cursor:
        cursor.execute("INSERT INTO runs_payload (run_id, hash, body) VALUES (%s, 'x', '1')", [first])
    assert audit.first_wrong(first) == "it was removed by retention, and there are rows of it"


def test_the_archive_holds_whole_chains_and_verify_knows(tmp_path: Path) -> None:
    run, large = ended(), ended("asking", text="a wall", ledger=LARGE)
    commands.cancel(large.pk, by="ann")
    output = said("prune", "--older-than", "1d", "--archive", str(tmp_path))
    assert output == "Removed 0 runs with 0 events, and 0 alerts.\n"
    assert prune(archive=str(tmp_path)).runs == 2
    (file,) = tmp_path.rglob("*.gz")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with gzip.open(file, "rt") as packed:
        lines = [json.loads(line) for line in packed]
    assert {next(iter(line)) for line in lines} >= {"runs_run", "runs_event", "runs_payload", "runs_step", "reviews_review"}
    assert said("verify", "--archive", str(tmp_path)).startswith("2 runs verified in the archive")
    tombstone = Tombstone.objects.get(run_id=run.pk)
    packed_bytes = file.read_bytes()
    for place in range(40, len(packed_bytes), len(packed_bytes) // 60):
        file.write_bytes(packed_bytes[:place] + bytes([packed_bytes[place] ^ 16]) + packed_bytes[place + 1 :])
        assert next(archives.wrong(tmp_path))[2], "one bit that fell over"
    for event in (line["runs_event"] for line in lines if "runs_event" in line):
        event["actor"] = "eve"
    with gzip.open(file, "wt") as changed:
        changed.write("\n".join(map(json.dumps, lines)))
    with pytest.raises(CommandError, match=f"Run {run.pk}: event 1 .* was changed after .* in the file {tombstone.archive}"):
        said("verify", "--archive", str(tmp_path))
    for lost in (file.unlink, file.parent.rmdir):
        lost()
        with pytest.raises(CommandError, match=f"the file {tombstone.archive} cannot be read"):
            said("verify", "--archive", str(tmp_path))
    (tmp_path / "moved").mkdir()
    with pytest.raises(CommandError, match=f"the file {tombstone.archive} cannot be read"):
        said("verify", "--archive", str(tmp_path / "moved"))


def test_two_databases_that_share_an_archive_replace_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "years" / "archive"
    for number in (1, 2):  # as a database that was set up anew would, its first pruning has the number of another's
        ended()
        with connection.cursor() as cursor:
            cursor.execute("ALTER SEQUENCE runs_pruning_id_seq RESTART")
        with transaction.atomic():
            prune(archive=str(archive))
            transaction.set_rollback(True)
        assert len(list(archive.rglob("*.gz"))) == number


def test_an_archive_that_cannot_be_written_removes_nothing(tmp_path: Path) -> None:
    run = ended()
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        prune(archive=str(tmp_path / "file"))
    assert audit.first_wrong(run.pk) == ""


def test_the_command_says_what_it_would_do_and_refuses_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    held, free = ended(), ended()
    holds.hold(held.pk, by="ann", reason="a lawyer asked")
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=40))
    stays = f"Kept 1 run: held, or related to one that is (run {held.pk})."
    expected = f"1 run with {free.last_seq} events, and 0 alerts.\n{stays}"
    assert said("prune", "--older-than", "30d", "--dry-run").startswith(f"Would remove {expected}")
    assert Run.objects.count() == 2
    assert said("prune", "--older-than", "30").startswith(f"Removed {expected}")
    for wrong in ("0d", "soon", "-1", "99999999"):
        with pytest.raises(CommandError, match="is not a number of days from 1 on, such as 90d"):
            said("prune", f"--older-than={wrong}")
    with pytest.raises(CommandError, match=f"Run {free.pk} was removed on .* by .*prune"):
        said("verify", "--run", str(free.pk))


def test_old_alerts_go_with_their_history(tmp_path: Path) -> None:
    rule = AlertRule.objects.create(name="Queue", measure="queue")
    long_ago = clock.now() - timedelta(days=100)
    for state in ("resolved", "firing"):
        alert = Alert.objects.create(
            rule=rule, rule_version=1, subject=state, state=state, title="The queue is long",
            opened_at=long_ago, ended_at=long_ago if state == "resolved" else None,
        )  # fmt: skip
        AlertEvent.objects.create(alert=alert, kind="opened", at=long_ago)
    for state, began in (("firing", long_ago), ("resolved", clock.now())):
        Alert.objects.filter(pk=alert.pk).update(state=state, ended_at=began)
        with pytest.raises(DatabaseError), transaction.atomic():
            AlertEvent.objects.filter(alert=alert).delete()
    Alert.objects.filter(pk=alert.pk).update(state="firing", ended_at=None)
    assert prune(ended_before=clock.now() - timedelta(days=90), archive=str(tmp_path)).alerts == 1
    assert (Alert.objects.get().state, AlertEvent.objects.count()) == ("firing", 2 - 1)
    (file,) = tmp_path.rglob("alerts-*.gz")
    with gzip.open(file, "rt") as packed:
        assert [next(iter(json.loads(line))) for line in packed] == ["runs_alert", "runs_alertevent"]


def test_old_bulk_actions_go_with_what_came_of_each_run_but_none_that_is_under_way(people: Any, tmp_path: Path) -> None:
    long_ago = clock.now() - timedelta(days=100)
    told = {"actor": people["operator"], "kind": "cancel", "previewed_at": long_ago, "begun_at": long_ago}
    old, gone_on_with, carried_on = (BulkAction.objects.create(**told, asked_at=at) for at in (long_ago, clock.now(), long_ago))
    for bulk, at in ((old, long_ago), (gone_on_with, long_ago), (carried_on, clock.now())):
        BulkActionItem.objects.create(bulk=bulk, run=1, outcome="done", at=at)
    BulkActionItem.objects.create(bulk=old, run=2)  # stopped: nobody came to it
    assert prune(ended_before=clock.now() - timedelta(days=90), archive=str(tmp_path)).bulks == 1
    assert set(BulkAction.objects.all()) == {gone_on_with, carried_on}
    assert BulkActionItem.objects.count() == 2
    (file,) = tmp_path.rglob("bulk-*.gz")
    with gzip.open(file, "rt") as packed:
        assert [next(iter(json.loads(line))) for line in packed] == ["runs_bulkaction", *["runs_bulkactionitem"] * 2]
    assert prune(ended_before=clock.now() + timedelta(days=1)).bulks == 0, "what is begun within a day may be under way"


def test_a_link_to_a_removed_run_says_so_to_those_who_may_look(signed_in: SignedIn) -> None:
    run, other, asked = ended(), ended("guessing", number=5), ended("guessing", number=5)
    commands.cancel(asked.pk, by="ann")
    review = Review.objects.get(run=asked)
    prune()
    client = signed_in("reviewer")
    answer = client.get(f"/reviews/{review.pk}/")
    assert (answer.status_code, f"Review {review.pk} asked about it" in answer.text) == (410, True)
    assert f"Run {asked.pk} was removed on" in answer.text
    assert client.get(f"/reviews/{review.pk + 99}/").status_code == 404
    assert signed_in("outsider").get(f"/reviews/{review.pk}/").status_code == 403
    for path in ("", "events/", "parts/state/", f"compare/{other.pk}/", "payloads/x/"):
        answer = client.get(f"/runs/{run.pk}/{path}")
        assert answer.status_code == 410
        assert f"Run {run.pk} was removed on" in answer.text
        assert "by ann" in answer.text
    assert client.get(f"/runs/{other.pk}/compare/{run.pk}/").status_code == 410
    assert signed_in("operator").post(f"/runs/{run.pk}/retry/").status_code == 410
    assert client.get(f"/runs/{other.pk + 99}/").status_code == 404
    assert signed_in("outsider").get(f"/runs/{run.pk}/").status_code == 403
    assert Client().get(f"/runs/{run.pk}/").status_code == 302


def test_an_admin_holds_a_run_with_a_reason_and_releases_it(signed_in: SignedIn) -> None:
    run = ended()
    admin, operator = signed_in("admin"), signed_in("operator")
    assert "Say why the run must be kept" in admin.post(f"/runs/{run.pk}/hold/", {"reason": " "}, follow=True).text
    page = admin.post(f"/runs/{run.pk}/hold/", {"reason": "<b>a lawyer asked</b>"}, follow=True).text
    assert "Held by admin" in page
    assert "&lt;b&gt;a lawyer asked" in page
    assert f"Yes, release run {run.pk}" in page
    assert "is held already" in admin.post(f"/runs/{run.pk}/hold/", {"reason": "again"}, follow=True).text
    seen = operator.get(f"/runs/{run.pk}/").text
    assert "Held by admin" in seen
    assert "release run" not in seen
    assert "is released" in admin.post(f"/runs/{run.pk}/hold/release/", follow=True).text
    assert "nothing to release" in admin.post(f"/runs/{run.pk}/hold/release/", follow=True).text
    assert "Held by" not in admin.get(f"/runs/{run.pk}/").text


def test_a_hold_needs_a_run() -> None:
    with pytest.raises(Run.DoesNotExist):
        holds.hold(10**9, by="ann", reason="a lawyer asked")
    with pytest.raises(Refused, match="nothing to release"):
        holds.release(10**9, by="ann")


def test_once_a_night_and_only_in_its_hour(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now = ended(), clock.now() + timedelta(days=40)
    settings.PRUNE_DAYS, settings.PRUNE_HOUR = 30, (now.hour + 1) % 24
    monkeypatch.setattr(clock, "now", lambda: now)
    nightly.look()
    assert Run.objects.exists()
    settings.PRUNE_HOUR = now.hour
    nightly.look()
    assert Tombstone.objects.get().run_id == run.pk
    assert Pruning.objects.get().by == "retention"
    ended()
    nightly.look()
    assert Pruning.objects.count() == 1


def test_a_night_that_stopped_is_gone_on_with_and_said_where_it_did_not_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, night = ended(), (clock.now() + timedelta(days=40)).replace(minute=0)
    settings.PRUNE_DAYS, settings.PRUNE_HOUR, settings.PRUNE_ARCHIVE = 30, night.hour, str(tmp_path / "archive")

    def at(minutes: int) -> bool:
        now = night + timedelta(minutes=minutes)
        monkeypatch.setattr(clock, "now", lambda: now)
        nightly.look()
        return nightly.missed(now)

    (tmp_path / "archive").touch()  # which is no directory
    for minutes in (0, 16):
        with pytest.raises(OSError):
            at(minutes)
    assert not at(20), "it may be at work"
    assert nightly.missed(night + timedelta(minutes=40))
    (tmp_path / "archive").unlink()
    assert not at(90), "the hour is over, and what was begun is brought to its end"
    assert Tombstone.objects.get().run_id == run.pk
    settings.PRUNE_HOUR = (night.hour + 12) % 24  # in the next night no sweeper is there
    readings.read_gauges(night + timedelta(days=2))
    assert Reading.objects.get(measure="retention_missed").value == 1
    assert nightly.missed(night + timedelta(days=30)), "it does not become right by itself"
    settings.PRUNE_DAYS = 0
    assert not nightly.missed(night + timedelta(days=30)), "nobody wants it"
