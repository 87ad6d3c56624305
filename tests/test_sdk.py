"""What an author may declare, and the one sentence for what they may not."""

from typing import Any

import pytest
from pydantic import BaseModel

from runs import sdk
from runs.sdk import BadDeclaration, Result, Run, agent, ask_human, find_worker, worker


class In(BaseModel):
    text: str


class Out(BaseModel):
    text: str


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    monkeypatch.setattr(sdk, "WORKERS", dict(sdk.WORKERS))


def test_a_worker_knows_its_input_and_output() -> None:
    @worker(title="Do it")
    def do(text: str, times: int = 2) -> Result[Out]:
        return Result(Out(text=text * times))

    assert (do.name, do.title, do.output_type) == ("test_sdk.do", "Do it", Out)
    assert do.input_model(text="a").model_dump() == {"text": "a", "times": 2}
    assert do(text="a").value == Out(text="aa")
    assert find_worker("test_sdk.do") is do
    assert do.gated("why").gate == "why"
    assert do.gated(None).gate == ""


def test_a_worker_may_estimate_only_sometimes() -> None:
    @worker
    def sometimes(text: str) -> Out | Result[Out]:
        return Out(text=text)

    assert sometimes.output_type is Out


def test_a_question_is_found_by_its_recorded_name() -> None:
    question = ask_human(Out)
    found = find_worker(question.name)
    assert found is not None
    assert found.output_type is Out
    assert find_worker("ask_human[os.path]") is None
    assert find_worker("gone.worker") is None


def declare_unannotated() -> None:
    @worker  # type: ignore[arg-type]
    def do(text, number: int):  # type: ignore[no-untyped-def]
        return text


def declare_critical_without_fallback() -> None:
    @worker(critical=True)
    def do(text: str) -> str:
        return text


def declare_fallback_of_another_type() -> None:
    @worker
    def other(text: str) -> int:
        return 1

    @worker(critical=True, fallback=other)
    def do(text: str) -> str:
        return text


def declare_agent_without_models() -> None:
    @agent("plain", title="Plain", version="1")
    def plain(run: Run[Any], text: str) -> str:
        return text


def declare_agent_twice() -> None:
    @agent("twice", title="Twice", version="1")
    def one(run: Run[Any], given: In) -> Out:
        return Out(text="")

    @agent("twice", title="Twice", version="1")
    def two(run: Run[Any], given: In) -> Out:
        return Out(text="")


def declare_threshold_of_ninety() -> None:
    @agent("ninety", title="Ninety", version="1", threshold=90)
    def one(run: Run[Any], given: In) -> Out:
        return Out(text="")


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (declare_unannotated, "test_sdk.do needs a type annotation for: text, return."),
        (declare_critical_without_fallback, "test_sdk.do is critical but names no fallback"),
        (declare_fallback_of_another_type, "The fallback test_sdk.other returns another type than test_sdk.do"),
        (declare_agent_without_models, "must take .run, input. and return an output"),
        (declare_agent_twice, "Two agents have the slug 'twice': tests.test_sdk.one and tests.test_sdk.two. Rename one."),
        (declare_threshold_of_ninety, "'ninety' has the threshold 90; it must be between 0 and 1"),
    ],
)
def test_a_bad_declaration_says_what_to_change(declare: Any, words: str) -> None:
    with pytest.raises(BadDeclaration, match=words):
        declare()
