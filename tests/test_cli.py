"""The command line: what it prints, what it refuses, and that nothing is lost on the way."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from runs import executor
from runs.models import Run
from tests import processes
from tests.processes import process

pytestmark = pytest.mark.django_db


def said(*arguments: str, **options: Any) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_one_run_from_an_input() -> None:
    out, _ = said("run_agent", "counting", "--input", '{"text": "hello"}', "--json")
    assert json.loads(out) == {
        "id": Run.objects.get().pk,
        "status": "queued",
        "output": None,
        "error": None,
        "steps": [],
        "reviews": [],
    }


@pytest.mark.django_db(transaction=True)
def test_wait_returns_when_each_run_has_ended_or_waits_for_a_person(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("text,number\nunsure,1\nsure,9\n")
    with process("rqworker", "default"):
        out, _ = said("run_agent", "guessing", "--file", str(file), "--wait", "--json")
    unsure, sure = sorted((json.loads(line) for line in out.splitlines()), key=lambda run: run["id"])
    assert (unsure["status"], unsure["steps"][0]["status"], len(unsure["reviews"])) == ("waiting", "waiting", 1)
    assert (sure["status"], sure["output"], sure["reviews"]) == ("succeeded", {"said": "red 4"}, [])
    assert sure["steps"][0].keys() == {"name", "worker", "status", "confidence", "attempts", "duration_ms"}
    assert sure["steps"][0]["duration_ms"] >= 0


def test_broken_rows_are_named_with_their_line_and_the_good_ones_run(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text('text,number\ngood,1\n"two\nlines",2\ntoo,many,cells\nbad,seven\n,3\nalso good,4\n')
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="3 of 6 runs were started"):
        call_command("run_agent", "counting", "--file", str(file), stdout=out, stderr=err)
    lines = err.getvalue().splitlines()
    assert lines[0] == "line 5: 3 cells, but the header names 2 columns"
    assert lines[1].startswith("line 6: number: Input should be a valid integer")
    assert lines[2].startswith("line 7: text: Field required")
    assert list(Run.objects.order_by("pk").values_list("input_text", flat=True)) == ["good", "two lines", "also good"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody", "--input", "{}"], "There is no agent 'nobody'. Known agents: "),
        (
            ["counting", "--input", "{oops"],
            "--input is not JSON: Expecting property name enclosed in double quotes at character 2.",
        ),
        (["counting", "--input", '{"text": ""}'], "0 of 1 runs were started"),
        (["counting", "--input", '["text"]'], "0 of 1 runs were started"),
        (["counting", "--file", "/nowhere.csv"], "/nowhere.csv cannot be read: No such file or directory."),
        (["counting", "--file", "BINARY"], "is not text in UTF-8 (byte 0)"),
        (["counting", "--file", "EMPTY"], "is empty: the first line must name the columns."),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "EMPTY").write_bytes(b"")
    arguments = [str(tmp_path / one) if one in ("BINARY", "EMPTY") else one for one in arguments]
    with pytest.raises(CommandError) as refused:
        call_command("run_agent", *arguments, stdout=StringIO(), stderr=StringIO())
    assert words in str(refused.value)
    assert not Run.objects.exists()


def test_the_command_line_ends_with_a_status_and_without_a_traceback() -> None:
    command = [sys.executable, "manage.py", "run_agent", "nobody", "--input", "{}"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "There is no agent 'nobody'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_declaration_fails_the_start_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "two_of_them").mkdir()
    (tmp_path / "two_of_them" / "__init__.py").touch()
    (tmp_path / "two_of_them" / "agents.py").write_text(
        "from runs.agents.card_desk import CustomerMessage, DeskAnswer\n"
        "from runs.sdk import Run, agent\n"
        "@agent('card-desk', title='Another', version='1')\n"
        "def another(run: Run, message: CustomerMessage) -> DeskAnswer:\n    ...\n"
    )
    environment = processes.environment(AGENT_APPS="two_of_them", PYTHONPATH=str(tmp_path))
    command = [sys.executable, "manage.py", "sweeper"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "Two agents have the slug 'card-desk': " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_verify_and_reproject_speak_of_runs() -> None:
    said("run_agent", "counting", "--input", '{"text": "hello"}')
    run = Run.objects.get()
    executor.advance(run.pk, owner="test")
    assert said("verify")[0] == "1 runs verified: every chain holds and every row is what its events say.\n"
    Run.objects.update(status="failed")
    with pytest.raises(CommandError, match=f"Run {run.pk}: its column status is not what its events say"):
        said("verify")
    assert said("reproject")[0] == "Rebuilt 1 runs from their events.\n"
    assert "1 runs verified" in said("verify")[0]


def test_the_benchmark_measures_something() -> None:
    command = [sys.executable, "manage.py", "bench", "engine", "--quick", "--json"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    figures = json.loads(ended.stdout)
    assert figures["steps_per_second_1"] > 0
    assert figures["event_to_page_ms_p50"] > 0
