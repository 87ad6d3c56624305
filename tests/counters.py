"""One of the shared counters at a time, as tests ask them: a window, slots, a breaker."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from runs.reliability import entry, limiter, store
from runs.reliability.breaker import BreakerTerms, Change, Minute, Open
from runs.reliability.entry import Entered
from runs.reliability.limiter import Limits, NoRoom
from runs.reliability.reading import readings
from runs.reliability.slots import LEASE_SECONDS, NoSlot


@dataclass(frozen=True, slots=True)
class Canary:
    """The one call that tries; `change` says that the breaker was open before."""

    entered: Entered

    @property
    def change(self) -> Change | None:
        return self.entered.change


@dataclass(frozen=True, slots=True)
class Closed:
    """Go ahead."""


def admit(
    dependency: str, key: str, limits: Limits, tokens: int = 0, *, ticket: str, known_since: datetime | None = None
) -> Entered | NoRoom:
    answer = entry.enter(dependency, key, ticket, limits=limits, tokens=tokens, known_since=known_since)
    assert isinstance(answer, Entered | NoRoom)
    return answer


def admitted(*given: object, **more: object) -> Entered:
    """Where there is room."""
    answer = admit(*given, **more)  # type: ignore[arg-type]
    assert isinstance(answer, Entered)
    return answer


@contextmanager
def scripts_with(part: str, old: str, new: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts themselves, with one number changed."""
    scripts = shutil.copytree(store.SCRIPTS, folder / "lua")
    changed = scripts / f"{part}.lua"
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    monkeypatch.setattr(store, "SCRIPTS", scripts)
    store._script.cache_clear()
    yield
    store._script.cache_clear()


def settle(entered: Entered, used: int | None = None) -> None:
    """The call is over, and used so many tokens."""
    entry.leave(entered, ok=None, duration=0.0, tokens=used)


def used(dependency: str, limits: Limits) -> limiter.Use:
    return readings({dependency: limits})[dependency].use


def waiting(dependency: str) -> dict[str, int]:
    """Key -> how many of its calls wait."""
    return {key: int(count) for key, count in store.redis().hgetall(f"{store.home(dependency)}:waiting").items()}


def minutes(dependency: str) -> list[Minute]:
    return readings({dependency: Limits()})[dependency].minutes


def take(
    dependency: str, ticket: str, concurrency: int, lease_seconds: float = LEASE_SECONDS, *, key: str = "",
    known_since: datetime | None = None,
) -> Entered | NoSlot:  # fmt: skip
    limits = Limits(concurrency=concurrency)
    answer = entry.enter(dependency, key, ticket, limits=limits, lease_seconds=lease_seconds, known_since=known_since)
    assert isinstance(answer, Entered | NoSlot)
    return answer


def taken(*given: object, **more: object) -> Entered:
    """A slot that there is."""
    answer = take(*given, **more)  # type: ignore[arg-type]
    assert isinstance(answer, Entered)
    return answer


def ask(dependency: str, terms: BreakerTerms, caller: str, lease_seconds: float = LEASE_SECONDS) -> Closed | Canary | Open:
    answer = entry.enter(dependency, "", caller, limits=Limits(), terms=terms, lease_seconds=lease_seconds)
    if isinstance(answer, Entered):
        return Canary(answer) if answer.canary else Closed()
    assert isinstance(answer, Open)
    return answer


def report(dependency: str, terms: BreakerTerms, canary: Canary | None, ok: bool, duration: float) -> Change | None:
    """Of the canary, or of somebody who was let in before."""
    if canary is None:
        called = Entered(dependency, "somebody", terms, grant="somebody", tokens=0, holds_slot=False, canary=False, change=None)
    else:
        called = canary.entered
    return entry.leave(called, ok=ok, duration=duration)
