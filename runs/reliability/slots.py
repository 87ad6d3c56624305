"""Who may be inside a dependency at once: slots with leases, so that a dead holder's comes back."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot: the ticket it was taken with, since when, and until when unless it is renewed."""

    name: str
    key: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """The slot is held until released, or until its lease ends."""


@dataclass(frozen=True, slots=True)
class NoSlot:
    """All are taken. Come back in so many seconds with the same holder's name; each who waits has a time of its own."""

    holders: tuple[Holder, ...]
    seconds: float


def take(
    dependency: str, holder: str, concurrency: int, lease_seconds: float = LEASE_SECONDS, *, key: str = ""
) -> Taken | NoSlot:
    """Take a slot, or the one the holder already has, for as long as the lease. Between keys, who holds fewest goes first."""
    raise NotImplementedError


def renew(holders: Iterable[tuple[str, str]], lease_seconds: float = LEASE_SECONDS) -> set[tuple[str, str]]:
    """Prolong the leases of (dependency, holder), all of a process in one round trip; those that are lost are returned."""
    raise NotImplementedError


def release(dependency: str, holder: str) -> None:
    """Give the slot back; nothing happens where it is not held any more."""
    raise NotImplementedError


def holders(dependency: str) -> list[Holder]:
    """Who holds a slot now, the longest first."""
    raise NotImplementedError
