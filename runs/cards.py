"""The steps of a run as its pages show them: each with what its events say happened to it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from typing import Any

from django.db.models import Max, Min, Q, QuerySet, Subquery
from django.utils.functional import cached_property

from runs import conversations, describe, event_log, waiting
from runs.describe import CAUSES
from runs.engine.canonical import Large
from runs.engine.comparison import Change, changes
from runs.engine.events import Fact, Kind
from runs.engine.phases import History, Line, Phase, history
from runs.engine.policy import Cause
from runs.engine.state import CHANGE_EVERY_STEP
from runs.engine.step import StepState
from runs.models import Run, Step, StepStatus
from runs.models.content import Hidden
from runs.waterfall import WORDS, Bar

SURE = "Nobody is asked: its confidence is at or above the threshold."
ASKS_NOBODY = "Nobody is asked, however unsure it is."
CONVERSATION = "shown above, whole in the file"
STEPS_SHOWN = 80  # on one page
NESTED_SHOWN = 20  # runs that one step started
WHOLE_RUN = [*CHANGE_EVERY_STEP, Kind.RUN_SUCCEEDED, Kind.RUN_FAILED]  # concerns a step also after its last event
FAILURES = {Kind.ATTEMPT_FAILED, Kind.ATTEMPT_CRASHED}
IDLE = {Phase.WAITING, Phase.QUEUE}
MILLISECOND = timedelta(milliseconds=1)
NAMED_FROM = timedelta(seconds=1)  # a shorter wait for a process, or for anything but a person, is told in the step's own part


@dataclass(slots=True)
class Nested:
    """A run that a step started, on the axis of its parent."""

    run: Run
    bar: Bar | None = None

    @property
    def bar_id(self) -> str:
        return f"run-{self.run.pk}"

    @property
    def part(self) -> str:
        """Its name among the parts of its parent's page."""
        return f"nested-{self.run.pk}"

    @property
    def line(self) -> Line:
        """As much of it as its row says."""
        line = Line()
        line.turn(self.run.created_at, Phase.QUEUE)
        for at, phase in ((self.run.started_at, Phase.WORK), (self.run.finished_at, "")):
            if at:
                line.turn(at, phase)
        return line


@dataclass
class StepCard:
    """A step as a page shows it. `review_id` is its open review, `reviews` are all of them; `facts` are its events.

    `line` is how it spent its time, and `bar` the drawing of it; `original` is the run from which it was taken over as
    recorded; `given_by` the person who gave its input; `waits` says why it does not move.
    """

    step: Step
    review_id: int | None = None
    reviews: list[int] = field(default_factory=list)
    original: int | None = None
    given_by: str = ""
    waits: str = ""
    waits_until: datetime | None = None
    facts: list[Fact] = field(default_factory=list)
    line: Line = field(default_factory=Line)
    bar: Bar | None = None
    nested: list[Nested] = field(default_factory=list)  # the first of the runs that it started
    nested_more: int = 0
    is_open: bool = False
    is_light: bool = False  # what it came to is fetched when somebody opens it
    is_whole: bool = False  # with every message of its conversations

    @property
    def bar_id(self) -> str:
        return f"{self.step.run_id}-{self.step.position}"

    @property
    def part(self) -> str:
        """Its name among the parts of the page."""
        return f"step-{self.step.position}"

    @property
    def name(self) -> str:
        """As the supervisor names it, where its title does not say the same."""
        told = "".join(filter(str.isalnum, self.step.title)).casefold()
        says_the_same = "".join(filter(str.isalnum, self.step.name)).casefold() == told
        return "" if says_the_same or isinstance(self.step.name, Hidden) else self.step.name

    @property
    def failures(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.kind in FAILURES]

    @cached_property
    def model_calls(self) -> list[conversations.Call]:
        return conversations.calls(self.facts, whole=self.is_whole)

    @property
    def spent(self) -> str:
        """What its calls of models took, in words."""
        return conversations.told(self.model_calls)

    @property
    def asked_why(self) -> str:
        """Why a person was last asked."""
        return self._last(Kind.STEP_ESCALATED).get("why") or ""

    @property
    def verdict(self) -> str:
        """What its policy came to: whom it asked and by which rule, or why nobody."""
        asked = self._last(Kind.STEP_ESCALATED)
        if asked:
            why = asked.get("rule") or CAUSES[Cause(asked["cause"])]
            two = ", and two must approve" if asked.get("approvals", 1) > 1 else ""
            return f"A person is asked: {why}{two}."
        if self.step.threshold is None or self.step.status != StepStatus.SUCCEEDED:
            return ""
        sure = self.step.confidence is not None and self.step.confidence >= self.step.threshold
        return SURE if sure else ASKS_NOBODY

    @property
    def edits(self) -> list[Change]:
        """What a person changed in the proposal before it was carried out, or before it became the result."""
        asked, decided = self._last(Kind.STEP_ESCALATED), self._last(Kind.STEP_DECIDED)
        if decided.get("decision") != "edit" or isinstance(asked.get("proposal"), Large) or isinstance(decided["value"], Large):
            return []
        return changes(asked.get("proposal"), decided["value"])

    @property
    def raw(self) -> list[dict[str, Any]]:
        """Its events as they are kept; a large value by its hash alone, and what was said to models by a word."""
        names = ("seq", "kind", "actor")
        return [
            {name: getattr(fact, name) for name in names}
            | {"at": fact.at.isoformat(), "data": fact.data | self._told_elsewhere(fact)}
            for fact in self.facts
        ]

    @staticmethod
    def _told_elsewhere(fact: Fact) -> dict[str, Any]:
        said = {"model_calls": CONVERSATION} if fact.data.get("model_calls") else {}
        return said | dict.fromkeys(fact.data.get("large", ()))

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
    def asked(self) -> datetime | None:
        """Since when it waits for a person."""
        return self.line.asked

    @property
    def worked_ms(self) -> float | None:
        """Milliseconds of all attempts, without what lay between them; None before an end, and where none came to its end."""
        if self.step.finished_at is None or self.original or self.rested_ms is not None:
            return None
        return self._milliseconds(Phase.WORK) or None

    @property
    def waited_ms(self) -> float:
        """Milliseconds for which a person was asked, as far as that has ended."""
        return self._milliseconds(Phase.PERSON)

    @property
    def rested_ms(self) -> int | None:
        """Milliseconds for which it waited for a time or for other runs."""
        return self.step.duration_ms if self.step.cause in ("timer", "children") else None

    @property
    def queued_ms(self) -> float | None:
        """Milliseconds in the queue, where they are worth a word on the closed step."""
        queued = self._milliseconds(Phase.QUEUE)
        return queued if queued >= NAMED_FROM / MILLISECOND else None

    @property
    def times(self) -> list[tuple[str, float]]:
        """What its time went to, each in words and milliseconds; that for which it waits now goes on."""
        since = self.waits_since
        before = Line([span for span in self.line.spans if since is None or span.start < since])
        return [(word, spent / MILLISECOND) for phase, word in WORDS.items() if (spent := before.total(phase))]

    @property
    def waits_since(self) -> datetime | None:
        """Since when it waits now, however often it looked meanwhile; for a person, `asked` says it."""
        since = self.line.since if self.line.phase in IDLE else None
        for span in reversed(self.line.spans):
            if span.phase not in IDLE or span.end != since:
                break
            since = span.start
        return since

    @property
    def needs_attention(self) -> bool:
        """Shown opened: what waits, fails or is happening now."""
        return self.step.status in ("waiting", "failed", "running", "retrying")

    def _last(self, kind: Kind) -> dict[str, Any]:
        """What its last event of this kind says."""
        return next((fact.data for fact in reversed(self.facts) if fact.kind == kind), {})

    def _milliseconds(self, phase: Phase) -> float:
        return self.line.total(phase) / MILLISECOND


@dataclass(frozen=True, slots=True)
class Shown:
    """As many steps as a page shows, and the history of these and of the run meanwhile."""

    cards: list[StepCard]
    history: History
    count: int  # of all steps of the run

    @property
    def earlier(self) -> int | None:
        """The step before which earlier ones are."""
        first = self.cards[0].step.position if self.cards else 1
        return first if first > 1 else None

    @property
    def later(self) -> int | None:
        """The step before which the next ones are."""
        last = self.cards[-1].step.position if self.cards else 0
        return min(last + STEPS_SHOWN, self.count) + 1 if last < self.count else None


def shown(run: Run, *, positions: Iterable[int] | None = None, before: int | None = None, step: int | None = None) -> Shown:
    """Steps in order: all those of the positions, or as many as a page shows: the last, those `before` one or about one."""
    found = _window(run, positions, before, step)
    made = {one.position: StepCard(one, original=_original(run, one)) for one in found}
    history = _add_history(run, made)
    started = nested(history)
    for position, card in made.items():
        card.nested = started.get(position, [])
        card.nested_more = max(0, len(_started(history.state.steps[position])) - NESTED_SHOWN)
    asked = run.reviews.filter(position__in=list(made)).order_by("pk")
    for position, review_id, state in asked.values_list("position", "pk", "state"):
        made[position].reviews.append(review_id)
        if state == "open":
            made[position].review_id = review_id
    for position, (why, until) in waiting.steps(run.pk, found).items():
        made[position].waits, made[position].waits_until = why, until
    if run.forked_step in made:
        made[run.forked_step].given_by = _given_by(run)
    return Shown(list(made.values()), history, run.step_count)


def cards(run: Run, *, positions: Iterable[int] | None = None) -> list[StepCard]:
    """The last steps, or those of the positions."""
    return shown(run, positions=positions).cards


def _window(run: Run, positions: Iterable[int] | None, before: int | None, step: int | None) -> list[Step]:
    steps = run.steps.all()
    if positions is not None:
        return list(steps.filter(position__in=list(positions)).order_by("position"))
    if step is not None:
        first = max(1, min(step - STEPS_SHOWN // 4, run.step_count - STEPS_SHOWN + 1))
        steps = steps.filter(position__lt=first + STEPS_SHOWN)
    elif before is not None:
        steps = steps.filter(position__lt=before)
    return list(reversed(steps.order_by("-position")[:STEPS_SHOWN]))


def _given_by(run: Run) -> str:
    """Who gave the first step of a fork another input than the supervisor's, or ""."""
    request = event_log.rows(run.pk).filter(kind=Kind.RUN_REQUESTED).first()
    return request.actor if request and "override" in request.data else ""


def _original(run: Run, step: Step) -> int | None:
    return run.forked_from_id if step.position < (run.forked_step or 0) else None


def _add_history(run: Run, made: dict[int, StepCard]) -> History:
    """What their events left them with, and how their time went."""
    facts = told_of(run, made)
    told = history(facts)
    for position, card in made.items():
        state = told.state.steps[position]
        card.step.input, card.step.output, card.step.proposal = state.input, state.output, state.proposal
        card.line = told.steps[position]
    for fact in facts:
        if fact.step in made:
            made[fact.step].facts.append(fact)
    return told


def nested(told: History) -> dict[int, list[Nested]]:
    """For each step that started other runs, the first of them."""
    started = {position: _started(step)[:NESTED_SHOWN] for position, step in told.state.steps.items()}
    wanted = [pk for pks in started.values() for pk in pks]
    runs = Run.objects.in_bulk(wanted) if wanted else {}
    return {position: [Nested(runs[pk]) for pk in pks if pk in runs] for position, pks in started.items() if pks}


def _started(step: StepState) -> list[int]:
    """The runs that the step started, where it did and they are named in its event."""
    if not step.worker.startswith(describe.SPAWN) or not isinstance(step.output, int | list):
        return []
    return step.output if isinstance(step.output, list) else [step.output]


def told_of(run: Run, positions: Collection[int]) -> list[Fact]:
    """What the log says of these steps, and of their run while they were under way."""
    rows = event_log.rows(run.pk)
    wanted = rows.filter(seq__in=_seqs(rows, positions, run.step_count))
    return event_log.outlined(run.pk, (event_log.as_fact(row) for row in wanted))


def _seqs(rows: QuerySet[Any], positions: Collection[int], count: int) -> list[int]:
    """As `meanwhile` says, in one look at the log, which no index shortens: it would cost every event that is written."""
    found = list(rows.filter(Q(step__in=list(positions)) | Q(kind__startswith="Run")).values_list("seq", "kind", "step"))
    of_steps = [seq for seq, _, step in found if step in positions]
    first = min(of_steps, default=0) if positions and min(positions) > 1 else 0
    last = max(of_steps, default=0) if positions and max(positions) < count else inf
    of_run = [seq for seq, kind, _ in found if kind.startswith("Run") and seq >= first and (seq <= last or kind in WHOLE_RUN)]
    return [*of_steps, *of_run]


def meanwhile(rows: QuerySet[Any], positions: Collection[int], count: int) -> Q:
    """The run's own events from the first to the last of these of its `count` steps; with the outermost, from or to its own."""
    reach = rows.filter(step__in=list(positions)).order_by().values("run")
    of_run = Q(kind__startswith="Run")
    if positions and min(positions) > 1:
        of_run &= Q(seq__gte=Subquery(reach.values_list(Min("seq"))))
    if positions and max(positions) < count:
        of_run &= Q(seq__lte=Subquery(reach.values_list(Max("seq")))) | Q(kind__in=WHOLE_RUN)
    return of_run
