"""The benchmark: every figure is there, and what is counted holds. No time is judged here."""

import json
import subprocess
import sys

import pytest

from agentops.benchmarks import figures, limit
from tests import processes


@pytest.mark.django_db
def test_a_quick_benchmark_takes_every_figure() -> None:
    command = [sys.executable, "manage.py", "bench", "engine", "--quick", "--json"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads(ended.stdout)
    taken = result["figures"]
    assert {target.figure for target in figures.TARGETS} <= taken.keys()
    assert [name for name, one in taken.items() if one["median"] <= 0 and not name.startswith("server_cpu")] == []
    assert round(taken["commits_per_step"]["median"], 1) <= 1, "a connection that is opened meanwhile says that it is ready, too"
    assert taken["statements_per_step"]["median"] <= 1
    assert taken["round_trips_per_step"]["median"] <= 1.5
    assert result["limit"].startswith("pgbench")
    assert "medians" in figures.table(result)


def test_a_measure_that_does_not_exist_is_named() -> None:
    command = [sys.executable, "manage.py", "bench", "engine", "--only", "everything"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "There is no measure everything; there are one, two, rq" in ended.stderr


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
