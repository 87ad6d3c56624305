"""Columns of what agents, tools and people wrote: to whoever may not see payloads they give a word in its place.

Hidden is where the value leaves the database, so that no page, file, socket or filter has to think of it. The engine reads its
log by a way of its own (runs/pen.py), and is told everything.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import models
from django.db.models.fields.json import KeyTransform


class Hidden(str):
    """What stands in the place of a value."""

    __slots__ = ()


class HiddenMap(dict[str, Any]):
    """An object of which only the structure is told."""


HIDDEN = Hidden("payload is hidden")
A_STEP = Hidden("Step")  # in the place of a title that no code declares
ENGINE_TITLES = frozenset({"Wait", "Wait for other runs", "Ask a person"})
WAIT_FOR_RUNS = re.compile(r"Wait for (1 run|[0-9]+ runs)")
_hides: ContextVar[bool] = ContextVar("payloads_are_hidden", default=False)


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """What is read here is hidden, or is shown."""
    token = _hides.set(hide)
    try:
        yield
    finally:
        _hides.reset(token)


def are_hidden() -> bool:
    """Whether whoever is answered here may not see payloads."""
    return _hides.get()


class Content(models.Field):  # type: ignore[type-arg]
    """Mixed into a field whose values are content. The database knows it as the field that it is mixed into."""

    def hide(self, value: Any) -> Any:
        """What is told of a value that is there."""
        return HIDDEN

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        read = getattr(super(), "from_db_value", None)
        value = read(value, expression, connection) if read else value
        return value if value in (None, "") or not _hides.get() else self.hide(value)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """What was hidden when it was read is never written back."""
        if isinstance(value, Hidden | HiddenMap):
            raise TypeError(f"{self.name} is hidden here, and would be overwritten.")
        return super().get_db_prep_save(value, connection)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        base = next(one for one in type(self).__mro__ if one.__module__.startswith("django.db.models.fields"))
        return name, f"django.db.models.{base.__name__}", args, kwargs


class ContentText(Content, models.TextField):  # type: ignore[type-arg]
    pass


class ContentChar(Content, models.CharField):  # type: ignore[type-arg]
    pass


class ContentJSON(Content, models.JSONField):
    """Any JSON. Of an object that code looks into an empty one is told."""

    def hide(self, value: Any) -> Any:
        return HiddenMap() if isinstance(value, dict) and self.name in EMPTIED else HIDDEN


class Error(ContentJSON):
    """How something failed: its kind is told, which is the name of a class."""

    def hide(self, value: Any) -> Any:
        return structure(value) if isinstance(value, dict) else HIDDEN


class Title(ContentChar):
    """Of a step: told where code declares it. That of a question may be made while its run goes."""

    def hide(self, value: Any) -> Any:
        return title(value)


class Evidence(ContentJSON):
    """The rows that caused an alert: which they are, without what is said of each."""

    def hide(self, value: Any) -> Any:
        return [row | {"text": row["text"].partition(":")[0]} for row in value]


class EventData(ContentJSON):
    """What an event says: its structure is told."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        with hidden(False):
            value = super().from_db_value(value, expression, connection)
        if value is None or not _hides.get():
            return value
        keys = []
        while isinstance(expression, KeyTransform):  # as data__error__kind, from its end
            value, expression = {expression.key_name: value}, expression.lhs
            keys.append(next(iter(value)))
        told: Any = structure(value)
        while keys and isinstance(told, dict):
            told = told.get(keys.pop())
        return told


# Of what an event says only these keys are told: what is not among them was written by an agent, a tool or a person, or may be.
STRUCTURE = frozenset({
    "agent", "agent_version", "allowed", "approvals", "approved", "at", "attempt", "budget", "by", "cause", "confidence",
    "config", "cost", "counts", "crashes", "currency", "deadline", "decided_by", "decision", "default", "dependency", "depth",
    "displaces", "duration_ms", "effect", "effective_at", "exit_code", "fallback", "fence", "fingerprint", "finished_at",
    "forked_from", "from", "gate_passed", "judged", "kind", "late", "memory_mb", "model", "more", "needs", "others", "own_effect",
    "owner", "parent", "position", "provider", "risk", "role", "rule", "run", "runs", "sampled", "seconds", "signal",
    "started_at", "status", "step", "steps", "subject", "tags", "threshold", "tokens_in", "tokens_out", "wait_seconds", "wake_at",
    "worker",
})  # fmt: skip
WITHIN = frozenset({"error", "missing", "model_calls", "messages", "question", "held", "crash"})  # objects, or lists of them
EMPTIED = frozenset({"alternatives", "data", "schema"})  # objects that code looks into


def structure(data: dict[str, Any]) -> HiddenMap:
    """An event's data, or an object within it, without what agents, tools and people wrote."""
    return HiddenMap({key: _told(key, value, data) for key, value in data.items() if key != "large"})


def title(text: str) -> str:
    """Of a step, as far as it is known to be no content."""
    return text if WAIT_FOR_RUNS.fullmatch(text) or text in _titles() else A_STEP


def titles_with(text: str) -> list[str]:
    """The declared ones that hold the text, in large or small letters."""
    return [one for one in _titles() if text.casefold() in one.casefold()]


def declare_titles(titles: Callable[[], Iterable[str]]) -> None:
    """Say how to find those that the code of this installation gives."""
    global _declared
    _declared = titles


def _titles() -> frozenset[str]:
    return ENGINE_TITLES | frozenset(_declared())


_declared: Callable[[], Iterable[str]] = tuple


def _told(key: str, value: Any, among: dict[str, Any]) -> Any:
    if key in STRUCTURE:
        return value
    if value is None and key not in among.get("large", ()):
        return None
    if key in WITHIN and isinstance(value, list):
        return [structure(one) if isinstance(one, dict) else HIDDEN for one in value]
    if key in WITHIN and isinstance(value, dict):
        return structure(value)
    if key == "title" and isinstance(value, str):
        return title(value)
    if key in EMPTIED:
        return HiddenMap()
    if key == "proposal" and among.get("cause") == "budget":
        return value  # a limit, and what it would take to keep on
    if key == "reason" and "counts" in among:
        return value  # how a process ended
    says_it_by_its_cause = key == "why" and "dependency" in among  # a dependency holds it back
    return "" if key == "trace" or says_it_by_its_cause else HIDDEN
