"""Runs written to files before they are removed, a row a line, and whether such files still hold what was removed."""

import gzip
import json
import os
import secrets
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import connection

from runs.engine.canonical import sha256
from runs.engine.events import Fact, first_broken
from runs.models import Pruning, Tombstone

SUFFIX = ".jsonl.gz"
UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error)


class Archive:
    """A directory within that of the archive, of one pruning while it is at work: it replaces no file of another, or of before.

    What is in it is for the account that wrote it, and for no other.
    """

    def __init__(self, directory: Path, pruning: int) -> None:
        self.directory, self.name = directory, f"pruning-{pruning}-{secrets.token_hex(4)}"
        self.is_made = False

    def write(self, name: str, selections: Sequence[tuple[str, str]], given: dict[str, Any]) -> str:
        """These rows, each of a table and an SQL condition, as lines like {"runs_event": {...}}; on the disk when this returns.

        Returns the file's name within the directory of the archive. Raises OSError.
        """
        if not self.is_made:
            make(self.directory)
            _make_one(self.directory / self.name)
            self.is_made = True
        file = self.directory / self.name / f"{name}{SUFFIX}"
        part = file.with_suffix(".part")
        with open(part, "wb", opener=_for_its_owner) as raw:
            with gzip.open(raw, "wt", encoding="utf-8") as out:
                for table, condition in selections:
                    for row in _rows(table, condition, given):
                        out.write(f'{{"{table}":{row}}}\n')
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(file)
        _sync(file.parent)
        return f"{self.name}/{file.name}"


def make(directory: Path) -> None:
    """With those above it, where they are missing. Raises OSError."""
    if not directory.is_dir():
        make(directory.parent)
        with suppress(FileExistsError):  # another made it at that moment; what is no directory is found by who goes on
            _make_one(directory)


def _make_one(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    _sync(directory.parent)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _rows(table: str, condition: str, given: dict[str, Any]) -> Iterator[str]:
    statement = f'COPY (SELECT to_jsonb(one)::text FROM "{table}" AS one WHERE {condition}) TO STDOUT'  # noqa: S608 - names of our own tables
    with connection.cursor() as cursor, cursor.copy(statement, given) as copy:
        for (row,) in copy.rows():
            yield row


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


# --- do they hold? ------------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """One run of a file."""

    facts: list[Fact] = field(default_factory=list)
    payloads: set[str] = field(default_factory=set)
    wrong: str = ""


def wrong(directory: Path) -> Iterator[tuple[int, int, str]]:
    """File by file: how many of its runs hold, and the first that does not, with what is wrong with it.

    The files are those of prunings that wrote into this directory, or are found here; of all, where none did: it was moved.
    """
    written_in = {pk: Path(into).resolve() for pk, into in Pruning.objects.exclude(archive="").values_list("pk", "archive")}
    mine = {pk for pk, into in written_in.items() if into == directory.resolve()} or written_in.keys()
    here = {path.name for path in directory.iterdir()}
    named = Tombstone.objects.exclude(archive="").order_by("archive").values_list("archive", "pruning").distinct()
    for name, pruning in named.iterator():
        if pruning in mine or name.partition("/")[0] in here:
            yield _looked_at(directory, name)


def _looked_at(directory: Path, name: str) -> tuple[int, int, str]:
    tombstones = Tombstone.objects.filter(archive=name).in_bulk()
    try:
        kept = _read(directory / name)
    except UNREADABLE as error:
        return 0, min(tombstones), f"the file {name} cannot be read ({error})"
    for count, (run_id, tombstone) in enumerate(sorted(tombstones.items())):
        if said := _not_as(kept[run_id], tombstone):
            return count, run_id, f"{said}, in the file {name}"
    return len(tombstones), 0, ""


def _not_as(kept: Kept, tombstone: Tombstone) -> str:
    if kept.wrong or (broken := first_broken(tombstone.run_id, kept.facts)):
        return kept.wrong or broken
    if len(kept.facts) != tombstone.last_seq or kept.facts[-1].hash != tombstone.head_hash:
        return f"its tombstone says {tombstone.last_seq} events, and there are {len(kept.facts)} or others"
    large = {one["hash"] for fact in kept.facts for one in fact.data.get("large", {}).values()}
    return "" if large == kept.payloads else "a payload is missing"


def _read(file: Path) -> dict[int, Kept]:
    runs: dict[int, Kept] = defaultdict(Kept)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            ((table, row),) = json.loads(line).items()
            if table == "runs_event":
                runs[row["run_id"]].facts.append(_fact(row))
            if table == "runs_payload":
                runs[row["run_id"]].payloads.add(row["hash"])
                if sha256(row["body"]) != row["hash"]:
                    runs[row["run_id"]].wrong = f"payload {row['hash']} was changed"
    for kept in runs.values():
        kept.facts.sort(key=lambda fact: fact.seq)
    return runs


def _fact(row: dict[str, Any]) -> Fact:
    return Fact(**{one: row[one] for one in Fact._fields} | {"at": datetime.fromisoformat(row["at"])})
