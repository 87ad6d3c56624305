"""Runs that ended long ago, with all that are related to them: what of it may be removed, and why the rest stays."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from runs.models.run import ENDED

PAGE = 1_000  # runs that are looked at together


@dataclass(frozen=True, slots=True)
class Member:
    """A run of it, as far as it matters here."""

    id: int
    parent: int | None
    original: int | None
    status: str
    finished_at: datetime | None
    last_seq: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class Family:
    """Runs that belong together: parents with children, forks with originals. `why` says why they stay, of which run."""

    members: tuple[Member, ...]
    why: str = ""
    of: int = 0

    @property
    def ids(self) -> list[int]:
        return [one.id for one in self.members]

    @property
    def events(self) -> int:
        return sum(one.last_seq for one in self.members)


CANDIDATES = """
SELECT id, finished_at FROM runs_run WHERE finished_at < %(before)s AND (finished_at, id) > (%(at)s, %(id)s)
ORDER BY finished_at, id LIMIT %(most)s
"""
COLUMNS = "id, parent_id, forked_from_id, status, finished_at, last_seq, head_hash"
MEMBERS = " UNION ".join(
    f"SELECT {COLUMNS} FROM runs_run WHERE {column} = ANY(%(ids)s)"  # noqa: S608 - constants
    for column in ("id", "parent_id", "forked_from_id")
)
# each question names those of the runs for which it is so
HELD, BROKEN, OPEN, YOUNG = "held", "damaged (the log does not hold)", "open", "younger"
ASKED = "asked about in an open review"
QUESTIONS = {
    HELD: "SELECT run_id FROM runs_hold WHERE run_id = ANY(%(ids)s) AND released_at IS NULL",
    BROKEN: "SELECT run_id FROM runs_brokenlog WHERE run_id = ANY(%(ids)s)",
    ASKED: "SELECT run_id FROM reviews_review WHERE run_id = ANY(%(ids)s) AND state = 'open'",
}


def old(before: datetime) -> Iterator[list[Family]]:
    """Every family with a run that ended before then, once, some at a time and the oldest first."""
    at, last, seen = datetime.min.replace(tzinfo=before.tzinfo), 0, set[int]()
    while found := _asked(CANDIDATES, before=before, at=at, id=last, most=PAGE):
        last, at = found[-1]
        new = [run_id for run_id, _ in found if run_id not in seen]
        families = look(new, before)
        seen |= {one.id for family in families if len(family.members) > 1 for one in family.members}
        yield families


def look(run_ids: Collection[int], before: datetime) -> list[Family]:
    """The families of these runs, as they are now."""
    known = _related(run_ids)
    ids = list(known)
    told = {why: {run_id for (run_id,) in _asked(question, ids=ids)} for why, question in QUESTIONS.items()} if ids else {}
    told[OPEN] = {one.id for one in known.values() if one.status not in ENDED or one.finished_at is None}
    told[YOUNG] = {one.id for one in known.values() if one.finished_at and one.finished_at >= before}
    return [_judged(members, told) for members in _grouped(known)]


def _judged(members: list[Member], told: dict[str, set[int]]) -> Family:
    family = Family(tuple(sorted(members, key=lambda one: one.id)))
    for why, ids in told.items():
        if of := ids & set(family.ids):
            return Family(family.members, why, min(of))
    return family


def _related(run_ids: Collection[int]) -> dict[int, Member]:
    known: dict[int, Member] = {}
    asked, next_ = set[int](), set(run_ids)
    while next_:
        asked |= next_
        found = [Member(*row) for row in _asked(MEMBERS, ids=list(next_))]
        known |= {one.id: one for one in found}
        near = {other for one in found for other in (one.id, one.parent, one.original) if other is not None}
        next_ = near - asked
    return known


def _grouped(known: dict[int, Member]) -> list[list[Member]]:
    above: dict[int, int] = {}

    def top(run_id: int) -> int:
        while (over := above.get(run_id, run_id)) != run_id:
            above[run_id] = above.get(over, over)
            run_id = over
        return run_id

    for one in known.values():
        for other in (one.parent, one.original):
            if other is not None:
                above[top(one.id)] = top(other)
    groups: dict[int, list[Member]] = defaultdict(list)
    for one in known.values():
        groups[top(one.id)].append(one)
    return list(groups.values())


def _asked(question: str, **given: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(question, given)
        return list(cursor.fetchall())
