"""What a page shows of one run: its steps with what happened to each, its events, and what stands beside them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import BooleanField, Case, Count, Func, Q, QuerySet, TextField, Value, When
from django.db.models.functions import Cast

from runs import budgets, children, describe, event_log, hearing, limited, live, sdk, waiting, waterfall
from runs.cards import NAMED_FROM, STEPS_SHOWN, Nested, Shown, StepCard, cards, nested, shown, told_of
from runs.engine.events import Fact, Kind
from runs.engine.phases import History, history
from runs.models import Run, RunStatus, Step
from runs.models.run import COMPLETED, in_order

EVENTS_SHOWN = 50  # on the run's page; its events page has all
WHOLE = 25  # of so many steps a page has all there is to know; of more only of those that somebody may look for
OPENED = 10  # steps of such a run that wait, fail or are under way
FORKS_SHOWN = 10
FOUND_SHOWN = 50  # steps in which a text was found
FIND_MS = 3000  # how long looking for one may take
USUAL_OF, USUAL_AMONG = 20, 200  # so many runs, of the last ones, say how many steps one usually takes
CHILDREN_SHOWN = 50
REDRAWN_MS, REDRAWN_FOR_EACH_MS = 2000, 50
RETRIED = {RunStatus.FAILED, RunStatus.CANCELLED}  # what a person may retry


@dataclass(frozen=True, slots=True)
class Related:
    """The runs that came from this one, as many as a page shows; `counts` are all its children by status."""

    forks: list[Run]
    forks_count: int
    children: list[Run]
    counts: dict[str, int]
    any: bool

    @property
    def forks_more(self) -> bool:
        return self.forks_count > len(self.forks)

    @property
    def children_count(self) -> int:
        return sum(self.counts.values())

    @property
    def children_more(self) -> bool:
        return self.children_count > len(self.children)


@dataclass(frozen=True, slots=True)
class EventLine:
    fact: Fact
    sentence: str
    run_id: int


def log(run_id: int, *, after: int, most: int, step: int | None = None) -> list[EventLine]:
    """A page of the run's events, or of those of one step, beyond the cursor."""
    return lines(run_id, facts(run_id, after=after, most=most, step=step))


def facts(run_id: int, *, after: int, most: int, step: int | None = None) -> list[Fact]:
    """The same as they are kept."""
    rows = event_log.rows(run_id, after=after)
    return _facts((rows if step is None else rows.filter(step=step))[:most])


def lines(run_id: int, told: Iterable[Fact]) -> list[EventLine]:
    """Each event with its sentence."""
    told = list(told)
    titles = _titles(run_id, {fact.step for fact in told if fact.step})
    return [EventLine(fact, describe.sentence(fact, titles), run_id) for fact in told]


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody wants to see: the steps `before` one, or those about `step`, which is opened; or all of them opened."""

    before: int | None = None
    step: int | None = None
    open_all: bool = False
    idle: bool = False  # also idle time to its scale


def page(run: Run, look: Look = Look()) -> dict[str, Any]:
    """Everything the run's page shows.

    The events come first: steps read after them are at least as new, and the socket goes on from the last event.
    """
    newest = lines(run.pk, reversed(_facts(event_log.rows(run.pk).reverse()[:EVENTS_SHOWN])))
    run.refresh_from_db()
    found = shown(run, before=look.before, step=look.step)
    seq = newest[-1].fact.seq if newest else 0
    lighten(found.cards, look, run.step_count)
    places = {"earlier": found.earlier, "later": found.later, "live": found.later is None and look.before is None}
    known = {"cards": found.cards, "lines": newest, "seq": seq, "socket": f"/ws/runs/{run.pk}/", "look": look}
    known |= {"most": {"steps": STEPS_SHOWN, "events": 2 * EVENTS_SHOWN}, "every_ms": redrawn_every(run.pk)}
    return head(run) | drawn(found, fold=not look.idle) | known | places


def lighten(found: list[StepCard], look: Look, count: int) -> None:
    """What is opened; of a run of many steps, what the others came to is fetched when somebody opens them."""
    is_long = count > WHOLE
    opened = {look.step, *[card.step.position for card in found if card.needs_attention][: OPENED if is_long else None]}
    for card in found:
        card.is_open = look.open_all or card.step.position in opened
        card.is_light = is_long and not card.is_open
        card.is_whole = card.step.position == look.step


def drawn(found: Shown, *, fold: bool, at: datetime | None = None) -> dict[str, Any]:
    """The bars of the steps, of the runs that they started, and of the run, on one axis; as they were `at` a time, or are now."""
    within = {card.step.position: card.nested for card in found.cards}
    reach = waterfall.Reach(begins=found.earlier is None, ends=found.later is None)
    made = _on_one_axis(found.history, within, reach, fold=fold, at=at)
    for card in found.cards:
        card.bar = made["bars"][card.step.position]
    return made


def bars(run: Run, first: int, last: int, *, fold: bool) -> dict[str, Any]:
    """The bars alone, of the steps from one to another, for a page whose axis has grown."""
    last = min(last, first + 2 * STEPS_SHOWN)
    told = history(told_of(run, range(first, last + 1)))
    within, reach = nested(told), waterfall.Reach(begins=first <= 1, ends=last >= run.step_count)
    drawn = _on_one_axis(told, within, reach, fold=fold) | {"every_ms": redrawn_every(run.pk)}
    return drawn | {"nested": [one for group in within.values() for one in group]}


def redrawn_every(run_id: int) -> int:
    """Milliseconds after which a page whose bars did not come asks for them: the more look at the run here, the longer."""
    return max(REDRAWN_MS, REDRAWN_FOR_EACH_MS * hearing.count(live.run_group(run_id)))


def nested_steps(run: Run, first: int, last: int, child: Run, *, fold: bool) -> dict[str, Any]:
    """The steps of a run that this one started, on its axis."""
    drawn, now = bars(run, first, last, fold=fold), event_log.now()
    found = cards(child)
    for card in found:
        card.bar = waterfall.bar(card.line, drawn["axis"], now)
    return {"run": child, "cards": found}


def _on_one_axis(
    told: History, within: dict[int, list[Nested]], reach: waterfall.Reach, *, fold: bool, at: datetime | None = None
) -> dict[str, Any]:
    now, inner = at or event_log.now(), [one for group in within.values() for one in group]
    axis = waterfall.axis(told, now, fold=fold, nested=[one.line for one in inner], reach=reach)
    for one in inner:
        one.bar = waterfall.bar(one.line, axis, now)
    drawn = {position: waterfall.bar(line, axis, now) for position, line in told.steps.items()}
    return {"axis": axis, "begins": reach.begins, "supervisor": waterfall.bar(told.run, axis, now), "bars": drawn}


def head(run: Run) -> dict[str, Any]:
    """What the parts beside the steps show: the run, its agent, why it waits, and the reviews that would let it go on."""
    with_large(run)
    why = waiting.answer(run)
    shown = {"waiting": why.sentence, "reviews": [review.pk for review in why.reviews], "related": related(run)}
    shown |= {"spent": budgets.spent_by_run(run.pk), "usual": None if run.ended else usual_steps(run.agent)}
    shown |= {"missing": event_log.missing(run.pk) if run.status == RunStatus.PARTIAL else []}
    shown |= {"went_on_without_it": children.parent_has_read(run) if run.status in RETRIED else False}
    queued = (run.started_at or run.created_at) - run.created_at
    shown |= {"queued_ms": queued / timedelta(milliseconds=1) if queued >= NAMED_FROM else None}
    return {"run": run, "agent": sdk.AGENTS.get(run.agent)} | shown


def usual_steps(agent: str) -> int | None:
    """How many steps its last runs took that came to their end; None where there are none to tell by, or all others are newer."""
    last = Run.objects.filter(agent=agent).order_by("-created_at", "-pk").values_list("status", "step_count")[:USUAL_AMONG]
    found = [steps for status, steps in last if status in COMPLETED][:USUAL_OF]
    return round(median(found)) if found else None


def find(run: Run, text: str) -> list[Step]:
    """The first steps whose title holds the text, or a value of one of their events; a number is one, or stands in a text.

    Raises TookTooLong. What is kept is compared first, and where in it the text stands only of what has it somewhere.
    """
    told = event_log.rows(run.pk).filter(step__isnull=False).annotate(text=Cast("data", TextField()))
    quoted = json.dumps(text, ensure_ascii=False)
    said = When(text__icontains=quoted[1:-1], then=_Holds("data", Value(_path(quoted, text))))
    told = told.filter(Case(said, default=Value(False), output_field=BooleanField())).order_by("step")
    with limited.at_most(FIND_MS):
        places = list(told.values_list("step", flat=True).distinct()[:FOUND_SHOWN])
        return list(run.steps.filter(Q(position__in=places) | Q(title__icontains=text)).order_by("position")[:FOUND_SHOWN])


class _Holds(Func):
    """Whether there is something on the path."""

    function, template, output_field = "jsonb_path_exists", "%(function)s(%(expressions)s::jsonpath)", BooleanField()


UNSAID = ("schema", "fingerprint", "approved", "allowed", "large")  # what no author, worker or person wrote


def _path(quoted: str, text: str) -> str:
    """Where the text stands in what an event says."""
    keys = " && ".join(f'@.key != "{key}"' for key in UNSAID)
    number = f" || @ == {text}" if text.isascii() and text.isdigit() and text == str(int(text)) else ""
    return f'$.keyvalue() ? ({keys}).value.** ? (@ like_regex {quoted} flag "iq"{number})'


def with_large(run: Run) -> Run:
    """The run, with a Large in the place of an input or output that is too large for its row."""
    if run.input is None:
        _set_large(run, "input", event_log.rows(run.pk).filter(kind=Kind.RUN_REQUESTED))
    if run.output is None and run.status in COMPLETED:
        _set_large(run, "output", event_log.rows(run.pk).filter(kind=Kind.RUN_SUCCEEDED).reverse())  # it stands at the end
    return run


def _set_large(run: Run, name: str, rows: QuerySet[Any]) -> None:
    for fact in event_log.outlined(run.pk, _facts(rows[:1])):
        setattr(run, name, fact.data[name])


def related(run: Run) -> Related:
    """Counted only where there are more than a page shows."""
    forks, children = list(run.forks.order_by("-pk")[: FORKS_SHOWN + 1]), list(run.children.order_by("pk")[:CHILDREN_SHOWN])
    forks_count = run.forks.count() if len(forks) > FORKS_SHOWN else len(forks)
    counts = dict(run.children.order_by().values_list("status").annotate(Count("pk"))) if children else {}
    related_to = forks or children or run.forked_from_id or run.parent_id
    return Related(forks[:FORKS_SHOWN], forks_count, children, in_order(counts), any=bool(related_to))


def steps_of(run_id: int, steps: Iterable[Step]) -> list[Step]:
    """The steps of one run with `input`, `output` and `proposal`, for a page."""
    return event_log.with_payloads(run_id, steps)


def _facts(rows: QuerySet[Any]) -> list[Fact]:
    return [event_log.as_fact(row) for row in rows]


def _titles(run_id: int, positions: set[int]) -> dict[int, str]:
    found = Step.objects.filter(run_id=run_id, position__in=positions)
    return dict(found.values_list("position", "title"))
