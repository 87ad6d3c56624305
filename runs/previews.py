"""What a policy would have done to the steps that are recorded: by the very functions with which the engine judges."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from runs import event_log, sdk
from runs.engine import policy as judging
from runs.engine.events import Kind
from runs.engine.policy import Cause, Subject, Verdict
from runs.models import Policy, Run, Step
from runs.requests import configuration

MOST_STEPS = 500
MOST_RUNS = 1000  # in which they are looked for
EXAMPLES = 5
CORRECTED = ("edit", "reject", "take_over", "send_back")


@dataclass(frozen=True, slots=True)
class Example:
    """A recorded step, and why it would have gone to a person."""

    step: Step
    why: str


@dataclass(slots=True)
class Preview:
    """Of the newest steps. `corrected` are those that would have passed, and that a person later changed or refused.

    `unknown` have no result, and it would depend on that: they wait, were refused before, or failed.
    """

    steps: int = 0
    unknown: int = 0
    sent: list[Example] = field(default_factory=list)
    corrected: list[Example] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        if not self.steps:
            return f"No such step is recorded yet, so there is nothing to try it on.{self._without_result}"
        sent = f"It would have sent {len(self.sent):,} of the last {self.steps:,} steps to a person"
        count = len(self.corrected)
        which = "none" if not count else f"{count:,}"
        return f"{sent}; {which} of those that pass {'were' if count > 1 else 'was'} later corrected.{self._without_result}"

    @property
    def _without_result(self) -> str:
        if not self.unknown:
            return ""
        have = "1 more has" if self.unknown == 1 else f"{self.unknown:,} more have"
        return f" {have} no result by which to judge, because nobody has approved it yet, it was refused, or it failed."

    @property
    def examples(self) -> list[Example]:
        return self.sent[:EXAMPLES]

    @property
    def missed(self) -> list[Example]:
        return self.corrected[:EXAMPLES]


def preview(row: Policy, *, most: int = MOST_STEPS) -> Preview:
    """What would have come of the newest `most` steps that this policy is about."""
    terms, threshold = judging.Policy.read(row.terms()), configuration(row.agent).threshold
    steps = _steps(row)[:most]
    recorded, found = _recorded(steps), Preview()
    corrected = _corrected(steps)
    for step in steps:
        verdict = _verdict(terms, recorded[_place(step)], threshold)
        if not (verdict.needs_person or recorded[_place(step)].has_output or terms.when == judging.When.NEVER):
            found.unknown += 1
            continue
        found.steps += 1
        if verdict.needs_person:
            found.sent.append(Example(step, verdict.why))
        elif _place(step) in corrected:
            found.corrected.append(Example(step, ""))
    return found


def _steps(row: Policy) -> list[Step]:
    """The newest first."""
    runs = Run.objects.filter(agent=row.agent).order_by("-created_at", "-id").values_list("pk", flat=True)[:MOST_RUNS]
    asked_before = Q(cause=Cause.GATED)  # and not executed yet, or never
    steps = Step.objects.filter(Q(attempt__gt=0) | asked_before, run__in=list(runs)).order_by("-run_id", "-position")
    if row.worker:
        return list(steps.filter(worker=row.worker)[:MOST_STEPS])
    own = Policy.objects.filter(agent=row.agent, enabled=True).exclude(worker="").values_list("worker", flat=True)
    return list(steps.exclude(worker__in=list(own))[:MOST_STEPS])


Place = tuple[int, int]


def _place(step: Step) -> Place:
    return step.run_id, step.position


@dataclass(slots=True)
class _Recorded:
    """Of one step: what its worker was given, what it answered (where it did), and what sent it to a person then."""

    input: Any
    output: Any
    has_output: bool
    said: dict[str, Any]
    gate: str


def _verdict(terms: judging.Policy, step: _Recorded, threshold: float) -> Verdict:
    if step.gate:
        return Verdict(True, step.gate)
    first = judging.before(terms, step.input)
    if first.needs_person or not step.has_output:
        return first
    judged, confidence = "threshold" in step.said, step.said.get("confidence")
    return judging.after(terms, step.output, judged=judged, confidence=confidence, threshold=threshold)


def _recorded(steps: Iterable[Step]) -> dict[Place, _Recorded]:
    run_ids = {step.run_id for step in steps}
    asked, done = event_log.last_said(run_ids, Kind.STEP_ESCALATED), event_log.last_said(run_ids, Kind.STEP_SUCCEEDED)
    began = event_log.last_said(run_ids, Kind.STEP_STARTED) | event_log.last_said(run_ids, Kind.STEP_REQUESTED)
    states: dict[int, dict[int, Any]] = {}
    found = {}
    for step in steps:
        place = _place(step)
        question, answer, begun = asked.get(place, {}), done.get(place, {}), began.get(place, {})
        said = question if _is_of_result(question) else answer
        given, result = begun.get("input"), said.get("proposal", said.get("output"))
        if any("large" in one for one in (begun, said)):  # such values are not in the events themselves
            if step.run_id not in states:
                states[step.run_id] = event_log.state(step.run_id).steps
            whole = states[step.run_id][step.position]
            given, result = whole.input, whole.proposal if said is question else whole.output
        found[place] = _Recorded(given, result, bool(said), said, _gate(step, question))
    return found


def _is_of_result(question: dict[str, Any]) -> bool:
    return question.get("subject") == Subject.OUTPUT and question.get("cause") in (Cause.LOW_CONFIDENCE, Cause.GATED)


def _gate(step: Step, question: dict[str, Any]) -> str:
    """Of the code: it holds whatever a policy says."""
    worker = sdk.find_worker(step.worker)
    was_gated = question.get("subject") == Subject.INPUT and "rule" not in question
    return (worker.gate if worker else "") or (question["why"] if was_gated else "")


def _corrected(steps: Iterable[Step]) -> set[Place]:
    """Those that a person changed or refused when they were asked, or when they were shown them as a sample."""
    decided = {"decisions__kind__in": CORRECTED, "decisions__final": True, "decisions__revoked_at": None, "cause": "sample"}
    wanted = {f"reviews__{name}": value for name, value in decided.items()}
    runs = Run.objects.filter(pk__in={step.run_id for step in steps}, **wanted)
    return {_place(step) for step in steps if step.decision in CORRECTED} | set(runs.values_list("pk", "reviews__position"))
