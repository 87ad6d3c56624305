"""What an author may declare, and the one sentence for what they may not."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, Field, ValidationError

from runs import sdk
from runs.sdk import BadDeclaration, Result, Run, agent, ask_human, find_worker, skip, worker

AGENTS = Path(__file__).resolve().parent.parent / "runs" / "agents"
CONNECTING = {"asyncio", "ftplib", "http", "multiprocessing", "smtplib", "socket", "ssl", "subprocess", "threading", "urllib"}
T = TypeVar("T")


class In(BaseModel):
    text: str


class Out(BaseModel):
    text: str


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    monkeypatch.setattr(sdk, "WORKERS", dict(sdk.WORKERS))


# --- what works ---------------------------------------------------------------------------------------------------


def test_a_worker_knows_its_input_and_output() -> None:
    @worker(title="Do it")
    def do(text: str, times: int = 2) -> Result[Out]:
        return Result(Out(text=text * times))

    assert (do.name, do.title, do.output_type) == ("test_sdk.do", "Do it", Out)
    assert do.input_model(text="a").model_dump() == {"text": "a", "times": 2}
    assert do(text="a").value == Out(text="aa")
    assert find_worker("test_sdk.do") is do


def test_a_worker_may_estimate_only_sometimes() -> None:
    @worker
    def sometimes(text: str) -> Out | Result[Out]:
        return Out(text=text)

    assert sometimes.output_type is Out


def test_what_an_annotation_demands_of_an_input_is_checked() -> None:
    @worker
    def short(text: Annotated[str, Field(max_length=3)]) -> str:
        return text

    with pytest.raises(ValidationError, match="at most 3 characters"):
        short.dump_input({"text": "four"})


def test_a_gate_can_be_added_but_not_taken_away() -> None:
    @worker(gated="It is final.")
    def final(text: str) -> str:
        return text

    @worker
    def plain(text: str) -> str:
        return text

    assert [final.gated(reason).gate for reason in ("Too much.", "", None)] == ["Too much.", "It is final.", "It is final."]
    assert [plain.gated(reason).gate for reason in ("Too much.", "", None)] == ["Too much.", "", ""]


def test_a_worker_may_be_declared_again_in_its_own_place() -> None:
    """As when its module is reloaded."""
    first, second = worker(named("again")), worker(named("again"))
    assert find_worker(first.name) is second


def test_a_question_is_found_by_its_recorded_name(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ask_human(Out, title="Say it")
    assert (question.name, question.title) == ("ask_human[tests.test_sdk.Out]", "Say it")
    monkeypatch.setattr(sdk, "WORKERS", {})  # as in a process that never asked it
    found = find_worker(question.name)
    assert found is not None
    assert (found.output_type, found.asks) == (Out, True)
    assert find_worker("ask_human[os.path]") is None
    assert find_worker("gone.worker") is None


# --- bad declarations -----------------------------------------------------------------------------------------------


class Outer:
    class Inner(BaseModel):
        text: str


class ReadElsewhere(BaseModel):
    number: int = Field(default=0, validation_alias="no")


class Pair(BaseModel, Generic[T]):
    one: T


class Unlike:
    """No type that pydantic knows."""


class Required(BaseModel):
    limit: int


class OutOfRange(BaseModel):
    limit: int = Field(default=5, le=3)


def named(name: str, hints: dict[str, Any] | None = None, *, module: str = __name__) -> Callable[..., Any]:
    """A function from text to text, or with those types."""

    def function(text: Any) -> Any:
        return text

    function.__name__, function.__module__ = name, module
    function.__annotations__ = hints or {"text": str, "return": str}
    return function


def supervisor(run: Run, given: In) -> Out:
    return Out(text=given.text)


def by_keyword(run: Run, *, given: In) -> Out:
    return Out(text=given.text)


def without_run(run: int, given: In) -> Out:
    return Out(text=given.text)


def of_plain_text(run: Run, given: str) -> str:
    return given


async def later(text: str) -> str:
    return text


def one_by_one(text: str) -> Iterator[str]:
    yield text


def unannotated(text, number: int):  # type: ignore[no-untyped-def]
    return text


def starred(*text: str) -> str:
    return ""


def double_starred(**text: str) -> str:
    return ""


def by_position(text: str, /) -> str:
    return text


def aliased(text: Annotated[str, Field(alias="words")]) -> str:
    return text


def underscored(_text: str) -> str:
    return _text


def of_another_input(text: str, times: int) -> str:
    return text * times


def with_more(text: str, times: int = 1) -> str:
    return text * times


def of_nothing_said() -> Result:  # type: ignore[type-arg]
    return Result(1)


def with_fallback(other: Any, **options: Any) -> Any:
    return worker(fallback=other, **options)(named("do"))


def twice_recorded() -> Any:
    worker(named("do", module="one.agents"))
    return worker(named("do", module="two.agents"))


def two_agents() -> Any:
    agent("twice", title="", version="1")(supervisor)
    return agent("twice", title="", version="1")(named("another", dict(supervisor.__annotations__)))


def an_agent(slug: str = "one", version: str = "1", function: Any = supervisor, **options: Any) -> Any:
    return agent(slug, title="One", version=version, **options)(function)


class Sides(BaseModel):
    sides: list[str]


def of_sides(run: Run, given: Sides) -> Out:
    return Out(text="")


def local_model() -> Any:
    class Local(BaseModel):
        text: str

    return ask_human(Local)


WORKERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: worker(unannotated), "test_sdk.unannotated needs a type annotation for: text, return."),
    (
        lambda: worker(named("do", {"text": "Missing", "return": str})),
        "An annotation of test_sdk.do cannot be resolved (name 'Mis",
    ),
    (
        lambda: worker(named("do", {"text": "int |", "return": str})),
        "An annotation of test_sdk.do cannot be resolved (Forward ref",
    ),
    (lambda: worker(later), "test_sdk.later is asynchronous or yields; a job process calls it plainly: write def, and return."),
    (lambda: worker(one_by_one), "test_sdk.one_by_one is asynchronous or yields;"),
    (lambda: worker("do"), "Only a function can be declared, not 'do': put the decorator above a def."),
    (lambda: worker(starred), "test_sdk.starred cannot take *text: str: a run gives each input by its own keyword."),
    (lambda: worker(double_starred), "test_sdk.double_starred cannot take **text: str:"),
    (lambda: worker(by_position), "test_sdk.by_position cannot take text: str:"),
    (lambda: worker(aliased), "The inputs of test_sdk.aliased are named by its parameters: no alias, no _ in front (text)."),
    (lambda: worker(underscored), "The inputs of test_sdk.underscored are named by its parameters:"),
    (
        lambda: worker(named("do", {"text": Unlike, "return": str})),
        "The inputs of test_sdk.do cannot be written as JSON (Unable to g",
    ),
    (
        lambda: worker(named("do", {"text": str, "return": Unlike})),
        "The output of test_sdk.do cannot be written as JSON (Unable to g",
    ),
    (
        lambda: worker(named("do", {"text": Callable, "return": str})),
        "The inputs of test_sdk.do cannot be written as JSON (Cannot ge",
    ),
    (lambda: worker(of_nothing_said), "test_sdk.of_nothing_said returns a Result of anything: say of what, as in Result[str]."),
    (lambda: worker(named("d" * 112)), f"The name 'test_sdk.{'d' * 112}' is longer than 120 letters:"),
    (lambda: worker(title="t" * 201)(named("do")), "The title of test_sdk.do is longer than 200 letters: tttt"),
    (lambda: worker(titel="Do it")(named("do")), "@worker has no option titel; it has title, effect, risk, critical,"),
    (lambda: worker(effect="twice")(named("do")), "test_sdk.do has the effect 'twice'; it must be none, idempotent or once."),
    (lambda: worker(risk="low")(named("do")), "The worker test_sdk.do has the risk 'low'; it must be normal or high."),
    (lambda: worker(attempts=0)(named("do")), "test_sdk.do has 0 attempts; it needs at least 1."),
    (lambda: worker(timeout=0)(named("do")), "The worker test_sdk.do has a timeout of 0 s; it needs more than 0."),
    (lambda: worker(total_timeout=-1)(named("do")), "The worker test_sdk.do has a total timeout of -1 s; it needs more than 0."),
    (lambda: with_fallback(skip("")), "test_sdk.do is skipped with the note '': say what is missing, in 1 to 300 letters."),
    (lambda: with_fallback(skip("n" * 301)), "test_sdk.do is skipped with the note 'nnn"),
    (
        lambda: with_fallback(skip("Gone.")),
        "test_sdk.do is skipped with None, which is no result of it: give skip(..., value=...)",
    ),
    (lambda: with_fallback("ask"), "The fallback of test_sdk.do must be another worker, the bare ask_human, or skip(note)."),
    (
        lambda: with_fallback(named("other")),
        "The fallback of test_sdk.do must be another worker, the bare ask_human, or skip(note).",
    ),
    (
        lambda: with_fallback(ask_human(Out)),
        "The fallback of test_sdk.do must be another worker, the bare ask_human, or skip(note).",
    ),
    (
        lambda: with_fallback(worker(gated="Careful.")(named("other"))),
        "The fallback test_sdk.other is gated; a fallback cannot be gated: gate test_sdk.do itself.",
    ),
    (
        lambda: with_fallback(worker(named("other", {"text": str, "return": int}))),
        "The fallback test_sdk.other returns another type than test_sdk.do.",
    ),
    (
        lambda: with_fallback(worker(of_another_input)),
        "The fallback test_sdk.of_another_input takes other inputs than test_sdk.do (times): make them the same.",
    ),
    (
        lambda: worker(fallback=worker(named("other")))(with_more),
        "The fallback test_sdk.other takes other inputs than test_sdk.with_more (times):",
    ),
    (twice_recorded, "Two workers are recorded as 'agents.do': one.agents.do and two.agents.do. Rename one."),
]

QUESTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: ask_human(str), "ask_human needs the pydantic model of the answer, not <class 'str'>."),
    (lambda: ask_human(Outer.Inner), "ask_human cannot find Outer.Inner again: define it at the top of tests.test_sdk."),
    (local_model, "ask_human cannot find local_model.<locals>.Local again: define it at the top of tests.test_sdk."),
    (lambda: ask_human(Pair[int]), "ask_human cannot find Pair[int] again: define it at the top of tests.test_sdk."),
    (lambda: ask_human(ReadElsewhere), "ReadElsewhere], it is written with other keys than it is read with (no, number):"),
    (
        lambda: ask_human(Out, draft=Required(limit=1)),
        "The draft of ask_human[tests.test_sdk.Out] is a Required; give a value of",
    ),
    (lambda: ask_human(Out, title="t" * 201), "The title of ask_human[tests.test_sdk.Out] is longer than 200 letters"),
]

SUPERVISORS: list[tuple[Callable[[], Any], str]] = [
    *(
        (lambda slug=slug: an_agent(slug), f"The slug {slug!r} cannot stand in an address:")
        for slug in ("", "Desk", "a b", "é", "-a", "a" * 81)
    ),
    (lambda: an_agent(version=""), "The agent 'one' has the version ''; it must have 1 to 40 letters."),
    (lambda: an_agent(version="1" * 41), "it must have 1 to 40 letters."),
    (lambda: an_agent(threshold=90), "The agent 'one' has the threshold 90; it must be between 0 and 1."),
    (lambda: an_agent(config=Required), "In the configuration of 'one' every field needs a default that fits it; change: limit."),
    (
        lambda: an_agent(config=OutOfRange),
        "In the configuration of 'one' every field needs a default that fits it; change: limit.",
    ),
    (lambda: an_agent(config=dict), "The configuration of 'one' is not a pydantic model: <class 'dict'>."),
    (lambda: an_agent(config=ReadElsewhere), "In the configuration of 'one', it is written with other keys than it is read with"),
    (
        lambda: an_agent(function=of_plain_text),
        "must take (run, input) and return an output; input and output are pydantic models.",
    ),
    (lambda: an_agent(function=by_keyword), "The agent tests.test_sdk.by_keyword must take (run, input) and return an output;"),
    (lambda: an_agent(function=without_run), "The agent tests.test_sdk.without_run must take (run, input) and return an output;"),
    (lambda: an_agent(function=later), "tests.test_sdk.later is asynchronous or yields;"),
    (lambda: an_agent(tenant="customer"), "The tenant of 'one' is 'customer', which is no field of its input; it has text."),
    (
        lambda: an_agent(tenant="sides", function=of_sides),
        "The tenant of 'one' is 'sides', which must be text or a",
    ),
    (two_agents, "Two agents have the slug 'twice': tests.test_sdk.supervisor and tests.test_sdk.another. Rename one."),
]


@pytest.mark.parametrize(("declare", "words"), [*WORKERS, *QUESTIONS, *SUPERVISORS])
def test_a_bad_declaration_says_what_to_change(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises(BadDeclaration, match=re.escape(words)) as refused:
        declare()
    assert "\n" not in str(refused.value)


def test_what_is_refused_is_not_found() -> None:
    with pytest.raises(BadDeclaration):
        worker(effect="twice")(named("refused"))
    with pytest.raises(BadDeclaration):
        an_agent("refused", config=Required)
    assert find_worker("test_sdk.refused") is None
    assert "refused" not in sdk.AGENTS


def test_a_fallback_may_take_more_than_it_is_given() -> None:
    assert with_fallback(worker(with_more)).fallback.name == "test_sdk.with_more"


# --- what an agent imports ------------------------------------------------------------------------------------------


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", sorted(AGENTS.glob("*.py")), ids=lambda path: path.stem)
def test_an_agent_imports_the_sdk_the_integrations_pydantic_and_the_standard_library(path: Path) -> None:
    """`make check` says it by module; this says it of every package there is."""
    ours = re.compile(r"runs\.(sdk|integrations)(\.|$)")
    foreign = {name for name in imported(path) if not ours.match(name)}
    assert {name.split(".")[0] for name in foreign} <= ({"pydantic"} | sys.stdlib_module_names) - CONNECTING
