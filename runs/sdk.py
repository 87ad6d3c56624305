"""All that the author of an agent imports: agent, worker, Run, Result, ask_human and the three kinds of error."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, Generic, Literal, ParamSpec, Protocol, Union, get_args, get_origin, overload

from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypeVar

from runs import declaration
from runs.declaration import BadDeclaration
from runs.engine.errors import AskHuman, GiveUp, TryLater

__all__ = [
    "Agent", "AskHuman", "BadDeclaration", "GiveUp", "Rejected", "Result", "Run", "TryLater", "Worker",
    "agent", "agents", "ask_human", "current_step", "find_worker", "worker",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


class NoConfig(BaseModel):
    """The configuration of an agent that declares none."""


C = TypeVar("C", bound=BaseModel, default=NoConfig)
Effect = Literal["none", "idempotent", "once"]


class Rejected(Exception):
    """A reviewer said no to this step. The supervisor may catch it and go another way; else the run fails."""

    def __init__(self, reason: str, by: str, did: str = "rejected it") -> None:
        super().__init__(f"{by} {did}: {reason}" if reason else f"{by} {did}")
        self.reason, self.by = reason, by


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """A value that its worker estimates. `confidence` in [0, 1], or None, which is under every threshold.

    `source` says how the confidence was obtained; `alternatives` maps other answers to their confidence.
    """

    value: R
    confidence: float | None = None
    why: str = ""
    source: str = ""
    alternatives: dict[str, float] = field(default_factory=dict)


# --- the step that a worker is executing ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepContext:
    """`key` is stable over attempts and processes: give it to the other side as the idempotency key."""

    key: str
    attempt: int = 1
    remark: str = ""


_step: ContextVar[StepContext] = ContextVar("step")


def current_step() -> StepContext:
    """The step that is being executed. Raises LookupError outside a worker."""
    return _step.get()


@contextmanager
def executing(context: StepContext) -> Iterator[None]:
    """Make the context what current_step() returns."""
    token = _step.set(context)
    try:
        yield
    finally:
        _step.reset(token)


# --- workers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker(Generic[P, R]):
    """A function that does one thing for a supervisor, with what the engine must know about it."""

    function: Callable[..., Any]
    name: str
    title: str
    input_model: type[BaseModel]
    output: TypeAdapter[Any]
    output_type: Any
    effect: Effect = "none"
    critical: bool = False
    fallback: Any = None  # another Worker, or ask_human
    gate: str = ""
    attempts: int | None = None
    timeout: float | None = None  # seconds for one attempt
    asks: bool = False

    def gated(self, reason: str | None) -> "Worker[P, R]":
        """The same worker, executed only after a person approved it. Without a reason it is as it was declared."""
        return replace(self, gate=reason or self.gate)

    def dump(self, value: Any) -> Any:
        """The answer as the JSON value that is recorded. Raises pydantic's ValidationError when it cannot be read back."""
        recorded = self.output.dump_python(self.output.validate_python(value), mode="json", by_alias=True, round_trip=True)
        self.output.validate_python(recorded)
        return recorded

    def dump_input(self, given: Any) -> Any:
        """The inputs, by parameter, likewise."""
        recorded = dump_model(self.input_model.model_validate(given))
        self.input_model.model_validate(recorded)
        return recorded

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, as a test does; a run calls `run.step`."""
        return self.function(*args, **kwargs)


def dump_model(model: BaseModel) -> Any:
    """The JSON value that the model itself reads back: under its aliases, without what is computed."""
    return model.model_dump(mode="json", by_alias=True, round_trip=True)


@overload
def worker(function: Callable[P, Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(function: Callable[P, R | Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(
    *, title: str = "", effect: Effect = "none", critical: bool = False, fallback: Any = None, gated: str = "",
    attempts: int | None = None, timeout: float | None = None,
) -> "Decorator": ...  # fmt: skip
def worker(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a worker: annotated keyword parameters in, a Result[T] (judged) or a plain T (a fact) out.

    Raises BadDeclaration, whose sentence says what to change.
    """
    if function is not None:
        return _declare(function)
    if unknown := options.keys() - OPTIONS:
        raise BadDeclaration(f"@worker has no option {', '.join(sorted(unknown))}; it has {', '.join(OPTIONS)}.")
    return lambda function: _declare(function, **options)


OPTIONS = ("title", "effect", "critical", "fallback", "gated", "attempts", "timeout")


class Decorator(Protocol):
    """What @worker(...) returns."""

    @overload
    def __call__(self, function: Callable[P, Result[R]], /) -> Worker[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R | Result[R]], /) -> Worker[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any: ...


def ask_human(answer: type[R], *, title: str = "Ask a person") -> Worker[..., R]:
    """A step that a person answers with the pydantic model `answer`; its one input is `question`.

    As `fallback=ask_human` it means: when every attempt has failed, a person supplies the result.
    """
    name = f"ask_human[{_place_of_answer(answer)}]"
    declaration.check_name(name, title)
    known = WORKERS.get(name)
    if known is None or known.output_type is not answer:
        output = declaration.output_adapter(answer, name)
        known = WORKERS[name] = Worker(_nobody, name, title, Question, output, answer, asks=True)
    return replace(known, title=title)


class Question(BaseModel):
    """What a person is asked."""

    question: str


def _nobody(question: str) -> None:
    raise AskHuman(question)


def _place_of_answer(answer: Any) -> str:
    """Where find_worker, perhaps in another process, finds the model again."""
    if not (isinstance(answer, type) and issubclass(answer, BaseModel)):
        raise BadDeclaration(f"ask_human needs the pydantic model of the answer, not {answer!r}.")
    found: object = getattr(sys.modules.get(answer.__module__), answer.__qualname__, None)
    if found is not answer:
        raise BadDeclaration(f"ask_human cannot find {answer.__qualname__} again: define it at the top of {answer.__module__}.")
    return f"{answer.__module__}.{answer.__qualname__}"


WORKERS: dict[str, Worker[..., Any]] = {}  # by recorded name; a question is added when it is first asked


def find_worker(name: str) -> Worker[..., Any] | None:
    """The worker of that recorded name, or None when the code no longer has it."""
    if name in WORKERS or not name.startswith("ask_human["):
        return WORKERS.get(name)
    module, _, answer = name.removeprefix("ask_human[").removesuffix("]").rpartition(".")
    found = getattr(sys.modules.get(module), answer, None)
    return ask_human(found) if isinstance(found, type) and issubclass(found, BaseModel) else None


def _declare(function: Callable[..., Any], *, title: str = "", gated: str = "", **options: Any) -> Worker[..., Any]:
    name = declaration.recorded_name(function)
    hints = declaration.annotations(function, name)
    output_type = _value_type(hints.pop("return"), name)
    title = title or function.__name__.replace("_", " ").capitalize()
    declaration.check_name(name, title)
    inputs = declaration.input_model(function, hints, name=name, title=title)
    output = declaration.output_adapter(output_type, name)
    made: Worker[..., Any] = Worker(function, name, title, inputs, output, output_type, gate=gated, **options)
    _check(made)
    WORKERS[name] = made
    return made


def _check(made: Worker[..., Any]) -> None:
    known = WORKERS.get(made.name)
    if known and known.function.__module__ != made.function.__module__:
        places = f"{declaration.place(known.function)} and {declaration.place(made.function)}"
        raise BadDeclaration(f"Two workers are recorded as {made.name!r}: {places}. Rename one.")
    if made.effect not in get_args(Effect):
        raise BadDeclaration(f"The worker {made.name} has the effect {made.effect!r}; it must be none, idempotent or once.")
    if made.attempts is not None and made.attempts < 1:
        raise BadDeclaration(f"The worker {made.name} has {made.attempts} attempts; it needs at least 1.")
    if made.timeout is not None and made.timeout <= 0:
        raise BadDeclaration(f"The worker {made.name} has a timeout of {made.timeout:g} s; it needs more than 0.")
    if made.critical and made.fallback is None:
        raise BadDeclaration(
            f"The worker {made.name} is critical but names no fallback: add fallback=ask_human or another worker."
        )
    if made.fallback is not None and made.fallback is not ask_human:
        _check_fallback(made, made.fallback)


def _check_fallback(made: Worker[..., Any], other: Any) -> None:
    """It is called in the worker's place, within the step that was recorded for the worker."""
    if not isinstance(other, Worker) or other.asks:
        raise BadDeclaration(f"The fallback of {made.name} must be another worker, or the bare ask_human.")
    if other.gate:
        raise BadDeclaration(f"The fallback {other.name} is gated; a fallback cannot be gated: gate {made.name} itself.")
    if other.output_type != made.output_type:
        raise BadDeclaration(f"The fallback {other.name} returns another type than {made.name}.")
    declaration.check_fallback_inputs(made.name, made.input_model, other.name, other.input_model)


def _value_type(returned: Any, name: str) -> Any:
    """T of Result[T], of T, and of T | Result[T] (a worker that estimates only sometimes)."""
    if returned is Result:
        raise BadDeclaration(f"{name} returns a Result of anything: say of what, as in Result[str].")
    if get_origin(returned) is Result:
        return get_args(returned)[0]
    if get_origin(returned) in (Union, UnionType):
        return Union[tuple(_value_type(part, name) for part in get_args(returned))]  # noqa: UP007 - made at run time
    return returned


# --- agents -----------------------------------------------------------------------------------------------------


class Run(Generic[C]):
    """What a supervisor holds: the run's id, its configuration, and `step`."""

    def __init__(self, run_id: int, config: C, perform: Callable[[str, Worker[..., Any], dict[str, Any]], Any]) -> None:
        self.id, self.config, self._perform = run_id, config, perform

    def step(self, name: str, worker: Worker[P, R], /, *args: P.args, **inputs: P.kwargs) -> R:
        """Have the worker do one thing, once: a recorded result is returned without doing it again.

        Give inputs by keyword. Names are unique within the run. Raises Rejected when a reviewer says no.
        """
        if args:
            raise TypeError(f"step {name!r}: give the inputs of {worker.name} by keyword")
        result: R = self._perform(name, worker, inputs)
        return result


@dataclass(frozen=True)
class Agent:
    """A registered supervisor function. `threshold` is the default of its configuration."""

    slug: str
    title: str
    version: str
    description: str
    function: Callable[[Any, Any], BaseModel]
    input_model: type[BaseModel]
    output_model: type[BaseModel]
    config_model: type[BaseModel]
    threshold: float
    warm_up: Callable[[], object] | None


AGENTS: dict[str, Agent] = {}


def agents() -> list[Agent]:
    """Every registered agent, by title."""
    return sorted(AGENTS.values(), key=lambda agent: agent.title)


def agent(
    slug: str, *, title: str, version: str, config: type[BaseModel] = NoConfig, threshold: float = 0.8,
    warm_up: Callable[[], object] | None = None,
) -> Callable[[Callable[[Any, Any], Any]], Agent]:  # fmt: skip
    """Register a supervisor: (run, input model) -> output model, straight-line Python, no I/O outside a step.

    `warm_up` is called once in each job process before it takes its first job.
    Raises BadDeclaration, whose sentence says what to change.
    """

    def register(function: Callable[[Any, Any], Any]) -> Agent:
        declaration.check_agent(slug, version, threshold)
        known = AGENTS.get(slug)
        first, second = declaration.place(known.function if known else function), declaration.place(function)
        if first != second:
            raise BadDeclaration(f"Two agents have the slug {slug!r}: {first} and {second}. Rename one.")
        given, returned = declaration.models_of(function, Run)
        declaration.check_config(slug, config)
        text = inspect.cleandoc(function.__doc__ or "")
        AGENTS[slug] = Agent(slug, title, version, text, function, given, returned, config, threshold, warm_up)
        return AGENTS[slug]

    return register
