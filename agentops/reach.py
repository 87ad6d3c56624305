"""Which dependencies a function reaches: read from its source, and from that of every function of ours it names."""

import ast
import builtins
import dis
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

from runs import sdk
from runs.reliability import guard


class Unreadable(Exception):
    """What a function calls cannot be read from its source; the message says where and what to do."""


def reached(of: sdk.Worker[..., Any] | sdk.Agent) -> dict[str, str]:
    """Dependency -> the function that calls it, for all that the function of a worker, or of a supervisor, may come to itself.

    What is only known when it runs (a method of a parameter, a function from a list) is not found here; guard refuses it
    then. Raises Unreadable.
    """
    found: dict[str, str] = {}
    ours = {"runs", of.function.__module__.partition(".")[0]}
    waiting: list[Callable[..., Any]] = [of.function]
    of_workers = isinstance(of, sdk.Worker)
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) not in seen:
            seen.add(id(function))
            source = _Source(function)
            found |= dict.fromkeys(source.dependencies(), f"{function.__module__}.{function.__qualname__}")
            waiting += [other for other in source.functions(of_workers=of_workers) if other.__module__.partition(".")[0] in ours]
    return found


class _Source:
    """One function as it is written, and what the names in it mean."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.place = f"{function.__module__}.{function.__qualname__}"
        self.names = dict(_enclosed(function))
        self.nodes = list(self._read())
        self.names |= dict(self._imported())

    def _read(self) -> Iterator[ast.AST]:
        """Where there is no source (made without a file, one of several lambdas in a line), what its code names stands for it."""
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        except (OSError, SyntaxError, TypeError):
            yield from self._compiled()
            return
        body = [statement for node in tree.body for statement in getattr(node, "body", [node])]
        yield from (node for statement in body for node in ast.walk(statement))

    def _compiled(self) -> Iterator[ast.Name]:
        """Raises Unreadable for what may call outside: then nobody knows which dependency."""
        for name in sorted(_names(self.function.__code__)):
            node = ast.Name(name)
            meant = self.meaning(node)
            unknown = meant is None and name not in self.names and name not in self.function.__globals__
            if unknown or meant is guard.call or isinstance(meant, ModuleType):
                said = f"the source of {self.place} cannot be read, and it names {name}"
                raise Unreadable(f"{said}: write it as a function in a file, so that it shows what it calls.")
            yield node

    def dependencies(self) -> Iterator[str]:
        """What it hands to guard.call."""
        for node in self.nodes:
            if isinstance(node, ast.Call) and self.meaning(node.func) is guard.call:
                name = self.meaning(node.args[0]) if node.args else None
                if not isinstance(name, str):
                    raise Unreadable(f'{self.place} calls guard with a name that is not written there: use a constant or "text".')
                yield name

    def functions(self, *, of_workers: bool) -> Iterator[FunctionType]:
        """Those that it names, be it to call them or to hand them on; of a class, its methods; of a worker, its own."""
        for node in self.nodes:
            meant = self.meaning(node)
            if isinstance(meant, sdk.Worker):
                meant = meant.function if of_workers else None
            members = list(vars(meant).values()) if isinstance(meant, type) else [meant]
            yield from (function for member in members for function in _behind(member))

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


def _behind(member: Any) -> Iterator[FunctionType]:
    """A function, or those behind a method, a property, a partial or a decorator that kept it."""
    parts = (member.fget, member.fset, member.fdel) if isinstance(member, property) else (member,)
    for part in parts:
        found = part.func if isinstance(part, partial) else getattr(part, "__func__", part)
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, FunctionType):
            yield found


def _enclosed(function: Any) -> Iterator[tuple[str, Any]]:
    """What it has from the function around it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            yield name, None


def _names(code: CodeType) -> Iterator[str]:
    """What it uses by a name from outside itself, and what it imports."""
    inner = set(code.co_cellvars)
    for step in dis.get_instructions(code):
        if step.opname in FROM_OUTSIDE and step.argval not in inner and not hasattr(builtins, step.argval):
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from (name for name in _names(part) if name not in inner)


FROM_OUTSIDE = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE", "IMPORT_NAME"}
