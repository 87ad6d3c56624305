"""What agents do: every worker of every agent, with what happens when it finally fails."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, ModuleType
from typing import Any

from django.conf import settings

from runs import sdk

AnyWorker = sdk.Worker[..., Any]
Counted = Mapping[str, tuple[int, int]]
EFFECTS = {"none": "none outside", "idempotent": "safe to repeat", "once": "never repeated by itself"}


@dataclass(frozen=True, slots=True)
class Operation:
    """A worker as a page tells it. `failed` attempts and `degraded` steps (fallbacks taken, steps skipped) are recent.

    `is_bare`: it is critical, and nobody said what happens when it fails.
    """

    name: str
    title: str
    critical: bool
    is_bare: bool
    fallback: str
    uses: tuple[str, ...]
    effect: str
    attempts: int | None
    timeout_seconds: float
    failed: int
    degraded: int
    variant: int = 1  # of those with its name, which are one worker with other options: what happened is told of all together


def operation(worker: AnyWorker, failed: int = 0, degraded: int = 0) -> Operation:
    return Operation(
        worker.name, worker.title, worker.critical, is_bare(worker), fallback(worker), worker.uses, EFFECTS[worker.effect],
        worker.attempts, worker.timeout or settings.STEP_TIMEOUT_SECONDS, failed, degraded,
    )  # fmt: skip


def is_bare(worker: AnyWorker) -> bool:
    return worker.critical and worker.fallback is None


def bare() -> list[AnyWorker]:
    """The critical ones without a fallback, by name; also where an agent names one that was declared again with other options."""
    known = [*sdk.WORKERS.values(), *(one for agent in sdk.agents() for one in variants_of(agent))]
    found = {one.name: one for one in known if is_bare(one)}
    return [found[name] for name in sorted(found)]


def fallback(worker: AnyWorker) -> str:
    """What happens when every attempt has failed, in words."""
    match worker.fallback:
        case sdk.Worker() as other if isinstance(other.fallback, sdk.Skip):
            return f"{other.title}; when that fails too, {_lower(fallback(other))}"
        case sdk.Worker() as other:
            return f"{other.title}; when that fails too, a person decides"
        case sdk.Skip(note):
            return f"The run goes on without it, and says: {note}"
        case None:
            return "None named: a person decides"
    return "A person decides"


def operations_of(agent: sdk.Agent, counted: Counted | None = None) -> list[Operation]:
    """Its workers as a page tells them; each as often as it has other options. `counted`: name -> failed, degraded."""
    told: list[Operation] = []
    for worker in variants_of(agent):
        one = operation(worker, *(counted or {}).get(worker.name, (0, 0)))
        others = [other for other in told if other.name == one.name]
        if all(replace(other, variant=1) != one for other in others):
            told.append(replace(one, variant=len(others) + 1))
    return told


def workers_of(agent: sdk.Agent) -> list[AnyWorker]:
    """Those that it names, each once: as it was last declared."""
    return list({one.name: sdk.WORKERS.get(one.name, one) for one in variants_of(agent)}.values())


def variants_of(agent: sdk.Agent) -> list[AnyWorker]:
    """Those that its supervisor names, itself or through functions of its package; in the order in which they stand there.

    A function that was made a worker several times is there with the options of each.
    What is only known when it runs (a worker from elsewhere that is handed in) is not found.
    """
    package = agent.function.__module__.partition(".")[0]
    found: dict[int, AnyWorker] = {}
    waiting: list[Any] = [agent.function]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop(0)
        if id(function) in seen:
            continue
        seen.add(id(function))
        for meant in _named(function):
            if isinstance(meant, sdk.Worker) and not meant.asks:
                found.setdefault(id(meant), meant)
            elif isinstance(meant, FunctionType) and _is_authors(meant.__module__, package):
                waiting.append(meant)
    return list(found.values())


def agents_of(worker: AnyWorker) -> list[str]:
    """The slugs of the agents that name it."""
    return [agent.slug for agent in sdk.agents() if worker.name in {one.name for one in workers_of(agent)}]


def _is_authors(module: str, package: str) -> bool:
    """Not of the engine: that knows every worker."""
    return module.partition(".")[0] == package and (package != "runs" or module.startswith("runs.agents."))


def _named(function: FunctionType) -> Iterator[Any]:
    """What the names in a function mean, those of its inner functions too."""
    names = list(dict.fromkeys(_names(function.__code__)))
    around = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name in names:
        meant = around[name].cell_contents if name in around else function.__globals__.get(name)
        yield meant
        if isinstance(meant, ModuleType):
            yield from (getattr(meant, other, None) for other in names)
        elif isinstance(meant, dict):
            yield from meant.values()
        elif isinstance(meant, list | tuple):
            yield from meant


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
