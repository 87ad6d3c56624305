"""The message classifier: as good as promised, honest about its confidence, and never loaded from a strange file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from agentops.intervals import wilson
from agentops.management.commands.train import Progress
from runs import commands
from runs.integrations import message_classifier
from runs.integrations import message_classifier_training as training
from runs.integrations.message_classifier import ClassifierMissing, MessageClassifier


@pytest.fixture
def empty_cache(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A machine on which nothing has been trained."""
    settings.MODEL_CACHE = tmp_path / "models"
    message_classifier.load.cache_clear()
    yield settings.MODEL_CACHE
    message_classifier.load.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on every 50th message: bad, but fast."""
    messages, strangers = training.messages, training.strangers
    monkeypatch.setattr(training, "messages", lambda part: messages(part)[::50])
    monkeypatch.setattr(training, "strangers", lambda part: strangers(part)[::50])


# --- how good it is -----------------------------------------------------------------------------------------------


def test_it_is_as_good_as_the_readme_says(classifier: MessageClassifier) -> None:
    metrics = message_classifier.model_card()["metrics"]
    assert metrics["messages"] == 3073
    assert metrics["accuracy"] >= 0.95
    assert metrics["ece"] <= 0.025
    assert metrics["auroc"] >= 0.9
    assert metrics["share_sure"] >= 0.8
    assert metrics["accuracy_sure"] >= 0.985
    assert metrics["other_found"] >= 0.92
    assert metrics["other_missed_sure"] <= 0.02


@pytest.mark.parametrize(
    ("message", "queue"),
    [
        ("My card was stolen, please block it!", "fraud"), ("The machine swallowed my card", "card_problem"),
        ("When will my new card arrive?", "cards_issue"), ("Why was I charged for withdrawing cash?", "cash_atm"),
        ("what is the tallest mountain in the world", "other"), ("how do i bake bread", "other"),
    ],
)  # fmt: skip
def test_a_message_comes_to_its_queue(classifier: MessageClassifier, message: str, queue: str) -> None:
    prediction = classifier.predict(message)
    assert prediction.queue == queue
    assert list(prediction.alternatives) == sorted(prediction.alternatives, key=lambda name: -prediction.alternatives[name])
    assert len(prediction.alternatives) == 3
    assert prediction.alternatives[queue] == prediction.confidence
    assert prediction.source == f"classifier {classifier.version}"


@pytest.mark.parametrize("message", ["", " ", "🙂", "x", "0", "a" * 4000, "Ünïcödé ' \" < & \\"])
def test_any_text_has_a_confidence_between_0_and_1(classifier: MessageClassifier, message: str) -> None:
    assert 0 < classifier.predict(message).confidence <= 1


def test_nothing_that_was_trained_on_is_measured_on() -> None:
    known = {" ".join(example.text.casefold().split()) for example in training.training()}
    held_out = training.held_out()
    assert len(training.messages("test")) - len(held_out) == 7
    assert not [example for example in held_out if " ".join(example.text.casefold().split()) in known]


@pytest.mark.parametrize(
    ("right", "confidences", "error"),
    [
        ([True, True], [1.0, 1.0], 0.0), ([False, False], [1.0, 1.0], 1.0), ([True, False], [0.5, 0.5], 0.0),
        ([True, True, False, False], [0.95, 0.95, 0.05, 0.05], 0.05),
    ],
)  # fmt: skip
def test_calibration_error(right: list[bool], confidences: list[float], error: float) -> None:
    assert training.calibration_error(right, confidences) == pytest.approx(error)


# --- where it is kept ---------------------------------------------------------------------------------------------


def test_a_process_without_a_classifier_is_told_what_to_run(empty_cache: Path) -> None:
    with pytest.raises(ClassifierMissing, match=r"no trained message classifier in .*models\. Run `python manage.py train`"):
        message_classifier.load()


def test_a_file_that_was_changed_is_never_unpickled(empty_cache: Path, quick: None) -> None:
    training.ensure()
    with message_classifier.model_file().open("ab") as file:
        file.write(b"x")
    with pytest.raises(ClassifierMissing, match="not the file that was trained"):
        message_classifier.load()
    training.ensure()
    assert message_classifier.load().predict("hello").confidence > 0


def test_it_is_trained_once_and_anew_when_the_code_changes(
    empty_cache: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    first = training.ensure(stages.append)
    assert tuple(stages) == training.STAGES
    assert training.ensure(stages.append) == first
    assert len(stages) == len(training.STAGES)
    monkeypatch.setattr(message_classifier, "CODE_VERSION", "2")
    assert training.ensure(stages.append)["version"] != first["version"]
    assert len(stages) == 2 * len(training.STAGES)


def test_a_training_that_stops_half_way_leaves_nothing_that_is_taken_for_a_classifier(
    empty_cache: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        path.write_bytes(content[: len(content) // 2])

    with monkeypatch.context() as stopped:
        stopped.setattr(training, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            training.ensure()
    assert not training.is_trained()
    training.ensure()
    assert training.is_trained()


def test_processes_that_start_together_train_once(empty_cache: Path) -> None:
    """Two real processes: the second waits, finds the first one's classifier, and trains nothing."""
    code = (
        "import django; django.setup()\n"
        "from runs.integrations import message_classifier_training as training\n"
        "messages, strangers = training.messages, training.strangers\n"
        "training.messages = lambda part: messages(part)[::50]\n"
        "training.strangers = lambda part: strangers(part)[::50]\n"
        "training.ensure(lambda stage: print(stage, flush=True))\n"
    )
    environment = {"AGENTOPS_MODEL_CACHE": str(empty_cache), "DJANGO_SETTINGS_MODULE": "agentops.settings"}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=_environment(environment), stdout=subprocess.PIPE, text=True) for _ in "ab"]
    stages = [process.communicate(timeout=60)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("fitting" in lines for lines in stages) == [False, True]


def test_importing_the_agents_loads_neither_sklearn_nor_a_model_s_client() -> None:
    """Web processes import the agents; only a job process may pay seconds for what they use."""
    code = (
        "import sys, django; django.setup()\n"
        "assert 'runs.agents.card_desk' in sys.modules\n"
        "print([name for name in ('sklearn', 'scipy', 'numpy', 'pydantic_ai', 'openai') if name in sys.modules])"
    )
    environment = _environment({"DJANGO_SETTINGS_MODULE": "agentops.settings"})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **more}


# --- the commands -------------------------------------------------------------------------------------------------


def test_train_says_what_it_found(classifier: MessageClassifier) -> None:
    out = StringIO()
    call_command("train", stdout=out)
    assert f"up to date: version {classifier.version}, accuracy 95." in out.getvalue()


def test_train_trains_where_nothing_is(empty_cache: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("train")
    said = capsys.readouterr()
    assert "The message classifier is trained: version" in said.out
    assert "4/6 fitting" in said.err


def test_the_bar_shows_only_stages_that_are_done() -> None:
    progress = Progress(StringIO(), training.STAGES)
    progress.reached("reading messages")
    progress.reached("saving")
    first, last = progress.out.getvalue().splitlines()
    assert first.count("█") == 0
    assert 0 < last.count("█") < 24


def test_evaluate_measures_what_the_configured_threshold_lets_through(db: None, classifier: MessageClassifier) -> None:
    out = StringIO()
    call_command("evaluate", "card-desk", "--limit", "200", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert report["threshold"] == commands.configuration("card-desk").threshold == 0.9
    assert (report["messages"], report["left_out"]) == (200, 7)
    assert report["accuracy"]["share"] > 0.9
    assert report["needs_person"]["hits"] + report["accuracy_without_person"]["of"] == 200
    for measured in (report["accuracy"], report["needs_person"], report["accuracy_without_person"]):
        assert measured["low"] < measured["share"] < measured["high"] or measured["share"] == 1.0
    assert 0 < report["seconds_per_message"] < 1


@pytest.mark.parametrize(("threshold", "needs_person"), [("0", 0), ("1", 50)])
def test_evaluate_at_a_threshold_of_ones_own(db: None, classifier: MessageClassifier, threshold: str, needs_person: int) -> None:
    out = StringIO()
    call_command("evaluate", "card-desk", "--limit", "50", "--threshold", threshold, "--json", stdout=out)
    assert json.loads(out.getvalue())["needs_person"]["hits"] == needs_person
    out = StringIO()
    call_command("evaluate", "card-desk", "--limit", "50", "--threshold", threshold, stdout=out)
    assert "7 test messages were left out" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--limit", "0"], "argument --limit: '0' is not a whole number"), (["--threshold", "1.5"], "between 0 and 1")],
)
def test_evaluate_refuses_what_makes_no_sense(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("evaluate", "card-desk", *arguments)


def test_evaluate_without_a_classifier_says_what_to_run(empty_cache: Path) -> None:
    with pytest.raises(CommandError, match=r"manage\.py train"):
        call_command("evaluate", "card-desk", "--threshold", "0.9")


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (430, 432, 0.9833, 0.9987)],
)
def test_wilson_intervals(hits: int, of: int, low: float, high: float) -> None:
    """Against values of the published formula."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=1e-4)
