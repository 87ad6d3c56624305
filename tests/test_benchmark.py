"""The benchmark: every figure is there, and what is counted holds. No time is judged here."""

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from agentops.benchmarks import figures, limit, throughput
from agentops.management.commands import bench
from tests import processes


def quick(*arguments: str) -> dict[str, Any]:
    """What the quick form of a benchmark says."""
    ended = ran(*arguments, "--quick", "--json")
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


def ran(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "manage.py", "bench", *arguments]
    return subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=False)


@pytest.mark.django_db
def test_a_quick_benchmark_takes_every_figure() -> None:
    result = quick("engine")
    taken = result["figures"]
    assert {target.figure for target in figures.ENGINE} <= taken.keys()
    of_the_server = ("server_cpu", "wal_bytes")  # of runs of 30 steps less runs of 10; what other tests do there counts too
    assert [name for name, one in taken.items() if one["median"] <= 0 and not name.startswith(of_the_server)] == []
    assert taken["commits_per_step"]["median"] <= 1
    assert taken["statements_per_step"]["median"] <= 1
    assert taken["round_trips_per_step"]["median"] <= 1.5
    assert result["limit"].startswith("pgbench")
    assert "medians" in figures.table(result)


@pytest.mark.django_db
def test_a_quick_benchmark_of_a_full_inbox_takes_every_figure() -> None:
    """Its reviews are real: decisions about them are recorded, and every other reviewer's screen hears of each."""
    taken = quick("inbox")["figures"]
    assert {target.figure for target in figures.INBOX} <= taken.keys()
    assert [name for name, one in taken.items() if one["median"] <= 0] == []
    assert taken["list_queries"]["median"] <= 10


@pytest.mark.django_db
def test_a_quick_benchmark_of_the_pages_takes_its_figures() -> None:
    """But for the longest timelines, which take their time to be made."""
    taken = quick("pages", "--history", "100", "--only", "list", "--only", "dashboard", "--only", "watch")["figures"]
    assert {target.figure for target in figures.PAGES if "timeline" not in target.figure} <= taken.keys()
    assert [name for name, one in taken.items() if one["median"] <= 0] == ["watch_wrong_pages"]


@pytest.mark.django_db
def test_runs_and_pages_go_on_while_migrations_are_applied() -> None:
    """Somebody reads for long meanwhile: whoever waits for a lock behind that steps back, and is there in the end."""
    taken = quick("migrate")
    assert taken["runs"] > 0
    assert taken["runs_not_succeeded"] == 0
    assert taken["migrations"] >= 10
    assert taken["stepped_back"] > 0
    assert taken["pages"] > 0


CONNECTED = ["B\t8\tAuthenticationOk", "B\t5\tReadyForQuery\t I"]
PREPARED = ['F\t40\tParse\t "p" "SELECT 1" 0', "F\t4\tSync", "B\t4\tParseComplete", "B\t5\tReadyForQuery\t I"]
EXECUTED = ['F\t9\tExecute\t "" 0', "F\t4\tSync", 'B\t13\tCommandComplete\t "SELECT 1"', "B\t5\tReadyForQuery\t I"]
BEGUN = ['F\t10\tQuery\t "BEGIN"', 'B\t10\tCommandComplete\t "BEGIN"', "B\t5\tReadyForQuery\t T"]
COMMITTED = ['F\t11\tQuery\t "COMMIT"', 'B\t11\tCommandComplete\t "COMMIT"', "B\t5\tReadyForQuery\t I"]


@pytest.mark.parametrize(
    ("lines", "statements", "round_trips", "commits"),
    [
        (CONNECTED, 0, 0, 0),
        (CONNECTED + PREPARED, 0, 1, 0),
        (PREPARED + EXECUTED, 1, 2, 1),
        (BEGUN + COMMITTED, 2, 2, 1),
        (EXECUTED[:3] + CONNECTED + EXECUTED[3:], 1, 1, 1),  # another connection comes between
    ],
)
def test_messages_of_the_protocol_are_counted(lines: list[str], statements: int, round_trips: int, commits: int) -> None:
    counted = throughput.counted_messages(lines)
    assert counted == {"statements": statements, "round_trips": round_trips, "commits": commits}


def test_a_measure_that_does_not_exist_is_named() -> None:
    ended = ran("engine", "--only", "everything")
    assert ended.returncode == 1
    assert "There is no measure everything; there are one, two, rq" in ended.stderr


@pytest.mark.django_db
def test_a_second_bench_is_refused_because_it_would_take_the_database_from_the_first() -> None:
    with psycopg.connect(processes.environment()["DATABASE_URL"]) as first:
        first.execute("SELECT pg_advisory_lock(hashtext(%s))", [bench.SUFFIX])
        with pytest.raises(CommandError, match="Another bench runs here"):
            call_command("bench", "inbox")


@pytest.mark.django_db(transaction=True)
def test_without_pgbench_the_limit_is_a_loop_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_pgbench", lambda: None)
    measured = limit.Limit(seconds=0.2)
    assert measured.means == "a loop of psycopg, because no pgbench was found"
    assert measured.rate(2) > 0


def test_a_summary_says_what_was_reached() -> None:
    found = figures.summary({"gap_ms_p50": [0.9, 3.0, 0.8], "ratio_1x1": [0.5], "limit_1_client": [2500.04]})
    assert found["gap_ms_p50"] == {"median": 0.9, "min": 0.8, "max": 3.0, "taken": 3, "target": 1.0, "reached": True}
    assert found["ratio_1x1"]["reached"] is False
    assert found["limit_1_client"] == {"median": 2500.0, "min": 2500.0, "max": 2500.0, "taken": 1}
    assert figures.spread("x", range(1, 101)) == {"x_p50": 50.5, "x_p95": 95}
