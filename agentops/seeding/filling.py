"""Writes stories of the past by COPY: events with whole chains, and the rows that these fold to."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from random import Random
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from agentops.seeding import asked, desk, others
from agentops.seeding.story import Story
from runs.alerts import readings
from runs.engine.canonical import dumps, normalise
from runs.engine.events import GENESIS, Draft, Fact, write
from runs.engine.state import RunState, StepState, apply
from runs.models import search
from runs.projections import FACT_COLUMNS, RUN_COLUMNS, STEP_COLUMNS, TYPES, run_columns, step_columns

TOGETHER = 2_000  # runs in one transaction
BY_HOUR = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 18, 16, 17, 18, 17, 15, 12, 9, 7, 5, 4, 3, 2)  # how busy, from midnight on
OF_WEEKEND = 0.35
TROUBLE, BAD_HOURS, TROUBLE_THEN = 0.015, 0.02, 0.5  # how often what is outside fails, in which share of hours it fails often
SHARE_OF_DESK = 0.7
MOST_OPEN, OPEN_HOURS = 40, 24  # so many of the newest wait for a person still
NEWER_VERSION = 0.6  # of the time had passed when new versions came
JSON = {name for name, type_ in TYPES.items() if type_ == "jsonb"}
NUMBERS = "SELECT nextval(pg_get_serial_sequence('runs_run', 'id')) FROM generate_series(1, %s)"
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """One run of it, whose log is whole."""

    run_id: int
    facts: list[tuple[Fact, str]]
    state: RunState
    spent: dict[str, float]
    questions: list[asked.Question]


def fill(runs: int, *, days: int, seed: int, tell: Callable[[int, int], None]) -> None:
    """So many runs that began in the last days; `tell` hears how many are written. What is written stays when it is stopped."""
    random = Random(seed)  # noqa: S311 - not for secrets
    stories = _stories(runs, days, random)
    known = asked.People()
    for first in range(0, runs, TOGETHER):
        together = list(islice(stories, TOGETHER))
        _write_together(together, known)
        tell(first + len(together), runs)
    while search.fill():  # what the sweeper would take long for
        pass
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE runs_event, runs_step, runs_run, runs_budget, reviews_review, reviews_decision")
    readings.read_anew()


def write_one(story: Story) -> int:
    """A story alone; the number of its run."""
    return _write_together([story], asked.People())[0]


def _write_together(stories: list[Story], known: asked.People) -> list[int]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(NUMBERS, [len(stories)])
        ids = [number for (number,) in cursor.fetchall()]
        past = [_past(run_id, story) for run_id, story in zip(ids, stories, strict=True)]
        _write(cursor, past)
        asked.write((question for one in past for question in one.questions), known)
    return ids


def _stories(runs: int, days: int, random: Random) -> Iterator[Story]:
    """The oldest first, more by day than by night."""
    until = timezone.now() - timedelta(minutes=1)
    hours = [until - timedelta(hours=number) for number in range(1, days * 24 + 1)]
    weights = [BY_HOUR[hour.hour] * (OF_WEEKEND if hour.weekday() > 4 else 1.0) for hour in hours]
    trouble = {hour: TROUBLE_THEN if random.random() < BAD_HOURS else TROUBLE for hour in hours}
    chosen = random.choices(hours, weights, k=runs)
    times = sorted((hour + timedelta(seconds=random.uniform(0, 3600)), trouble[hour]) for hour in chosen)
    newer = hours[-1] + (until - hours[-1]) * NEWER_VERSION
    open_ = {len(times) - 1 - number * 3 for number in range(MOST_OPEN)}  # every third of the newest
    for number, (at, share) in enumerate(times):
        story = Story(random, at, timezone.now())
        waits = number in open_ and at > until - timedelta(hours=OPEN_HOURS)
        if waits or random.random() < SHARE_OF_DESK:
            desk.Desk(story, random.choice(desk.messages()), share, waits).tell()
        else:
            others.tell(random.choice(others.AGENTS), story, trouble=share, newest_since=newer)
        yield story


def _past(run_id: int, story: Story) -> Past:
    state, facts, prev_hash, questions = RunState(), list[tuple[Fact, str]](), GENESIS, list[asked.Question]()
    for seq, (at, draft) in enumerate(story.told, start=1):
        said = Draft(draft.kind, normalise(draft.data), draft.step, draft.actor)
        text = dumps(said.data)
        fact = write(said, run_id=run_id, seq=seq, at=at, prev_hash=prev_hash, text=text)
        apply(state, fact)
        facts.append((fact, text))
        prev_hash = fact.hash
        asked.hear(questions, run_id, state, fact)
    return Past(run_id, facts, state, story.spent, questions)


# --- COPY ---------------------------------------------------------------------------------------------------------

RUN = ["id", *RUN_COLUMNS, "lease_owner", "lost_owner", "fence"]
STEP = ["run_id", *STEP_COLUMNS]
BUDGET = ["scope", "unit", "used"]


def _write(cursor: Any, past: list[Past]) -> None:
    _copy(cursor, "runs_run", RUN, (_run(one) for one in past))
    _copy(cursor, "runs_event", FACT_COLUMNS, (row for one in past for row in _events(one)))
    _copy(cursor, "runs_step", STEP, (_step(one.run_id, step) for one in past for step in one.state.steps.values()))
    spent = ((f"run:{one.run_id}", unit, round(used, 6)) for one in past for unit, used in one.spent.items())
    _copy(cursor, "runs_budget", BUDGET, spent)


def _copy(cursor: Any, table: str, columns: list[str], rows: Iterable[Row]) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _run(one: Past) -> Row:
    return (one.run_id, *_values(run_columns(one.state), RUN_COLUMNS), "", "", one.state.fence)


def _step(run_id: int, step: StepState) -> Row:
    return (run_id, *_values(step_columns(step), STEP_COLUMNS))


def _events(one: Past) -> Iterator[Row]:
    for fact, text in one.facts:
        yield one.run_id, fact.seq, fact.kind, fact.step, fact.actor, text, fact.at, fact.prev_hash, fact.hash


def _values(said: dict[str, Any], columns: list[str]) -> Iterator[Any]:
    for name in columns:
        value = said[name]
        yield dumps(value) if name in JSON and value is not None else value
