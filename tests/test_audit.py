"""History is what was written: what verify finds, what it does not mistake for damage, and state as of any event."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pgtrigger
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from runs import audit, commands, event_log, executor
from runs.engine.errors import AskHuman, GiveUp
from runs.engine.events import Draft
from runs.models import Run, Step
from runs.models.event import Event
from runs.projections import RUN_COLUMNS, STEP_COLUMNS, run_columns, step_columns
from tests.agents import FAILURES
from tests.processes import eventually, process

LARGE = "a long story " * 10_000


def said(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def advanced(slug: str, **given: Any) -> int:
    run = commands.start(slug, given, by="ann")
    executor.advance(run.pk, owner="test")
    return run.pk


def decided(run_id: int, decision: str, **more: Any) -> int:
    step = next(one for one in event_log.state(run_id).steps.values() if one.status == "waiting")
    commands.decide(run_id, step.position, decision, by="bob", fingerprint=commands.seen(step), **more)
    executor.advance(run_id, owner="test")
    return run_id


def runs_of_all_sorts() -> list[int]:
    """Succeeded, waiting, decided each way, failed, retried, cancelled, and one with values too large for an event."""
    cancelled = advanced("guessing", text="hello", number=5)
    commands.cancel(cancelled, by="bob", reason="not needed")
    retried = advanced("guessing", text="hello", number=5)
    commands.cancel(retried, by="bob")
    commands.retry(retried, by="bob")
    executor.advance(retried, owner="test")
    stumbled = [GiveUp("no"), GiveUp("no again"), AskHuman("which?")]
    FAILURES["hello"] = stumbled
    others = [
        advanced("counting", text="hello"),
        advanced("guessing", text="hello", number=5),
        decided(advanced("guessing", text="hello", number=5), "approve"),
        decided(advanced("guessing", text="hello", number=5), "reject", reason="no"),
        decided(advanced("guessing", text="hello", number=5), "send_back", reason="again"),
        advanced("falling-back", text="hello"),
        decided(advanced("stumbling", text="hello"), "retry"),
        decided(advanced("paying", text="hello"), "edit", value={"amount": 7.5, "ledger": ""}),
        decided(advanced("asking", text="hello"), "answer", value={"colour": "green", "amount": 1}),
        advanced("asking", text="a wall", ledger=LARGE),
    ]
    return [cancelled, retried, *others]


@contextmanager
def as_an_intruder() -> Iterator[Any]:
    """One who owns the tables: triggers do not stop them."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield cursor


# --- state as of any event ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_state_as_of_an_event_is_what_the_rows_were_then() -> None:
    """Each log is written once more, event by event, and its rows are looked at after each."""
    for run_id in runs_of_all_sorts():
        drafts = [Draft(fact.kind, fact.data, fact.step, fact.actor) for fact in whole(run_id)]  # type: ignore[arg-type]
        log = event_log.create(drafts[0])
        then = [rows_of(log.run_id)]
        for draft in drafts[1:]:
            log.append(draft)
            then.append(rows_of(log.run_id))
        for seq, rows in enumerate(then, start=1):
            assert folded(log.run_id, seq) == rows, f"event {seq} ({drafts[seq - 1].kind}) of a run like {run_id}"


def whole(run_id: int) -> list[Any]:
    return event_log.whole(run_id, event_log.facts(run_id))


def rows_of(run_id: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    run = Run.objects.get(pk=run_id)
    steps = [{name: getattr(step, name) for name in STEP_COLUMNS} for step in Step.objects.filter(run_id=run_id)]
    return {name: getattr(run, name) for name in RUN_COLUMNS}, steps


def folded(run_id: int, until: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    state = event_log.state(run_id, until=until)
    return run_columns(state), [step_columns(step) for _, step in sorted(state.steps.items())]


# --- what is found --------------------------------------------------------------------------------------------------


def sql(statement: str) -> Callable[[Any, int], None]:
    return lambda cursor, run_id: cursor.execute(statement, {"run": run_id})


DAMAGES = {
    "event 2 (RunStarted) was changed after it was written": sql(
        "UPDATE runs_event SET actor = 'eve' WHERE run_id = %(run)s AND seq = 2"
    ),
    "event 1 (RunRequested) was changed after it was written": sql(
        'UPDATE runs_event SET data = data || \'{"summary": "another"}\' WHERE run_id = %(run)s AND seq = 1'
    ),
    "event 2 is missing (found 3)": sql("DELETE FROM runs_event WHERE run_id = %(run)s AND seq = 2"),
    "event 1 is missing (found 2)": sql("DELETE FROM runs_event WHERE run_id = %(run)s AND seq = 1"),
    "event 3 does not follow event 2": sql(
        "UPDATE runs_event SET prev_hash = repeat('0', 64) WHERE run_id = %(run)s AND seq = 3"
    ),
    "its row says 9 events, its log holds 8": sql("DELETE FROM runs_event WHERE run_id = %(run)s AND seq = 9"),
    "it has rows and no events": sql("DELETE FROM runs_event WHERE run_id = %(run)s"),
    "event 1 is of a run that does not exist": sql("DELETE FROM runs_run WHERE id = %(run)s"),
    "its step 1 has events and no row": sql("DELETE FROM runs_step WHERE run_id = %(run)s AND position = 1"),
    "its step 7 has a row and no event": sql(
        "UPDATE runs_step SET position = 7 WHERE run_id = %(run)s AND position = 2;"
        'INSERT INTO runs_step SELECT (jsonb_populate_record(s, \'{"position": 2, "id": 1000000, "name": "other"}\')).*'
        " FROM runs_step s WHERE run_id = %(run)s AND position = 7"
    ),
    "no event names its payload": sql("INSERT INTO runs_payload (run_id, hash, body) VALUES (%(run)s, 'x', '1')"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("sentence", DAMAGES)
def test_what_was_changed_is_named(sentence: str) -> None:
    before, run_id, after = (advanced("counting", text="hello") for _ in range(3))
    assert [audit.first_wrong(one) for one in (before, run_id, after)] == ["", "", ""]
    with as_an_intruder() as cursor:
        DAMAGES[sentence](cursor, run_id)
        assert audit.first_wrong(run_id).startswith(sentence)
        found = audit.audit(connection.connection, audit.Part(audit.LOWEST, audit.HIGHEST, 0))
        assert (found.runs, found.run_id) == (1, run_id)
        assert found.wrong.startswith(sentence)


@pytest.mark.django_db
@pytest.mark.parametrize(("table", "column"), [("run", one) for one in RUN_COLUMNS] + [("step", one) for one in STEP_COLUMNS])
def test_a_change_of_any_column_is_named(table: str, column: str) -> None:
    run_id = decided(advanced("guessing", text="hello", number=5), "approve")
    row = Run.objects.filter(pk=run_id) if table == "run" else Step.objects.filter(run_id=run_id, position=1)
    value = run_id if column in ("forked_from_id", "parent_id") else another(row.values_list(column, flat=True).get(), column)
    row.update(**{column: value})
    wrong = audit.first_wrong(run_id)
    assert column in wrong or wrong.startswith(("its row says", "its step"))


def another(value: Any, column: str) -> Any:
    if column in ("input", "output", "error", "alternatives"):
        return {"message": "another"} if value is None else value | {"more": True}
    if column == "tags":
        return ["another"]
    if column == "status":
        return "failed"
    if column == "waiting_runs":
        return [1]
    if column.endswith("_at"):
        return event_log.now()
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) or column in ("waiting_step", "confidence", "threshold", "forked_step"):
        return 0.125 if column in ("confidence", "threshold") else (value or 0) + 1
    return f"{value}x"[-20:] if len(value) < 64 else "f" * 64


@pytest.mark.django_db
def test_a_large_value_that_was_changed_or_lost_is_named() -> None:
    run_id = advanced("asking", text="a wall", ledger=LARGE)
    assert audit.first_wrong(run_id) == ""
    with as_an_intruder() as cursor:
        cursor.execute("UPDATE runs_payload SET body = replace(body, 'long', 'lost')")
        assert audit.first_wrong(run_id).endswith("of event 1 was changed after it was written")
        cursor.execute("DELETE FROM runs_payload")
        assert audit.first_wrong(run_id).endswith("of event 1 is missing")


@pytest.mark.django_db
def test_a_number_is_not_its_text() -> None:
    run_id = advanced("counting", text="hello")
    Run.objects.filter(pk=run_id).update(output={"said": 3})
    assert audit.first_wrong(run_id) == "its column output is not what its events say"


# --- the commands ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_verify_reads_everything_in_processes_of_its_own_and_reproject_mends_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PART_EVENTS", 5)
    ids = runs_of_all_sorts()
    assert said("verify") == f"{len(ids)} runs verified: every chain holds and every row is what its events say.\n"
    assert said("verify", "--run", str(ids[2]), "--processes", "1").startswith("1 run verified")
    Run.objects.filter(pk__in=[ids[5], ids[3]]).update(input_text="another")
    with pytest.raises(CommandError, match=f"Run {ids[3]}: its column input_text is not what .*In order before it: 3 runs"):
        said("verify")
    rows = [rows_of(one) for one in ids]
    Step.objects.all().delete()
    Run.objects.filter(pk__in=ids).update(status="queued", output=None, step_count=0)
    assert said("reproject", "--run", str(ids[0])).startswith("Looked at 1 run and rebuilt 1 ")
    assert said("reproject", "--all", "--after", str(ids[1])).startswith(
        f"Looked at {len(ids) - 2} runs and rebuilt {len(ids) - 2} "
    )
    assert said("reproject", "--all").startswith(f"Looked at {len(ids)} runs and rebuilt 1 ")
    assert said("verify").startswith(f"{len(ids)} runs verified")
    assert [steps for _, steps in map(rows_of, ids)] == [steps for _, steps in rows]


@pytest.mark.django_db(transaction=True)
def test_events_of_no_run_are_found_and_evidence_is_not_written_over() -> None:
    ids = [advanced("counting", text="hello") for _ in range(3)]
    with as_an_intruder() as cursor:
        cursor.execute("DELETE FROM runs_event WHERE run_id = %s AND seq = 9", [ids[0]])
        cursor.execute("DELETE FROM runs_step WHERE run_id = %s", [ids[2]])
        cursor.execute("DELETE FROM runs_run WHERE id = %s", [ids[2]])
        cursor.execute("UPDATE runs_event SET actor = 'eve' WHERE run_id = %s AND seq = 4", [ids[1]])
    with pytest.raises(CommandError, match=f"2 of them. Run {ids[0]}: its row says 9 events, its log holds 8."):
        said("reproject", "--all")
    with pytest.raises(CommandError, match=f"Run {ids[0]}: its row says 9 events, its log holds 8. .In order before it: 0 runs"):
        said("verify")
    with as_an_intruder() as cursor:
        cursor.execute("DELETE FROM runs_event WHERE run_id = ANY(%s)", [ids[:2]])
        cursor.execute("DELETE FROM runs_step; DELETE FROM runs_run")
    with pytest.raises(CommandError, match=f"Run {ids[2]}: event 1 is of a run that does not exist"):
        said("verify")


@pytest.mark.django_db(transaction=True)
def test_runs_that_go_on_raise_no_alarm(tmp_path: Path) -> None:
    """A job process writes on while other processes verify, and while their rows are looked at for rebuilding."""
    with process("rqworker", "default"):
        given = {"text": "hello", "number": 60, "ledger": str(tmp_path / "ledger")}
        ids = [commands.start("counting", given, by="ann").pk for _ in range(6)]
        eventually(lambda: Run.objects.filter(pk__in=ids, status="running").exists())
        looks = 0
        while Run.objects.filter(pk__in=ids).exclude(status="succeeded").exists():
            assert said("verify").startswith("6 runs verified")
            assert said("reproject", "--all").startswith("Looked at 6 runs and rebuilt 0 ")
            looks += 1
        assert looks
    assert said("verify").startswith("6 runs verified")


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [[], ["--all", "--run", "1"]])
def test_reproject_must_be_told_what(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match="Say which runs"):
        said("reproject", *arguments)


@pytest.mark.django_db
def test_a_cut_tail_is_found() -> None:
    run = Run.objects.get(pk=advanced("counting", text="a message", number=3))
    pgtrigger.uninstall("runs.Event:kept_until_removed")
    Event.objects.filter(run=run, seq=run.last_seq).delete()
    pgtrigger.install("runs.Event:kept_until_removed")
    assert audit.first_wrong(run.pk) == f"its row says {run.last_seq} events, its log holds {run.last_seq - 1}"
