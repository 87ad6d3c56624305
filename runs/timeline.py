"""What a page shows of one run: its steps with what happened to each, and the parts that changed since a cursor."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, QuerySet
from django.template.loader import render_to_string
from django.urls import reverse

from runs import budgets, children, describe, event_log, sdk, waiting
from runs.engine.events import Fact, Kind
from runs.engine.policy import Cause
from runs.models import Run, RunStatus, Step
from runs.models.run import COMPLETED, in_order

EVENTS_SHOWN = 200  # on the run's page; its events page has all
STEPS_SHOWN = 200
FORKS_SHOWN = 10
CHILDREN_SHOWN = 50
EVENTS_READ = 500  # in one go, for a page that was away for long
ENDINGS = {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED, Kind.RUN_RETRIED, Kind.RUN_CANCEL_REQUESTED}
TAKEN = {Kind.RUN_STARTED, Kind.RUN_RESUMED, Kind.RUN_TAKEN_OVER}
RETRIED = {RunStatus.FAILED, RunStatus.CANCELLED}  # what a person may retry
EVERY_STEP = {Kind.RUN_CANCELLED, Kind.RUN_RETRIED}
BEGINS = {Kind.STEP_STARTED, Kind.ATTEMPT_STARTED}
FAILURES = {Kind.ATTEMPT_FAILED, Kind.ATTEMPT_CRASHED}
RESTS = {Kind.ATTEMPT_FAILED, Kind.STEP_SUCCEEDED, Kind.STEP_ESCALATED}


@dataclass(slots=True)
class Clock:
    """How long attempts at a step took, and how long it waited for a person: never in one number."""

    worked: timedelta = timedelta()
    waited: timedelta = timedelta()
    began: datetime | None = None  # the attempt that is being made
    asked: datetime | None = None  # since when it waits for a person

    def move(self, kind: str, at: datetime) -> None:
        """Over one event of the step. An attempt that its process did not survive has no end, and counts as nothing."""
        if kind in RESTS and self.began:
            self.worked, self.began = self.worked + (at - self.began), None
        if kind == Kind.ATTEMPT_CRASHED:
            self.began = None
        elif kind in BEGINS:
            self.began = at
        elif kind == Kind.STEP_ESCALATED:
            self.asked = at
        elif kind == Kind.STEP_DECIDED:
            self.stop(at)

    def stop(self, at: datetime) -> None:
        """Nobody is asked any more."""
        if self.asked:
            self.waited, self.asked = self.waited + (at - self.asked), None


@dataclass(slots=True)
class StepCard:
    """A step as a page shows it. `review_id` is its open review; `failures` are its failed attempts.

    `asked_why` is why a person was last asked; `original` is the run from which it was taken over as recorded; `given_by`
    the person who gave its input; `waits` says why it does not move.
    """

    step: Step
    review_id: int | None = None
    asked_why: str = ""
    original: int | None = None
    given_by: str = ""
    waits: str = ""
    waits_until: datetime | None = None
    failures: list[Fact] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    @property
    def name(self) -> str:
        """As the supervisor names it, where its title does not say the same."""
        told = "".join(filter(str.isalnum, self.step.title)).casefold()
        return "" if "".join(filter(str.isalnum, self.step.name)).casefold() == told else self.step.name

    @property
    def reason_to_ask(self) -> str:
        """What no other part of the card says: a question is its input, an estimate has its own reason, and so has an error."""
        error = (self.step.error or {}).get("message") or "\0"
        said = self.step.cause in (Cause.QUESTION, Cause.LOW_CONFIDENCE) or error in self.asked_why
        return "" if said else self.asked_why

    @property
    def input_label(self) -> str:
        return f"Input, given by {self.given_by}" if self.given_by else "Input, from the supervisor"

    @property
    def is_eventful(self) -> bool:
        """More happened than one attempt that succeeded: the step's own row does not say all of it."""
        return bool(self.step.cause or self.step.error or self.step.attempt > 1)

    @property
    def worked_ms(self) -> float | None:
        """Milliseconds of all attempts, without what lay between them; None before an end, and where none came to its end."""
        if self.rested_ms is not None:
            return None
        if self.step.started_at is None or self.step.finished_at is None or self.original:
            return None
        return self.clock.worked.total_seconds() * 1000 or None if self.is_eventful else self.step.duration_ms

    @property
    def waited_ms(self) -> float:
        """Milliseconds for which a person was asked, as far as that has ended."""
        return self.clock.waited.total_seconds() * 1000

    @property
    def rested_ms(self) -> int | None:
        """Milliseconds for which it waited for a time or for other runs."""
        return self.step.duration_ms if self.step.cause in ("timer", "children") else None

    @property
    def needs_attention(self) -> bool:
        """Shown opened: what waits, fails or is happening now."""
        return self.step.status in ("waiting", "failed", "running", "retrying")


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


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the page: its element's id, its HTML or where to get it, and the list it is new in."""

    id: str
    html: str = ""
    into: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """`seq` is the cursor after the parts were shown; nothing is new where there are none."""

    seq: int
    parts: list[Part]


def cards(run: Run, *, positions: Iterable[int] | None = None, before: int | None = None) -> list[StepCard]:
    """Steps in order, the last ones where there are too many for a page, or just those of the positions."""
    steps = run.steps.all()
    if positions is not None:
        steps = steps.filter(position__in=list(positions))
    if before is not None:
        steps = steps.filter(position__lt=before)
    found = list(reversed(steps.order_by("-position")[:STEPS_SHOWN]))
    made = {step.position: StepCard(step, original=_original(run, step)) for step in event_log.with_payloads(run.pk, found)}
    for position, review_id in run.reviews.filter(state="open", position__in=list(made)).values_list("position", "pk"):
        made[position].review_id = review_id
    for position, (why, until) in waiting.steps(run.pk, found).items():
        made[position].waits, made[position].waits_until = why, until
    if run.forked_step in made:
        made[run.forked_step].given_by = _given_by(run)
    _add_history(run, {position: card for position, card in made.items() if card.is_eventful})
    return list(made.values())


def _given_by(run: Run) -> str:
    """Who gave the first step of a fork another input than the supervisor's, or ""."""
    request = event_log.rows(run.pk).filter(kind=Kind.RUN_REQUESTED).first()
    return request.actor if request and "override" in request.data else ""


def _original(run: Run, step: Step) -> int | None:
    return run.forked_from_id if step.position < (run.forked_step or 0) else None


def _add_history(run: Run, eventful: dict[int, StepCard]) -> None:
    """The failures and times of these steps, from their events."""
    if not eventful:
        return
    events = event_log.rows(run.pk).filter(step__in=eventful)
    for fact in _facts(events.filter(kind__in=FAILURES)):
        eventful[fact.step or 0].failures.append(fact)
    timed = events.filter(kind__in=BEGINS | RESTS | {Kind.ATTEMPT_CRASHED, Kind.STEP_DECIDED})
    for position, kind, at, why in timed.values_list("step", "kind", "at", "data__why"):
        card = eventful[position or 0]
        card.clock.move(kind, at)
        if kind == Kind.STEP_ESCALATED:
            card.asked_why = why or ""
    for card in eventful.values():
        finished, asked = card.step.finished_at, card.clock.asked
        if finished and asked and asked <= finished:  # else it is asked about anew: the code changed
            card.clock.stop(finished)  # withdrawn with its run


def log(run_id: int, *, after: int, most: int) -> list[EventLine]:
    """A page of the run's events, beyond the cursor."""
    return lines(run_id, _facts(event_log.rows(run_id, after=after)[:most]))


def lines(run_id: int, facts: Iterable[Fact]) -> list[EventLine]:
    """Each event with its sentence."""
    facts = list(facts)
    titles = _titles(run_id, {fact.step for fact in facts if fact.step})
    return [EventLine(fact, describe.sentence(fact, titles), run_id) for fact in facts]


def page(run: Run, *, before: int | None = None) -> dict[str, Any]:
    """Everything the run's page shows; `before` is the position where an earlier page of steps ends.

    The events come first: steps read after them are at least as new, and the socket goes on from the last event.
    """
    shown = lines(run.pk, reversed(_facts(event_log.rows(run.pk).reverse()[:EVENTS_SHOWN])))
    run.refresh_from_db()
    steps = cards(run, before=before)
    earlier = steps[0].step.position if steps and steps[0].step.position > 1 else None
    seq = shown[-1].fact.seq if shown else 0
    socket = f"/ws/runs/{run.pk}/"
    return head(run) | {"cards": steps, "earlier": earlier, "lines": shown, "seq": seq, "socket": socket, "live": before is None}


def head(run: Run) -> dict[str, Any]:
    """What the parts beside the steps show: the run, its agent, why it waits, and the reviews that would let it go on."""
    with_large(run)
    why = waiting.answer(run)
    shown = {"waiting": why.sentence, "reviews": [review.pk for review in why.reviews], "related": related(run)}
    shown |= {"spent": budgets.spent_by_run(run.pk)}
    shown |= {"missing": event_log.missing(run.pk) if run.status == RunStatus.PARTIAL else []}
    shown |= {"went_on_without_it": children.parent_has_read(run) if run.status in RETRIED else False}
    return {"run": run, "agent": sdk.AGENTS.get(run.agent)} | shown


def deadlines(run_id: int, positions: Iterable[int]) -> dict[int, datetime]:
    """Until when a person may decide about each of these steps, where a time is set."""
    asked = event_log.rows(run_id).filter(kind=Kind.STEP_ESCALATED, step__in=list(positions))
    last = {row.step or 0: row.data.get("deadline") for row in asked}
    return {position: datetime.fromisoformat(until) for position, until in last.items() if until}


def with_large(run: Run) -> Run:
    """The run, with a Large in the place of an input or output that is too large for its row."""
    missing = [kind for kind, value in ((Kind.RUN_REQUESTED, run.input), (Kind.RUN_SUCCEEDED, run.output)) if value is None]
    if run.input is None or (run.output is None and run.status in COMPLETED):
        for fact in event_log.outlined(run.pk, _facts(event_log.rows(run.pk).filter(kind__in=missing))):
            name = "input" if fact.kind == Kind.RUN_REQUESTED else "output"
            setattr(run, name, fact.data[name])
    return run


def related(run: Run) -> Related:
    """Counted only where there are more than a page shows."""
    forks, children = list(run.forks.order_by("-pk")[: FORKS_SHOWN + 1]), list(run.children.order_by("pk")[:CHILDREN_SHOWN])
    forks_count = run.forks.count() if len(forks) > FORKS_SHOWN else len(forks)
    counts = dict(run.children.order_by().values_list("status").annotate(Count("pk"))) if children else {}
    related_to = forks or children or run.forked_from_id or run.parent_id
    return Related(forks[:FORKS_SHOWN], forks_count, children, in_order(counts), any=bool(related_to))


def update(run_id: int, *, after: int, viewer: dict[str, bool]) -> Update:
    """The parts that changed beyond the cursor, rendered from the page's own partials. `viewer` says what they may do."""
    facts = _facts(event_log.rows(run_id, after=after)[:EVENTS_READ])
    if not facts:
        return Update(after, [])
    run = Run.objects.get(pk=run_id)
    parts = [*_head_parts(run, facts, viewer), *_step_parts(run, facts, viewer)]
    parts += [Part(f"event-{line.fact.seq}", _render("event", line=line), "events") for line in lines(run_id, facts)]
    return Update(facts[-1].seq, parts)


def _head_parts(run: Run, facts: list[Fact], viewer: dict[str, bool]) -> list[Part]:
    shown = head(run) | viewer
    about = any(fact.kind in TAKEN or (fact.kind in RESTS and shown["spent"]) for fact in facts)
    names = ["state", "waiting", "result", "related"] + ["facts"] * about
    parts = [Part(f"run-{name}", _render(name, **shown)) for name in names]
    if any(fact.kind in ENDINGS for fact in facts):
        parts.append(Part("run-actions", url=reverse("run_part", args=[run.pk, "actions"])))
    return parts


def _step_parts(run: Run, facts: list[Fact], viewer: dict[str, bool]) -> list[Part]:
    everything = any(fact.kind in EVERY_STEP for fact in facts)
    positions = None if everything else {fact.step for fact in facts if fact.step}
    changed = cards(run, positions=positions)
    return [Part(f"step-{card.step.position}", _render("step", run=run, card=card, **viewer), "steps") for card in changed]


def _render(name: str, **shown: Any) -> str:
    return render_to_string(f"runs/_{name}.html", shown)


def steps_of(run_id: int, steps: Iterable[Step]) -> list[Step]:
    """The steps of one run with `input`, `output` and `proposal`, for a page."""
    return event_log.with_payloads(run_id, steps)


def _facts(rows: QuerySet[Any]) -> list[Fact]:
    return [event_log.as_fact(row) for row in rows]


def _titles(run_id: int, positions: set[int]) -> dict[int, str]:
    found = Step.objects.filter(run_id=run_id, position__in=positions)
    return dict(found.values_list("position", "title"))
