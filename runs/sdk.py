"""All that the author of an agent imports: agent, worker, Run, Result, ask_human and the three kinds of error."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, Generic, Literal, ParamSpec, Protocol, Union, get_args, get_origin, get_type_hints, overload

from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from typing_extensions import TypeVar

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


class BadDeclaration(ImproperlyConfigured):
    """An agent or worker that cannot be used as it is written; the message says what to change."""


class Rejected(Exception):
    """A reviewer said no to this step. The supervisor may catch it and go another way; else the run fails."""

    def __init__(self, reason: str, by: str) -> None:
        super().__init__(f"{by} rejected it: {reason}" if reason else f"{by} rejected it")
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
    asks: bool = False

    def gated(self, reason: str | None) -> "Worker[P, R]":
        """The same worker, executed only after a person approved it; no reason, no gate."""
        return replace(self, gate=reason or "")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, as a test does; a run calls `run.step`."""
        return self.function(*args, **kwargs)


@overload
def worker(function: Callable[P, Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(function: Callable[P, R | Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(
    *, title: str = "", effect: Effect = "none", critical: bool = False, fallback: Any = None, gated: str = "",
    attempts: int | None = None,
) -> "Decorator": ...  # fmt: skip
def worker(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a worker: annotated keyword parameters in, a Result[T] (judged) or a plain T (a fact) out.

    Raises BadDeclaration for a missing annotation, or for a critical worker without a fallback.
    """
    if function is not None:
        return _declare(function)
    return lambda function: _declare(function, **options)


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
    name = f"ask_human[{answer.__module__}.{answer.__qualname__}]"
    inputs = create_model("Question", question=(str, ...))
    return Worker(_nobody, name, title, inputs, TypeAdapter(answer), answer, asks=True)


def _nobody(question: str) -> None:
    raise AskHuman(question)


WORKERS: dict[str, Worker[..., Any]] = {}


def find_worker(name: str) -> Worker[..., Any] | None:
    """The worker of that recorded name, or None when the code no longer has it."""
    if name in WORKERS or not name.startswith("ask_human["):
        return WORKERS.get(name)
    module, _, answer = name.removeprefix("ask_human[").removesuffix("]").rpartition(".")
    found = getattr(sys.modules.get(module), answer, None)
    return ask_human(found) if isinstance(found, type) and issubclass(found, BaseModel) else None


def _declare(function: Callable[..., Any], *, title: str = "", gated: str = "", **options: Any) -> Worker[..., Any]:
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    hints = _hints(function, name)
    returned = hints.pop("return")
    output_type = _value_type(returned)
    title = title or function.__name__.replace("_", " ").capitalize()
    inputs = _input_model(function, hints, title)
    made: Worker[..., Any] = Worker(function, name, title, inputs, TypeAdapter(output_type), output_type, gate=gated, **options)
    _check_fallback(made)
    WORKERS[name] = made
    return made


def _value_type(returned: Any) -> Any:
    """T of Result[T], of T, and of T | Result[T] (a worker that estimates only sometimes)."""
    if get_origin(returned) is Result:
        return get_args(returned)[0]
    if get_origin(returned) in (Union, UnionType):
        return Union[tuple(_value_type(part) for part in get_args(returned))]  # noqa: UP007 - made at run time
    return returned


def _input_model(function: Callable[..., Any], hints: dict[str, Any], title: str) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    return create_model(title, __config__=ConfigDict(extra="forbid"), **fields)


def _check_fallback(made: Worker[..., Any]) -> None:
    if made.critical and made.fallback is None:
        raise BadDeclaration(
            f"The worker {made.name} is critical but names no fallback: add fallback=ask_human or another worker."
        )
    if isinstance(made.fallback, Worker) and made.fallback.output_type != made.output_type:
        raise BadDeclaration(f"The fallback {made.fallback.name} returns another type than {made.name}.")


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Annotations by parameter and "return". Raises BadDeclaration when one is missing."""
    hints = get_type_hints(function)
    wanted = [*inspect.signature(function).parameters, "return"]
    missing = [parameter for parameter in wanted if parameter not in hints]
    if missing:
        raise BadDeclaration(f"{name} needs a type annotation for: {', '.join(missing)}.")
    return {parameter: hints[parameter] for parameter in wanted}


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
    Raises BadDeclaration for a second agent of the slug, or for a function that is not of that form.
    """

    def register(function: Callable[[Any, Any], Any]) -> Agent:
        where = f"{function.__module__}.{function.__name__}"
        if slug in AGENTS and _place(AGENTS[slug].function) != where:
            raise BadDeclaration(f"Two agents have the slug {slug!r}: {_place(AGENTS[slug].function)} and {where}. Rename one.")
        if not 0 <= threshold <= 1:
            raise BadDeclaration(f"The agent {slug!r} has the threshold {threshold}; it must be between 0 and 1.")
        given, returned = _form(function, where)
        text = inspect.cleandoc(function.__doc__ or "")
        AGENTS[slug] = Agent(slug, title, version, text, function, given, returned, config, threshold, warm_up)
        return AGENTS[slug]

    return register


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def _form(function: Callable[..., Any], where: str) -> tuple[type[BaseModel], type[BaseModel]]:
    hints = list(_hints(function, where).values())
    models = [hint for hint in hints[1:] if isinstance(hint, type) and issubclass(hint, BaseModel)]
    if len(hints) != 3 or len(models) != 2:
        raise BadDeclaration(
            f"The agent {where} must take (run, input) and return an output; input and output are pydantic models."
        )
    return models[0], models[1]
