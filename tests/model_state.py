"""What is known of runs and steps in the model, and what may happen to them."""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.run_model import Model

LEASE, SHORT, WITHIN, NAP, UNDO = 12.0, 1.0, 40.0, 30.0, 8.0  # seconds; the first is the setting
LONG = 60.0
ATTEMPTS, MOST_CRASHES, MOST_LOSSES, MOST_TAKINGS, MOST_DEFERRALS, MOST_THREADS = 2, 3, 12, 10, 3, 2
EDITED, BY_HAND, WITHOUT = 99, "by hand", "without"
ENDED = ("succeeded", "partial", "failed", "cancelled")
UNFINISHED = ("queued", "running", "waiting", "retrying")
HAVE_ENDED = ("succeeded", "skipped", "rejected", "expired")
QUESTIONS = ("question", "urgent")
NOT_ASKED = ("timer", "children")  # causes to wait for which no person is asked
ALLOWED = {
    "gated": ("approve", "edit", "reject", "take_over"),
    "low_confidence": ("approve", "edit", "reject", "send_back"),
    "failed": ("retry", "take_over", "reject"),
    "question": ("answer", "reject"),
    "outcome_unknown": ("happened", "not_happened", "retry"),
    "code_changed": ("retry", "fork", "cancel"),
}
MOST_SENT_BACK = 5
TRY_LATER = ("again", "soon", "far")
# What may happen to a worker, beside doing what it should.
OUTCOMES = [
    "done", "unsure", *TRY_LATER, "not yet", "later", "gave up", "asked", "unknown", "overran",
    "killed", "killed unwritten", "killed unanswered", "taken over", "cancelled", "stopped", "decided",
]  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What a supervisor does in one place: a step, several side by side (`members`), or children to be started (`plans`)."""

    kind: str
    forgiven: bool = False
    members: tuple[str, ...] = ()
    plans: "tuple[tuple[Part, ...], ...]" = ()


@dataclass
class Script:
    """What happens to the workers that are called, in order, and which of those at work ends next."""

    outcomes: tuple[str, ...] = ()
    order: int = 0
    called: int = 0

    def next(self) -> str:
        self.called += 1
        return self.outcomes[self.called - 1] if self.called <= len(self.outcomes) else "done"

    def choose(self, among: int) -> int:
        self.order, chosen = divmod(self.order, among)
        return chosen


@dataclass
class Step:
    """One step; without a status, nothing is recorded of it."""

    position: int
    name: str
    kind: str
    number: int
    status: str = ""
    cause: str = ""
    asked_for: str = ""  # what the code calls it now
    asked: bool = False
    withdrawn: bool = False  # it is to be asked again
    under: tuple[str, str] = ("", "")  # status and cause before the code changed
    before: str = ""  # where it was when the run was cancelled
    deadline: float | None = None
    wake_at: float | None = None
    gate_passed: bool = False
    fallback: bool = False
    failed_before: bool = False
    crashed: bool = False
    blamed: bool = False  # for its last crash
    alone: bool = False
    attempt: int = 0
    tries: int = 0
    crashes: int = 0
    losses: int = 0
    sent_back: int = 0
    effective_at: float | None = None  # until then the last decision can be taken back
    undecided: "Step | None" = None  # as it was before that
    deferrals: int = 0  # in this pass
    word: str = ""
    children: "list[Model]" = field(default_factory=list)

    @property
    def has_crashed(self) -> bool:
        return bool(self.crashes or self.losses or self.alone)

    @property
    def allowed(self) -> tuple[str, ...]:
        kinds = tuple(kind for kind in ALLOWED[self.cause] if kind != "send_back" or self.sent_back < MOST_SENT_BACK)
        return (*kinds, "skip") if self.kind == "dispensable" and self.cause == "failed" else kinds

    def queue_again(self) -> None:
        self.alone = self.alone or self.blamed
        self.status, self.tries, self.crashes, self.losses = "queued", 0, 0, 0
        self.fallback, self.crashed, self.blamed = False, False, False

    def try_again(self) -> None:
        """What may happen only once is asked about again."""
        if self.kind == "once":
            self.status, self.cause, self.withdrawn = "waiting", "outcome_unknown", True
        else:
            self.queue_again()

    def as_before_the_change(self) -> None:
        if self.cause == "code_changed":
            self.status, self.cause = self.under
            self.withdrawn = self.status == "waiting" and self.cause not in NOT_ASKED

    def end_with_the_run(self) -> None:
        if self.status in UNFINISHED:
            self.status, self.before, self.asked = "cancelled", self.status, False

    def go_on_with_the_run(self) -> None:
        self.status = self.before
        if self.status == "waiting":
            self.withdrawn = self.cause not in NOT_ASKED
            self.as_before_the_change()
        else:
            self.wake_at = None


@dataclass
class State:
    """What is true of a run, or what a process believes until it writes it."""

    status: str = "queued"
    cause: str = ""
    wake_at: float | None = None
    waiting_step: int | None = None
    waits_for: "list[Model]" = field(default_factory=list)
    cancel_requested: bool = False
    failed_step: int | None = None
    fence: int = 0  # of the last taking that wrote something
    steps: dict[int, Step] = field(default_factory=dict)

    def copy(self) -> "State":
        copied = copy.copy(self)
        copied.steps = {position: copy.copy(step) for position, step in self.steps.items()}
        return copied

    def recorded(self) -> list[Step]:
        return [step for step in self.steps.values() if step.status]

    def asked(self) -> list[Step]:
        return [step for step in self.recorded() if step.asked]

    def moves(self, status: str) -> None:
        self.status, self.cause, self.waiting_step, self.wake_at, self.waits_for = status, "", None, None, []


@dataclass
class Universe:
    """What all runs share."""

    clock: float = 0.0
    renamed: int = 0  # the code calls the steps of this part otherwise
    parts: int | None = None  # the code ends after so many
    ledger: list[tuple[int, str, int]] = field(default_factory=list)  # run, step, attempt of each effect
    runs: "list[Model]" = field(default_factory=list)

    def name(self, number: int) -> str:
        return f"{'new' if number == self.renamed else 'step'}_{number}"


# --- what comes next for a step -----------------------------------------------------------------------------------


@dataclass
class Attempt:
    """It is called next, after so many seconds."""

    step: Step
    delay: float = 0.0


@dataclass
class Open:
    """It waits."""

    cause: str
    step: Step
    wake_at: float | None = None
    waits_for: "list[Model]" = field(default_factory=list)


@dataclass
class Refusal:
    """Somebody said no, or nobody said anything in time."""

    step: Step


Next = Attempt | Open | Refusal | None


class Refused(Exception):
    """The supervisor hears it."""


class Left(Exception):
    """The process has left the run, dead or alive."""
