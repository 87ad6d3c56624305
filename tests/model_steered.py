"""A small model of runs: what people and the sweeper see of one and do with it, without events, leases or a database."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any, Self

from tests.model_state import (
    BY_HAND,
    EDITED,
    ENDED,
    HAVE_ENDED,
    WITHOUT,
    Part,
    State,
    Step,
    Universe,
)


class Steered:
    """One run, as people and the sweeper see and steer it."""

    def __init__(self, universe: Universe, parts: tuple[Part, ...], parent: "Steered | None" = None) -> None:
        self.universe, self.parts, self.parent = universe, parts, parent
        self.id = 0  # as the database numbers it
        self.written = self.state = State()
        self.fence, self.lease_until = 0, float("-inf")
        self.retried_at, self.finished_at = float("-inf"), float("-inf")
        self.original: Steered | None = None
        universe.runs.append(self)

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        return self.written.status

    def is_held(self) -> bool:
        return self.lease_until >= self.universe.clock

    def is_due(self) -> bool:
        state, woken = self.written, self.written.wake_at is not None and self.written.wake_at <= self.universe.clock
        if self.is_held() or state.status in ENDED:
            return False
        if state.status != "waiting":
            return woken or state.wake_at is None
        return all(child.status in ENDED for child in state.waits_for) if state.cause == "children" else woken

    def times(self) -> Iterator[float]:
        """When something may happen by itself."""
        yield from (time for time in (self.lease_until + 1, self.written.wake_at) if time and time > self.universe.clock)

    # --- what people do ---------------------------------------------------------------------------------------------

    def decide(self, position: int, kind: str, undo: float = 0.0) -> tuple[Any, str]:
        """The value that an edit carries (the input's where the input is decided about), and the word of the step then."""
        value, until = (BY_HAND, BY_HAND), self.universe.clock + undo if undo else None
        for state in self._states():
            step = state.steps[position]
            undecided = copy.copy(step)
            undecided.undecided = undecided.effective_at = None
            value = self._decided(step, kind)
            step.effective_at, step.undecided = until, undecided if until else None
            if state.status != "running":
                is_due = state.status == "queued" and state.wake_at is None
                times = [time for time in (until, state.wake_at) if time is not None]
                state.moves("queued")
                state.wake_at = None if is_due or until is None else min(times)
        if kind in ("fork", "cancel"):
            self.cancel()
        return value

    def _decided(self, step: Step, kind: str) -> tuple[Any, str]:
        step.asked, step.deadline, step.crashes, step.losses = False, None, 0, 0
        if step.cause == "code_changed":
            step.as_before_the_change()
        elif kind in ("reject", "not_happened"):
            step.status = "rejected"
        elif kind in ("retry", "send_back"):
            step.queue_again()
            step.sent_back += kind == "send_back"
        elif kind == "skip":
            step.status, step.word = "skipped", WITHOUT
        elif kind == "take_over":
            step.status, step.word = "succeeded", BY_HAND
        elif step.cause == "gated":
            step.status, step.gate_passed = "queued", True
            step.number = EDITED if kind == "edit" else step.number
            return {"number": EDITED}, ""
        else:
            step.status = "succeeded"
            step.word = f"done {step.number}" if kind == "approve" else BY_HAND
        return BY_HAND, BY_HAND

    def may_undo(self) -> list[Step]:
        if self.status in ENDED:
            return []
        return [step for step in self.written.recorded() if step.undecided and self._is_in_time(step, step.undecided)]

    def _is_in_time(self, step: Step, undecided: Step) -> bool:
        times = (step.effective_at, undecided.deadline)
        return all(time is None or time > self.universe.clock for time in times)

    def undo(self, position: int) -> None:
        for state in self._states():
            undecided = state.steps[position].undecided
            assert undecided
            state.steps[position] = undecided
            if state.status != "running":
                state.moves("queued")

    def _states(self) -> list[State]:
        """What is true, and what a process that works on it will find when it writes."""
        return [self.written] if self.state is self.written else [self.written, self.state]

    def may_be_decided(self) -> list[Step]:
        return [step for step in self.written.asked() if step.deadline is None or step.deadline > self.universe.clock]

    def may_cancel(self) -> bool:
        return self.status not in ENDED

    def cancel(self) -> None:
        self.written.cancel_requested = True
        if self.status != "running":
            self._ended(self.written, "cancelled")

    def _ended(self, state: State, status: str, failed_step: int | None = None) -> None:
        for step in state.recorded():
            if status == "cancelled" or step.asked:
                step.end_with_the_run()
        state.moves(status)
        state.failed_step = failed_step
        self.lease_until, self.finished_at = float("-inf"), self.universe.clock

    def may_retry(self) -> bool:
        return self.status in ("failed", "cancelled")

    def retry(self) -> None:
        state = self.written
        for step in state.recorded():
            if step.status == "cancelled":
                step.go_on_with_the_run()
            elif step.position == state.failed_step and step.status in ("rejected", "expired"):
                step.try_again()
        state.status, state.failed_step, state.cancel_requested = "queued", None, False
        self.retried_at = self.universe.clock

    def may_fork(self) -> list[int]:
        """The steps from which somebody may fork: those that were begun, after nothing that has not ended."""
        steps = [self.written.steps[position] for position in sorted(self.written.steps)]
        statuses = [step.status for step in steps]
        ended = len(list(itertools.takewhile(lambda step: step.status in HAVE_ENDED and not self._is_held(step), steps)))
        return [position for position, status in enumerate(statuses[: ended + 1], start=1) if status]

    def _is_held(self, step: Step) -> bool:
        return step.effective_at is not None and step.effective_at > self.universe.clock

    def forked(self, position: int) -> Self:
        """The run that takes over what stands before that step, and executes the rest itself."""
        fork = type(self)(self.universe, self.parts)
        fork.original = self
        for step in self.written.recorded()[: position - 1]:
            taken = fork.written.steps[step.position] = copy.copy(step)
            taken.crashes, taken.losses, taken.alone = 0, 0, False
            taken.effective_at, taken.undecided, taken.sent_back = None, None, 0
        return fork

    # --- what the sweeper does --------------------------------------------------------------------------------------

    def is_orphaned(self) -> bool:
        """It goes on although its parent was cancelled, and nobody wanted that."""
        if self.parent is None or self.status in ENDED or self.written.cancel_requested or self.parent.status != "cancelled":
            return False
        return self.retried_at < self.parent.finished_at and not any(fork.needs(self) for fork in self.universe.runs)

    def needs(self, child: "Steered") -> bool:
        """A fork that took over the step which started it."""
        spawned = [step for step in self.written.recorded() if child in step.children]
        return self.original is not None and child.parent is not self and self.status != "cancelled" and bool(spawned)
