"""Which dependencies a function reaches: read from its source, and from that of every function of ours it names."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from runs import sdk
from runs.reliability import guard


class Unreadable(Exception):
    """A call whose dependency cannot be read from the source; the message says where and what to do."""


def reached(worker: sdk.Worker[..., Any]) -> dict[str, str]:
    """Dependency -> the function that calls it, for all that the worker's function may come to.

    What is only known when it runs (a method of a parameter, a function from a list) is not found here; guard refuses it
    then. Raises Unreadable.
    """
    found: dict[str, str] = {}
    ours = {"runs", worker.function.__module__.partition(".")[0]}
    waiting: list[Callable[..., Any]] = [worker.function]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) not in seen:
            seen.add(id(function))
            source = _Source(function)
            found |= dict.fromkeys(source.dependencies(), f"{function.__module__}.{function.__qualname__}")
            waiting += [other for other in source.functions() if other.__module__.partition(".")[0] in ours]
    return found


class _Source:
    """One function as it is written, and what the names in it mean."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, SyntaxError, TypeError):  # made without a file, or one of several lambdas in a line
            tree = ast.Module([], [])
        body = [statement for node in tree.body for statement in getattr(node, "body", [node])]
        self.nodes = [node for statement in body for node in ast.walk(statement)]
        self.names = dict(self._imported())

    def dependencies(self) -> Iterator[str]:
        """What it hands to guard.call."""
        for node in self.nodes:
            if isinstance(node, ast.Call) and self.meaning(node.func) is guard.call:
                name = self.meaning(node.args[0]) if node.args else None
                if not isinstance(name, str):
                    place = f"{self.function.__module__}.{self.function.__qualname__}"
                    raise Unreadable(f'{place} calls guard with a name that is not written there: use a constant or "text".')
                yield name

    def functions(self) -> Iterator[FunctionType]:
        """Those that it names, be it to call them or to hand them on; of a class, its methods."""
        for node in self.nodes:
            meant = self.meaning(node)
            if isinstance(meant, sdk.Worker):
                meant = meant.function
            meant = inspect.unwrap(meant) if callable(meant) else meant
            if isinstance(meant, FunctionType):
                yield meant
            elif isinstance(meant, type):
                yield from (one for one in vars(meant).values() if isinstance(one, FunctionType))

    def meaning(self, node: ast.AST) -> Any:
        """The value of a constant, a name or a dotted name; None for everything else."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.names.get(node.id, self.function.__globals__.get(node.id))
        if isinstance(node, ast.Attribute):
            owner = self.meaning(node.value)
            return getattr(owner, node.attr, None) if isinstance(owner, ModuleType | type) else None
        return None

    def _imported(self) -> Iterator[tuple[str, Any]]:
        """What it imports by itself, where that is loaded already."""
        for node in self.nodes:
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = sys.modules.get(node.module or "")
                for alias in node.names:
                    loaded = sys.modules.get(f"{node.module}.{alias.name}")
                    yield alias.asname or alias.name, getattr(module, alias.name, loaded)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or name, sys.modules.get(name)
