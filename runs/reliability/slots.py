"""Who may be inside a dependency at once: slots with leases, so that a dead holder's comes back."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from runs.reliability import store

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot: the ticket of its call, since when, and until when unless it is renewed.

    A call that was given up holds it for as long as it goes on.
    """

    name: str
    key: str
    since: datetime
    until: datetime
    given_up: bool


@dataclass(frozen=True, slots=True)
class NoSlot:
    """All are taken. Come back in so many seconds with the same ticket; each who waits has a time of its own."""

    holders: tuple[Holder, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """Of one call under way, named by its grant: whoever comes later with the same ticket has another."""

    dependency: str
    grant: str
    ticket: str
    slot: bool  # else it is only the canary


def renew(leases: Iterable[Lease], lease_seconds: float = LEASE_SECONDS) -> set[Lease]:
    """Prolong them, all of a process at once. Those are returned whose slot is lost: it may be another's by now."""
    held = {(lease.dependency, lease.grant): lease for lease in leases}
    questions: dict[str, dict[str, Any]] = {}
    for lease in held.values():
        questions.setdefault(lease.dependency, {"lease": lease_seconds, "calls": []})["calls"].append(asdict(lease))
    answers = store.ask_each("renew", questions) if questions else {}
    return {held[dependency, grant] for dependency, answer in answers.items() for grant in answer["lost"]}


def holders(dependency: str) -> list[Holder]:
    """Who holds a slot now, the longest first."""
    return list(held_by(store.ask("look", dependency, looks=True)))


def no_slot(answer: dict[str, Any]) -> NoSlot:
    """What the script said, as a value."""
    return NoSlot(held_by(answer), answer["seconds"])


def held_by(answer: dict[str, Any]) -> tuple[Holder, ...]:
    """The same of those inside. An empty list of Lua is an empty object of JSON."""
    return tuple(
        Holder(one["name"], one["key"], _moment(one["since"]), _moment(one["until"]), one["given_up"])
        for one in answer["holders"] or ()
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
