"""A run as of one of its events: its state then, folded from as much of its log as the page shows."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db.models import Max, Q, QuerySet

from runs import event_log
from runs.cards import STEPS_SHOWN, Shown, StepCard, meanwhile
from runs.engine.events import Fact, Kind
from runs.engine.phases import History, history
from runs.engine.state import RunState
from runs.models import Run, Step
from runs.projections import step_columns

OF_RUN_READ = 50  # the last of the run's own events: what it is doing follows from those since it was last taken
NAMED_READ = 50  # steps that the run waits for, beside those that are shown


@dataclass(frozen=True, slots=True)
class Past:
    """`fact` is the last event that counts; `step` the one that it, or the last before it, is about. `read` counts events."""

    until: int
    fact: Fact
    state: RunState
    shown: Shown
    step: int | None
    read: int

    @property
    def earlier(self) -> int:
        return self.until - 1

    @property
    def later(self) -> int:
        return self.until + 1


def as_of(run: Run, until: int, *, about: int | None = None) -> Past:
    """The run as its events up to `until` left it, with the steps about the one of that event, or about another."""
    rows = event_log.rows(run.pk).filter(seq__lte=until)
    latest = rows.filter(step__isnull=False).reverse().values_list("step", flat=True).first()
    count = rows.aggregate(Max("step"))["step__max"] or 0
    positions = _window(min(about or latest or 1, count), count)
    of_run = list(rows.filter(kind__startswith="Run").reverse()[:OF_RUN_READ])
    named = _named(of_run, rows)
    wanted = Q(seq=1) | Q(seq__in=[row.seq for row in of_run]) | Q(step__in=[*positions, *named])
    wanted |= meanwhile(rows, positions, count)
    facts = event_log.outlined(run.pk, (event_log.as_fact(row) for row in rows.filter(wanted)))
    told = history(facts)
    steps = [_card(run, position, told, facts) for position in positions if position in told.state.steps]
    first = _first(facts, positions)
    drawn = history(fact for fact in facts if fact.step in positions or fact.seq >= first)
    drawn.steps = {position: line for position, line in drawn.steps.items() if position in positions}
    last = facts[-1] if facts[-1].seq == until else event_log.as_fact(rows.get(seq=until))
    return Past(until, last, told.state, Shown(steps, drawn, count), latest, len(facts))


def _window(about: int, count: int) -> range:
    """So many steps as a page shows, with this one among them."""
    first = max(1, min(about - STEPS_SHOWN // 2, count - STEPS_SHOWN + 1))
    return range(first, min(first + STEPS_SHOWN - 1, count) + 1)


def _named(of_run: Collection[Any], rows: QuerySet[Any]) -> list[int]:
    """The steps for which the run was parked when it last was, and those that somebody decided about since."""
    parked = next((row for row in of_run if row.kind == Kind.RUN_PARKED), None)
    if parked is None:
        return []
    since = rows.filter(seq__gt=parked.seq, step__isnull=False).values_list("step", flat=True)[:NAMED_READ]
    return [*parked.data.get("steps", ())[:NAMED_READ], *([parked.step] if parked.step else []), *(one or 0 for one in since)]


def _card(run: Run, position: int, told: History, facts: list[Fact]) -> StepCard:
    said = told.state.steps[position]
    step = Step(run_id=run.pk, **step_columns(said))
    step.input, step.output, step.proposal = said.input, said.output, said.proposal
    return StepCard(step, line=told.steps[position], facts=[fact for fact in facts if fact.step == position])


def _first(facts: list[Fact], positions: Collection[int]) -> int:
    """Where the events of these steps begin; with the first step, those of the run do too."""
    if not positions or 1 in positions:
        return 1
    return min((fact.seq for fact in facts if fact.step in positions), default=1)
