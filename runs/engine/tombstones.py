"""The chain of what is left of removed runs: each tombstone covers the end of a log, and the tombstone before it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from .canonical import digest
from .events import GENESIS


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is chained of a tombstone."""

    pruning: int
    place: int
    run_id: int
    last_seq: int
    head_hash: str
    by: str
    at: datetime
    archive: str
    prev_hash: str
    hash: str = ""


def seal(tombstone: Tombstone) -> str:
    """SHA-256 over all that it says, and over the hash before it."""
    moment = tombstone.at.astimezone(UTC).isoformat(timespec="microseconds")
    what = (tombstone.run_id, tombstone.last_seq, tombstone.head_hash, tombstone.by, moment, tombstone.archive)
    return digest(tombstone.prev_hash, tombstone.pruning, tombstone.place, *what)


Broken = tuple[int | None, int | None, str]  # in which pruning, of which run (None: at its end), and what


def first_broken(tombstones: Iterable[Tombstone], ends: dict[int, tuple[int, str]]) -> Broken:
    """The first tombstone that is not what was written, or (None, None, ""); `ends`: pruning -> tombstones, last hash.

    The tombstones come in the order of their prunings and places.
    """
    reached: dict[int, tuple[int, str]] = {}
    for tombstone in tombstones:
        place, prev_hash = reached.get(tombstone.pruning, (0, GENESIS))
        if tombstone.place != place + 1:
            missing = f"tombstone {place + 1} of pruning {tombstone.pruning} is missing (found {tombstone.place})"
            return tombstone.pruning, tombstone.run_id, missing
        if tombstone.prev_hash != prev_hash or seal(tombstone) != tombstone.hash:
            changed = f"its tombstone ({tombstone.place} of pruning {tombstone.pruning}) was changed after it was written"
            return tombstone.pruning, tombstone.run_id, changed
        reached[tombstone.pruning] = tombstone.place, tombstone.hash
    for pruning, (count, head_hash) in ends.items():
        there = reached.get(pruning, (0, ""))
        if there != (count, head_hash):
            return pruning, None, f"pruning {pruning} removed {count:,} runs, and there are {there[0]:,} tombstones, or others"
    return None, None, ""
