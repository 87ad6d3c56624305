"""The command line: what it prints, what it refuses, and that nothing is lost on the way."""

import csv
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import DjangoAssertNumQueries

from agentops import batch, report
from reviews import decisions
from reviews.models import Review
from runs import executor
from runs.models import Run
from tests import cast, processes
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
        "tags": [],
        "output": None,
        "error": None,
        "waiting": "",
        "missing": [],
        "steps": [],
        "reviews": [],
    }


@pytest.mark.django_db(transaction=True)
def test_wait_returns_when_each_run_has_ended_or_waits_for_a_person(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("text,number\nunsure,1\nsure,9\n")
    command = [sys.executable, "manage.py", "run_agent", "guessing", "--file", str(file), "--wait", "--json"]
    with process("rqworker", "default"):
        ended = subprocess.run(
            command, cwd=processes.ROOT, env=processes.environment(), capture_output=True, text=True, check=True, timeout=120
        )
    unsure, sure = sorted((json.loads(line) for line in ended.stdout.splitlines()), key=lambda run: run["id"])
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
    assert lines[0] == "line 5: its number of cells is 3, but of columns in the header 2"
    assert lines[1].startswith("line 6: number: Input should be a valid integer")
    assert lines[2].startswith("line 7: text: Field required")
    assert list(Run.objects.order_by("pk").values_list("input_text", flat=True)) == ["good", "two lines", "also good"]


def test_a_row_is_one_run_whatever_its_text_holds(tmp_path: Path) -> None:
    """Line ends that are none to CSV: U+2028, form feed, vertical tab, NEL; and those inside quotes."""
    texts = ["a\u2028b", "a\x0cb", "a\x0bb", "a\x85b", "a\r\nb", "a\n\nb", 'a "quote"', "last"]
    file = tmp_path / "orders.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["text"], *([text] for text in texts)])
    said("run_agent", "counting", "--file", str(file))
    assert [run.input["text"] for run in Run.objects.order_by("pk")] == texts


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_bad_row_is_named_with_the_line_an_editor_shows(tmp_path: Path, line_end: str) -> None:
    """After a quoted line end, a U+2028, and an empty line."""
    rows = [
        "text,number",
        f'"two{line_end}lines",1',
        "one\u2028line,1",
        "",
        "bad,seven",
        'odd"",1',
        '"odd"x,1',
        "good,2",
        '"open,1',
    ]
    file = tmp_path / "orders.csv"
    file.write_bytes(line_end.join(rows).encode())
    assert [(row.where, row.error) for row in batch.rows(file) if row.error or row.value["number"] == "seven"] == [
        ("line 6", ""),
        ("line 8", "not a row of CSV: ',' expected after '\"'"),
        ("line 10", "not a row of CSV: a quote is opened here and never closed"),
    ]


def test_control_characters_and_huge_cells_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "messages.csv"
    huge = "\n".join(["x" * 1000] * 200)
    file.write_text(f'message\nnul\x00\nescape\x1b\n"{huge}"\nI lost my card\n')
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="1 of 4 runs were started"):
        call_command("run_agent", "card-desk", "--file", str(file), stdout=out, stderr=err)
    control = "message: Value error, The message contains control characters; send plain text."
    assert err.getvalue().splitlines() == [
        f"line 2: {control}",
        f"line 3: {control}",
        "line 4: message: 200,199 letters; a cell may have 131,072",
    ]
    assert Run.objects.get().input_text == "I lost my card"


def test_a_nul_that_an_agent_lets_through_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("text\nnul\x00\ngood\n")
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="1 of 2 runs were started"):
        call_command("run_agent", "counting", "--file", str(file), stdout=out, stderr=err)
    assert err.getvalue() == "line 2: Text with a NUL character cannot be stored.\n"


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("text\nfirst\nsecond\nthird\n")
    said("run_agent", "counting", "--file", str(file), "--limit", "2")
    assert list(Run.objects.order_by("pk").values_list("input_text", flat=True)) == ["first", "second"]


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "1.5", "", "9" * 30])
@pytest.mark.parametrize("command", [["run_agent", "counting", "--file", "/nowhere.csv"], ["evaluate", "card-desk"]])
def test_a_limit_that_is_none_is_said(command: list[str], limit: str) -> None:
    with pytest.raises(CommandError, match=f"argument --limit: '{limit}' is not a whole number from 1 to 1,000,000,000"):
        call_command(*command, f"--limit={limit}")


def test_json_of_many_runs_asks_the_database_no_more_often_than_of_one(
    tmp_path: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        said("run_agent", "guessing", "--input", '{"text": "unsure", "number": 1}')
    for run in Run.objects.all():
        executor.advance(run.pk, owner="test")
    with django_assert_num_queries(3):
        lines = [json.loads(report.as_json(run)) for run in report.with_details(Run.objects.order_by("pk"))]
    assert [(len(run["steps"]), len(run["reviews"])) for run in lines] == [(1, 1)] * 3


def test_json_names_reviews_that_are_closed_too() -> None:
    reviewer = cast.people()["reviewer"]
    said("run_agent", "guessing", "--input", '{"text": "unsure", "number": 1}')
    run = Run.objects.get()
    executor.advance(run.pk, owner="test")
    review = Review.objects.get()
    decisions.decide(review.pk, actor=reviewer, kind="approve", seen=review.fingerprint)
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    said_of_it = json.loads(report.as_json(run))
    assert (said_of_it["status"], said_of_it["reviews"]) == ("succeeded", [review.pk])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody", "--input", "{}"], "There is no agent 'nobody'. Known agents: "),
        (
            ["counting", "--input", "{oops"],
            "--input is not JSON: Expecting property name enclosed in double quotes at character 2.",
        ),
        (["counting", "--input", '{"text": ""}'], "The run was not started; the line above says why."),
        (["counting", "--input", '["text"]'], "The run was not started; the line above says why."),
        (["counting", "--file", "/nowhere.csv"], "/nowhere.csv cannot be read: No such file or directory."),
        (["counting", "--file", "BINARY"], "is not text in UTF-8 (byte 0)"),
        (["counting", "--file", "EMPTY"], "is empty: the first line must name the columns."),
        (["counting", "--file", "OPEN"], "OPEN does not begin with a header: a quote is opened here and never closed."),
        (["counting", "--file", "TWICE"], "TWICE names the column 'text' twice: rename or remove one of them."),
        (["counting", "--file", "."], ". cannot be read: Is a directory."),
        (["counting", "--input", "9" * 5000], "--input cannot be read as JSON: Exceeds the limit"),
        (["counting", "--input", "[" * 100_000], "--input cannot be read as JSON: "),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "EMPTY").write_bytes(b"")
    (tmp_path / "OPEN").write_text('"text,number\nhello,1\n')
    (tmp_path / "TWICE").write_text("text,number,text\nhello,1,goodbye\n")
    arguments = [str(tmp_path / one) if one.isupper() else one for one in arguments]
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


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("x = 1\ndef broken(:\n", 2, "SyntaxError: invalid syntax. Correct the line, or take broken_ones out of AGENT_APPS"),
        ("\n\nimport no_such_module\n", 3, "ModuleNotFoundError: No module named 'no_such_module'. Install that module, or"),
        ("from runs.sdk import no_such_name\n", 1, "ImportError: cannot import name 'no_such_name' from 'runs.sdk'"),
        ("\nimport json\njson.loads('')\n", 3, "JSONDecodeError: Expecting value: line 1 column 1 (char 0). Correct the line"),
    ],
)
def test_an_agent_that_cannot_be_loaded_fails_the_start_with_its_file_line_and_error(
    text: str, line: int, told: str, tmp_path: Path
) -> None:
    package = tmp_path / "broken_ones" / "agents"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py"):
        file.touch()
    (package / "mine.py").write_text(text)
    environment = processes.environment(AGENT_APPS="broken_ones", PYTHONPATH=str(tmp_path))
    command = [sys.executable, "manage.py", "sweeper"]
    ended = subprocess.run(command, cwd=processes.ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    said = f"agentops: The agents of broken_ones cannot be loaded: {package / 'mine.py'}, line {line}: {told}"
    assert (ended.returncode, ended.stderr[: len(said)], ended.stderr.count("\n")) == (1, said, 1)


def test_verify_and_reproject_name_runs_that_do_not_exist() -> None:
    for command in ("verify", "reproject"):
        with pytest.raises(CommandError, match="There is no run 1, 3"):
            said(command, "--run", "3", "--run", "1")
