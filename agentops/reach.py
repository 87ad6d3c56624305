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

from django.utils.functional import cached_property

from runs import sdk
from runs.reliability import guard


class Unreadable(Exception):
    """What a function calls cannot be read from its source; the message says where and what to do."""


def reached(of: sdk.Worker[..., Any] | sdk.Agent, read: "Read | None" = None) -> dict[str, str]:
    """Dependency -> the function that calls it, for all that the function of a worker, or of a supervisor, may come to itself.

    What is only known when it runs (a method of a parameter, a function from a list) is not found here; guard refuses it
    then. `read` keeps what was read for who asks about many, most of which come to the same functions. Raises Unreadable.
    """
    read = {} if read is None else read
    found: dict[str, str] = {}
    ours = {"runs", of.function.__module__.partition(".")[0]}
    waiting: list[Callable[..., Any]] = [of.function]
    of_workers = isinstance(of, sdk.Worker)
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) not in seen:
            seen.add(id(function))
            if (source := read.get(id(function))) is None:
                source = read[id(function)] = _Source(function)
            found |= dict.fromkeys(source.dependencies, source.place)
            waiting += [other for other in source.functions(of_workers=of_workers) if other.__module__.partition(".")[0] in ours]
    return found


OURS = ("agentops", "reviews", "runs")
WAYS_OUT = (
    "aiohttp", "anthropic", "apprise", "boto3", "botocore", "django.core.mail", "ftplib", "grpc", "http.client",
    "httpx", "httpx2", "imaplib", "openai", "paramiko", "poplib", "psycopg", "psycopg2", "pydantic_ai", "pymysql",
    "redis", "requests", "smtplib", "socket", "urllib.request", "urllib3", "websockets", "xmlrpc",
)  # fmt: skip


def ways_out(of: sdk.Worker[..., Any] | sdk.Agent) -> dict[str, str]:
    """Module that opens connections -> the function of the author's that uses it, other than in what guard.call is given.

    Our own packages are kept to that by the import contracts. Raises Unreadable.
    """
    package = of.function.__module__.partition(".")[0]
    if package in OURS:
        return {}
    found: dict[str, str] = {}
    waiting: list[Callable[..., Any]] = [of.function]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if function.__module__.partition(".")[0] == package and id(function) not in seen:
            seen.add(id(function))
            source = _Source(function)
            source.leave_out_what_guard_calls()
            for name in source.modules():
                if way := next((one for one in WAYS_OUT if name == one or name.startswith(f"{one}.")), ""):
                    found[way] = source.place
            waiting += source.functions(of_workers=isinstance(of, sdk.Worker))
    return found


class _Source:
    """One function as it is written, and what the names in it mean. It holds the function, so that its id stays its own."""

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

    @cached_property
    def dependencies(self) -> list[str]:
        """What it hands to guard.call."""
        return list(self._dependencies())

    def _dependencies(self) -> Iterator[str]:
        for node in self.nodes:
            if isinstance(node, ast.Call) and self.meaning(node.func) is guard.call:
                name = self.meaning(node.args[0]) if node.args else None
                if not isinstance(name, str):
                    raise Unreadable(f'{self.place} calls guard with a name that is not written there: use a constant or "text".')
                yield name

    def leave_out_what_guard_calls(self) -> None:
        """What it hands to guard.call, be it written there or a function within it that is named there."""
        calls = (node for node in self.nodes if isinstance(node, ast.Call) and self.meaning(node.func) is guard.call)
        handed: list[ast.AST] = [
            part for call in calls for part in [*call.args[1:], *(keyword.value for keyword in call.keywords)]
        ]
        names = {node.id for part in handed for node in ast.walk(part) if isinstance(node, ast.Name)}
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                handed += node.body
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                handed += [node.value for target in node.targets if isinstance(target, ast.Name) and target.id in names]
        left_out = {id(node) for part in handed for node in ast.walk(part)}
        self.nodes = [node for node in self.nodes if id(node) not in left_out]

    def modules(self) -> Iterator[str]:
        """Whence the things come that it names."""
        for node in self.nodes:
            meant = self.meaning(node) if isinstance(node, ast.Name | ast.Attribute) else None
            name = meant.__name__ if isinstance(meant, ModuleType) else getattr(meant, "__module__", None)
            if isinstance(name, str):
                yield name

    def functions(self, *, of_workers: bool) -> Iterator[FunctionType]:
        """Those that it names, be it to call them or to hand them on; of a class, its methods; of a worker, its own."""
        for meant in self._meant:
            if isinstance(meant, sdk.Worker):
                meant = meant.function if of_workers else None
            members = list(vars(meant).values()) if isinstance(meant, type) else [meant]
            yield from (function for member in members for function in _behind(member))

    @cached_property
    def _meant(self) -> list[Any]:
        return [meant for node in self.nodes if (meant := self.meaning(node)) is not None]

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


Read = dict[int, _Source]  # by the id of the function
FROM_OUTSIDE = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE", "IMPORT_NAME"}
