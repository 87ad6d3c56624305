"""The parts of a run's page that changed since a cursor, rendered from the page's own partials."""

from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse

from runs import timeline
from runs.cards import STEPS_SHOWN, cards
from runs.engine.events import Fact, Kind
from runs.models import Run

LAST = 2**31  # no event has a higher number
EVENTS_READ = 500  # in one go, for a page that was away for long
ENDINGS = {Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED, Kind.RUN_RETRIED, Kind.RUN_CANCEL_REQUESTED}
TAKEN = {Kind.RUN_STARTED, Kind.RUN_RESUMED, Kind.RUN_TAKEN_OVER}
EVERY_STEP = {Kind.RUN_CANCELLED, Kind.RUN_RETRIED}
RESTS = {Kind.ATTEMPT_FAILED, Kind.STEP_SUCCEEDED, Kind.STEP_ESCALATED}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the page: its element's id, its HTML or where to get it, and the list it is new in."""

    id: str
    html: str = ""
    into: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """`seq` is the cursor after the parts were shown; nothing is new where there are none. `more`: there were too many events."""

    seq: int
    parts: list[Part]
    more: bool = False


def update(run_id: int, *, after: int, viewer: dict[str, bool], until: int = LAST, draw: bool = False) -> Update:
    """The parts that changed beyond the cursor, by the events up to `until`. `viewer` says what they may do.

    With `draw`, also the bars of all steps that a page shows.
    """
    read = timeline.facts(run_id, after=after, most=min(EVENTS_READ, until - after))
    facts = _of_a_page(read)
    if not facts:
        return Update(after, [])
    run = Run.objects.get(pk=run_id)
    parts = [*_head_parts(run, facts, viewer), *_step_parts(run, facts, viewer)]
    parts += [Part(f"event-{line.fact.seq}", _render("event", line=line), "events") for line in timeline.lines(run_id, facts)]
    if draw:
        shown = timeline.bars(run, max(1, run.step_count - STEPS_SHOWN + 1), run.step_count, fold=True)
        parts.append(Part("bars", _render("bars", run=run, look=timeline.Look(), **shown)))
    return Update(facts[-1].seq, parts, more=len(facts) < len(read) or len(read) == EVENTS_READ)


def _of_a_page(facts: list[Fact]) -> list[Fact]:
    """As many of them as concern the steps that a page shows: what comes after is asked for next."""
    seen: set[int] = set()
    for place, fact in enumerate(facts):
        seen |= {fact.step} if fact.step else set()
        if len(seen) > STEPS_SHOWN:
            return facts[:place]
    return facts


def _head_parts(run: Run, facts: list[Fact], viewer: dict[str, bool]) -> list[Part]:
    shown = timeline.head(run) | viewer
    about = any(fact.kind in TAKEN or (fact.kind in RESTS and shown["spent"]) for fact in facts)
    names = ["state", "waiting", "result", "related"] + ["facts"] * about
    parts = [Part(f"run-{name}", _render(name, **shown)) for name in names]
    if any(fact.kind in ENDINGS for fact in facts):
        parts.append(Part("run-actions", url=reverse("run_part", args=[run.pk, "actions"])))
    return parts


def _step_parts(run: Run, facts: list[Fact], viewer: dict[str, bool]) -> list[Part]:
    positions = {fact.step for fact in facts if fact.step}
    if any(fact.kind in EVERY_STEP for fact in facts):
        positions |= set(range(max(0, run.step_count - STEPS_SHOWN) + 1, run.step_count + 1))
    changed = cards(run, positions=positions)
    timeline.lighten(changed, timeline.Look(), run.step_count)
    return [Part(f"step-{card.step.position}", _render("step", run=run, card=card, **viewer), "steps") for card in changed]


def _render(name: str, **shown: Any) -> str:
    return render_to_string(f"runs/_{name}.html", shown)
