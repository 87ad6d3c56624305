"""A small model of a run: what its status and its steps must be after each command, without events, leases or a database."""

import collections
import itertools
from dataclasses import dataclass, field, replace

ATTEMPTS = 2
MOST_DEATHS = 3
EDITED, BY_HAND = 99, "by hand"
ENDED = ("succeeded", "failed", "cancelled")
UNFINISHED = ("queued", "running", "waiting", "retrying")
LATER = ("again", "soon", "far")
FAILURES = (*LATER, "gave up", "asked", "unknown")
# What may happen to a worker, beside doing what it should.
OUTCOMES = [
    "done", "unsure", *LATER, "gave up", "asked", "unknown",
    "killed", "killed unwritten", "killed unanswered", "cancelled", "stopped",
]  # fmt: skip


@dataclass
class Part:
    """One step. `before` is where it was when the run was cancelled."""

    kind: str
    forgiven: bool
    status: str = ""
    cause: str = ""
    before: str = ""
    gate_passed: bool = False
    fallback: bool = False
    tries: int = 0
    deaths: int = 0
    executions: int = 0
    number: int = 0
    word: str = ""

    def cause_of_failure(self) -> str:
        return "outcome_unknown" if self.kind == "once" else "failed"

    def queue_again(self) -> None:
        self.status, self.tries, self.deaths, self.fallback = "queued", 0, 0, False


@dataclass
class Model:
    parts: list[Part]
    status: str = "queued"
    held: bool = False  # by a process that died and whose lease has not run out
    asleep: bool = False  # until a time that does not come in this test
    cancel_requested: bool = False
    unheard: bool = False  # the cancel came while a worker was at work
    failed: Part | None = None
    outcomes: list[str] = field(default_factory=list)
    dying: bool = False  # the process ends at its next write
    stopped: bool = False  # it was asked to hand over

    def __post_init__(self) -> None:
        for number, part in enumerate(self.parts, start=1):
            part.number = part.number or number

    # --- what can be seen -------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        return self.status in ("queued", "running", "retrying") and not self.held and not self.asleep

    def step_statuses(self) -> list[str]:
        return [part.status for part in self.parts if part.status]

    def waiting_cause(self) -> str:
        return next(part.cause for part in self.parts if part.status == "waiting")

    def executions(self) -> "collections.Counter[str]":
        return collections.Counter({f"step_{n}": part.executions for n, part in enumerate(self.parts, 1) if part.executions})

    def words(self) -> list[str]:
        return ["rejected" if part.status == "rejected" else part.word for part in self.parts]

    # --- what people do ---------------------------------------------------------------------------------------------

    def decide(self, kind: str) -> tuple[object, str]:
        """The value that an edit carries (the input's where the input is decided about), and the word of the step then."""
        part = next(part for part in self.parts if part.status == "waiting")
        self.status, part.deaths = "queued", 0
        if kind in ("reject", "not_happened"):
            part.status = "rejected"
        elif kind == "retry":
            part.queue_again()
        elif part.cause == "gated":
            part.status, part.gate_passed = "queued", True
            part.number = EDITED if kind == "edit" else part.number
            return {"number": EDITED}, ""
        else:
            part.status = "succeeded"
            part.word = f"done {part.number}" if kind == "approve" else BY_HAND
        return BY_HAND, BY_HAND

    def may_cancel(self) -> bool:
        return self.status not in ENDED

    def cancel(self) -> None:
        self.cancel_requested = True
        if self.status != "running":
            self._end("cancelled")

    def may_retry(self) -> bool:
        return self.status in ("failed", "cancelled")

    def retry(self) -> None:
        for part in self.parts:
            if part.status == "cancelled":
                part.status = part.before
        if self.failed:
            self.failed.queue_again()
        self.status, self.failed, self.cancel_requested = "queued", None, False

    def may_fork(self) -> list[int]:
        """The steps from which somebody may fork: those that were begun, after nothing that has not ended."""
        before = itertools.takewhile(lambda part: part.status in ("succeeded", "rejected"), self.parts)
        most = min(len(list(before)) + 1, len(self.step_statuses()))
        return list(range(1, most + 1))

    def forked(self, position: int) -> "Model":
        """The run that takes over what stands before that step, and executes the rest itself."""
        taken = [replace(part, executions=0, tries=0, deaths=0) for part in self.parts[: position - 1]]
        return Model([*taken, *(Part(part.kind, part.forgiven) for part in self.parts[position - 1 :])])

    # --- what a process does ----------------------------------------------------------------------------------------

    def advance(self, outcomes: list[str]) -> None:
        self.outcomes, self.dying, self.stopped, self.unheard, self.status = outcomes, False, False, False, "running"
        if all(self._goes_on(part) for part in self.parts):
            self._end("cancelled" if self.unheard else "succeeded")

    def _goes_on(self, part: Part) -> bool:
        """Whether the process comes to the next step."""
        if part.status in ("", *UNFINISHED):
            return self._heeds_nobody() and self._perform(part)
        if part.status == "rejected" and not part.forgiven:
            return self._heeds_nobody() and self._end("failed", part)
        return self._heeds_nobody()

    def _heeds_nobody(self) -> bool:
        if self.cancel_requested and not self.unheard:
            self._end("cancelled")
        elif self.stopped:
            self.status = "queued"
        else:
            return True
        return False

    def _perform(self, part: Part) -> bool:
        if part.status == "waiting":
            return self._park(part, part.cause)
        if part.kind == "question" or (part.kind == "gated" and not part.gate_passed):
            return self._park(part, part.kind)
        if self.unheard:
            return self._end("cancelled")
        if part.status == "running" and (part.kind == "once" or part.deaths >= MOST_DEATHS):
            return self._park(part, part.cause_of_failure())
        return self._attempt(part)

    def _attempt(self, part: Part) -> bool:
        part.status, part.tries = "running", part.tries + 1
        if self.dying:
            return self._die(part)
        part.executions += 1
        said = self.outcomes.pop(0) if self.outcomes else "done"
        if said in ("killed", "killed unwritten"):
            return self._die(part)
        if said in LATER and part.kind != "once" and part.tries < ATTEMPTS:
            return self._wait(part, said)
        if said in FAILURES:
            return self._fail_finally(part, said)
        if said == "unsure" and part.kind == "judged":
            return self._park(part, "low_confidence")
        part.status, part.word = "succeeded", f"done {part.number}"
        self.dying, self.stopped = said == "killed unanswered", said == "stopped"
        self.cancel_requested = self.unheard = said == "cancelled"
        return True

    def _wait(self, part: Part, said: str) -> bool:
        part.status = "retrying"
        if said == "again":
            return self._attempt(part)
        self.status, self.asleep = "retrying", said == "far"
        return False

    def _fail_finally(self, part: Part, said: str) -> bool:
        if part.kind == "spare" and not part.fallback and said in (*LATER, "gave up"):
            part.fallback, part.tries = True, 0
            return self._attempt(part)
        return self._park(part, part.cause_of_failure())

    def _die(self, part: Part) -> bool:
        part.deaths += 1
        self.held = True
        return False

    def _park(self, part: Part, cause: str) -> bool:
        part.status, part.cause = "waiting", cause
        self.status = "waiting"
        return self._end("cancelled") if self.unheard else False

    def _end(self, status: str, failed: Part | None = None) -> bool:
        self.status, self.failed, self.held, self.asleep, self.unheard = status, failed, False, False, False
        for part in self.parts:
            if status == "cancelled" and part.status in UNFINISHED:
                part.status, part.before = "cancelled", part.status
        return False
