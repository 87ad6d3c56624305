"""Who may be inside a dependency at once: slots with leases, so that a dead holder's comes back."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runs.reliability import store

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot: the ticket it was taken with, since when, and until when unless it is renewed."""

    name: str
    key: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class NoSlot:
    """All are taken. Come back in so many seconds with the same holder's name; each who waits has a time of its own."""

    holders: tuple[Holder, ...]
    seconds: float


def renew(holders: Iterable[tuple[str, str]], lease_seconds: float = LEASE_SECONDS) -> set[tuple[str, str]]:
    """Prolong the leases of (dependency, holder), all of a process in one round trip; those that are lost are returned."""
    by_dependency: dict[str, list[str]] = {}
    for dependency, holder in holders:
        by_dependency.setdefault(dependency, []).append(holder)
    if not by_dependency:
        return set()
    names = list(by_dependency)
    answer = store.ask("renew", names, holders=list(by_dependency.values()), lease=lease_seconds)
    return {(names[number - 1], holder) for number, holder in answer["lost"]}


def holders(dependency: str) -> list[Holder]:
    """Who holds a slot now, the longest first."""
    return list(_holders(store.ask("look", dependency, looks=True)))


def no_slot(answer: dict[str, Any]) -> NoSlot:
    """What the script said, as a value."""
    return NoSlot(_holders(answer), answer["seconds"])


def _holders(answer: dict[str, Any]) -> tuple[Holder, ...]:
    """An empty list of Lua is an empty object of JSON."""
    return tuple(Holder(one["name"], one["key"], _moment(one["since"]), _moment(one["until"])) for one in answer["holders"] or ())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
