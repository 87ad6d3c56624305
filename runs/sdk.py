"""All that the author of an agent imports: agent, worker, Run, call, Result, ask_human, skip and the three kinds of error."""

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import UnionType
from typing import Any, Generic, Protocol, Union, get_args, get_origin, overload

from pydantic import BaseModel
from typing_extensions import TypeVar

from runs import declaration
from runs.declaration import BadDeclaration, Budget, Effect, P, R, Risk, Worker, dump_model
from runs.engine.canonical import clean
from runs.engine.errors import AskHuman, GiveUp, TryLater
from runs.values import (
    BudgetExhausted,
    Child,
    Decided,
    Expired,
    Outcome,
    Rejected,
    Result,
    Skip,
    StepContext,
    current_step,
    executing,
)

__all__ = [
    "Agent", "AskHuman", "BadDeclaration", "Budget", "BudgetExhausted", "Call", "Child", "Decided", "Expired", "GiveUp",
    "Outcome", "Rejected", "Result", "Run", "Skip", "StepContext", "TryLater", "Worker", "agent", "agents", "ask_human", "call",
    "current_step", "dump_model", "executing", "find_worker", "skip", "skip_of", "worker",
]  # fmt: skip


class NoConfig(BaseModel):
    """The configuration of an agent that declares none."""


C = TypeVar("C", bound=BaseModel, default=NoConfig)
TENANT_LETTERS = 80


# --- workers ----------------------------------------------------------------------------------------------------


@overload
def worker(function: Callable[P, Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(function: Callable[P, R | Result[R]], /) -> Worker[P, R]: ...
@overload
def worker(
    *, title: str = "", effect: Effect = "none", risk: Risk = "normal", critical: bool = False, fallback: Any = None,
    gated: str = "", attempts: int | None = None, timeout: float | None = None, total_timeout: float | None = None,
    masked: tuple[str, ...] = (), uses: str | tuple[str, ...] = (), says: str = "", remarks: bool = False,
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


OPTIONS = (
    "title", "effect", "risk", "critical", "fallback", "gated", "attempts", "timeout", "total_timeout", "masked", "uses", "says",
    "remarks",
)  # fmt: skip


class Decorator(Protocol):
    """What @worker(...) returns."""

    @overload
    def __call__(self, function: Callable[P, Result[R]], /) -> Worker[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R | Result[R]], /) -> Worker[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any: ...


def ask_human(
    answer: type[R], *, title: str = "Ask a person", within: float | None = None, draft: R | None = None
) -> Worker[..., R]:
    """A step that a person answers with the pydantic model `answer`; its one input is `question`.

    The `draft`, where there is one, is shown beside the form of the answer, which is empty: a person writes it. When nobody has
    answered within so many seconds, the supervisor gets Expired.
    As `fallback=ask_human` it means: when every attempt has failed, a person supplies the result.
    """
    name = f"ask_human[{_place_of_answer(answer)}]"
    declaration.check_name(name, title)
    known = WORKERS.get(name)
    if known is None or known.output_type is not answer:
        output = declaration.output_adapter(answer, name)
        known = WORKERS[name] = Worker(_nobody, name, title, Question, output, answer, asks=True)
    proposed = declaration.draft(draft, answer, name)
    return replace(known, title=title, within=declaration.seconds(within, name), draft=proposed)


def skip(note: str, *, value: Any = None) -> Skip:
    """As `fallback=skip("The rating is missing.")`: when every attempt has failed, the run goes on without the result.

    The step's result is then `value`, which its type must allow. The run ends as completed partially and says the note.
    """
    return Skip(note, value)


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


def skip_of(worker: Worker[..., Any]) -> Skip | None:
    """What the worker, or the one that is its fallback, is skipped with; None where it cannot be."""
    last = worker.fallback.fallback if isinstance(worker.fallback, Worker) else worker.fallback
    return last if isinstance(last, Skip) else None


def effects(worker: Worker[..., Any]) -> set[str]:
    """What carrying it out may do outside: its own effect, and that of the worker that is its fallback."""
    return {worker.effect} | ({worker.fallback.effect} if isinstance(worker.fallback, Worker) else set())


def risk(worker: Worker[..., Any]) -> Risk:
    """What its author says of carrying it out, or of the worker that is its fallback: the higher."""
    likewise = worker.fallback.risk if isinstance(worker.fallback, Worker) else "normal"
    return "high" if "high" in (worker.risk, likewise) else "normal"


def _declare(
    function: Callable[..., Any], *, title: str = "", gated: str = "", uses: str | tuple[str, ...] = (), **options: Any
) -> Worker[..., Any]:
    name = declaration.recorded_name(function)
    options["uses"] = declaration.dependencies(uses, name)
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
    if made.risk not in get_args(Risk):
        raise BadDeclaration(f"The worker {made.name} has the risk {made.risk!r}; it must be normal or high.")
    if made.attempts is not None and made.attempts < 1:
        raise BadDeclaration(f"The worker {made.name} has {made.attempts} attempts; it needs at least 1.")
    for what, limit in (("timeout", made.timeout), ("total timeout", made.total_timeout)):
        if limit is not None and not limit > 0:
            raise BadDeclaration(f"The worker {made.name} has a {what} of {limit:g} s; it needs more than 0.")
    declaration.check_says(made.name, made.says, made.input_model)
    declaration.check_masked(made.name, made.masked, made.input_model, made.output)
    if isinstance(made.fallback, Skip):
        declaration.check_skip(made.name, made.fallback.note, made.fallback.value, made.output)
    elif made.fallback is not None and made.fallback is not ask_human:
        _check_fallback(made, made.fallback)


def _check_fallback(made: Worker[..., Any], other: Any) -> None:
    """It is called in the worker's place, within the step that was recorded for the worker."""
    if not isinstance(other, Worker) or other.asks:
        raise BadDeclaration(f"The fallback of {made.name} must be another worker, the bare ask_human, or skip(note).")
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


@dataclass(frozen=True)
class Call(Generic[R]):
    """A step that is yet to be performed: see `call` and `Run.gather`."""

    name: str
    worker: Worker[..., R]
    inputs: dict[str, Any]


def call(name: str, worker: Worker[P, R], /, *args: P.args, **inputs: P.kwargs) -> Call[R]:
    """What `run.step` would be told, for `run.gather`."""
    return Call(name, worker, _by_keyword(name, worker, args, inputs))


def _by_keyword(name: str, worker: Worker[..., Any], args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    if args:
        raise TypeError(f"step {name!r}: give the inputs of {worker.name} by keyword")
    return inputs


Tags = Iterable[str] | None


class Engine(Protocol):
    """What stands behind a Run."""

    def perform(self, name: str, worker: Worker[..., Any], inputs: dict[str, Any]) -> Any: ...
    def gather(self, calls: Sequence[Call[Any]]) -> list[Any]: ...
    def spawn(self, name: str, agent: "Agent | str", inputs: Sequence[Any], tags: Tags = None) -> list[Child]: ...
    def join(self, name: str, waited_for: Sequence[Child]) -> list[Outcome]: ...
    def sleep(self, name: str, *, until: datetime | None = None, seconds: float = 0.0) -> None: ...
    def decision(self, name: str) -> Decided | None: ...


class Run(Generic[C]):
    """What a supervisor holds: the run's id, its configuration, and what it may do. Names of steps are unique in the run."""

    def __init__(self, run_id: int, config: C, engine: Engine) -> None:
        self.id, self.config, self._engine = run_id, config, engine
        self._children: list[Child] = []
        self._joins = 0

    def step(self, name: str, worker: Worker[P, R], /, *args: P.args, **inputs: P.kwargs) -> R:
        """Have the worker do one thing, once: a recorded result is returned without doing it again.

        Give inputs by keyword. Raises Rejected when a reviewer says no.
        """
        result: R = self._engine.perform(name, worker, _by_keyword(name, worker, args, inputs))
        return result

    def gather(self, *calls: Call[R]) -> list[R]:
        """Have several workers do independent things side by side; the results in order.

        When all are done: raises Rejected or Expired for the first that a person refused.
        """
        return self._engine.gather(calls)

    def spawn(self, name: str, agent: "Agent | str", given: Any, *, tags: Tags = None) -> Child:
        """Start a run of the agent on the input, once, with the tags of this run, or these: it goes on by itself anywhere."""
        return self._spawned(name, agent, [given], tags)[0]

    def spawn_many(self, name: str, agent: "Agent | str", inputs: Sequence[Any], *, tags: Tags = None) -> list[Child]:
        """The same for many inputs, as one step."""
        return self._spawned(name, agent, inputs, tags)

    def _spawned(self, name: str, agent: "Agent | str", inputs: Sequence[Any], tags: Tags) -> list[Child]:
        children = self._engine.spawn(name, agent, inputs, tags)
        self._children += children
        return children

    def join(self, *children: Child, name: str = "") -> list[Outcome]:
        """Wait for these children (without any: for all that were spawned); how each ended, in order.

        This run holds no process meanwhile. A child that failed or was cancelled is an outcome like any other.
        """
        self._joins += 1
        default = "join" if self._joins == 1 else f"join_{self._joins}"
        return self._engine.join(name or default, children or tuple(self._children))

    def decision(self, name: str) -> Decided | None:
        """What a person decided about a step that this run has done; None where nobody was asked.

        So a supervisor knows that a person replaced what its worker had proposed. Raises ValueError for a step that it has
        not come to.
        """
        return self._engine.decision(name)

    def sleep(self, name: str, seconds: float) -> None:
        """Wait so long, holding no process."""
        self._engine.sleep(name, seconds=declaration.seconds(seconds, f"the wait {name!r}") or 0.0)

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Wait until then (an aware datetime), holding no process. On a replay the time that was recorded first counts."""
        if moment.tzinfo is None:
            raise ValueError(f"The wait {name!r} needs a time with a zone, such as datetime.now(UTC); {moment} has none.")
        self._engine.sleep(name, until=moment)


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
    budget: Budget
    tenant: str

    def tenant_of(self, recorded: Any) -> str:
        """Whose work a run on this input does, where the agent says how to know."""
        if not self.tenant:
            return ""
        field = self.input_model.model_fields[self.tenant]
        found = recorded.get(field.serialization_alias or field.alias or self.tenant)  # as inputs are recorded
        return "" if found is None else clean(" ".join(str(found).split()), TENANT_LETTERS)


AGENTS: dict[str, Agent] = {}


def agents() -> list[Agent]:
    """Every registered agent, by title."""
    return sorted(AGENTS.values(), key=lambda agent: agent.title)


def agent(
    slug: str, *, title: str, version: str, config: type[BaseModel] = NoConfig, threshold: float = 0.8,
    warm_up: Callable[[], object] | None = None, budget: Budget = Budget(), tenant: str = "",
) -> Callable[[Callable[[Any, Any], Any]], Agent]:  # fmt: skip
    """Register a supervisor: (run, input model) -> output model, straight-line Python, no I/O outside a step.

    `warm_up` is called once in each job process before it takes its first job. `budget` is what a run may spend, as the
    default of the agent's configuration. `tenant` is the field of its input that says whose work a run does: what dependencies
    have room for is shared fairly between them.
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
        declaration.check_tenant(slug, tenant, given)
        text = inspect.cleandoc(function.__doc__ or "")
        AGENTS[slug] = Agent(slug, title, version, text, function, given, returned, config, threshold, warm_up, budget, tenant)
        return AGENTS[slug]

    return register
