"""A small model of runs: what they and their steps must be after each command, without events, leases or a database."""

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from tests.model_state import (
    ATTEMPTS,
    BY_HAND,
    EDITED,
    ENDED,
    HAVE_ENDED,
    LEASE,
    LONG,
    MOST_CRASHES,
    MOST_DEFERRALS,
    MOST_LOSSES,
    MOST_TAKINGS,
    MOST_THREADS,
    NAP,
    QUESTIONS,
    SHORT,
    TRY_LATER,
    WITHIN,
    WITHOUT,
    Part,
    Script,
    State,
    Step,
    Universe,
)


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


class Model:
    """One run."""

    def __init__(self, universe: Universe, parts: tuple[Part, ...], parent: "Model | None" = None) -> None:
        self.universe, self.parts, self.parent = universe, parts, parent
        self.id = 0  # as the database numbers it
        self.written = self.state = State()
        self.fence, self.lease_until = 0, float("-inf")
        self.retried_at, self.finished_at = float("-inf"), float("-inf")
        self.original: Model | None = None
        self.words: list[str] = []
        self.script = Script()
        self.dies, self.stopped, self.lost, self.missing, self.at = "", False, False, False, 0
        self.unwritten, self.results = False, False  # anything at all; results among it
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

    def forked(self, position: int) -> "Model":
        """The run that takes over what stands before that step, and executes the rest itself."""
        fork = Model(self.universe, self.parts)
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

    def needs(self, child: "Model") -> bool:
        """A fork that took over the step which started it."""
        spawned = [step for step in self.written.recorded() if child in step.children]
        return self.original is not None and child.parent is not self and self.status != "cancelled" and bool(spawned)

    # --- what a process does ----------------------------------------------------------------------------------------

    def advance(self, script: Script) -> None:
        self.script, self.dies, self.stopped, self.at = script, "", False, 0
        self.unwritten, self.results = True, False
        self.take()
        self._expire()
        self.state = self.written.copy()
        for step in self.state.steps.values():
            step.deferrals = 0
        try:
            self._carry()
        except Left:
            self.state = self.written

    def take(self) -> None:
        self.lost = self.lease_until > float("-inf")  # by a process that is to be thought dead
        self.fence, self.lease_until = self.fence + 1, self.universe.clock + LEASE

    def _expire(self) -> None:
        for step in self.written.asked():
            if step.deadline is not None and step.deadline <= self.universe.clock:
                step.status, step.asked = "expired", False

    def _carry(self) -> NoReturn:
        self.state.moves("running")
        self.state.fence = self.fence
        self._heed()
        if self.fence - self.written.fence > MOST_TAKINGS:
            self._finish("failed")
        self.words, self.missing = [], False
        for number, part in enumerate(self.parts[: self.universe.parts], start=1):
            try:
                self.words.append(self._perform(number, part))
            except Refused as refused:
                step: Step = refused.args[0]
                if not part.forgiven:
                    self._finish("failed", step.position)
                self.words.append(step.status)
        if left_over := [step for step in self.state.recorded() if step.position > self.at]:
            self._ask_about_the_change(left_over[0])
        self._finish("partial" if self.missing else "succeeded")

    def _perform(self, number: int, part: Part) -> str:
        name = self.universe.name(number)
        if part.kind == "gather":
            return self._gather([self._reach(f"{name}_{place}", kind, number) for place, kind in enumerate(part.members)])
        if part.kind in ("sleep", "spawn", "join"):
            ways: dict[str, Callable[[Step], str]] = {
                "sleep": self._sleep,
                "spawn": partial(self._spawn, part),
                "join": self._join,
            }
            return ways[part.kind](self._reach(name, part.kind, number))
        self._heed()
        return self._one(self._reach(name, part.kind, number))

    def _reach(self, name: str, kind: str, number: int) -> Step:
        self.at += 1
        step = self.state.steps.setdefault(self.at, Step(self.at, name, kind, number))
        step.name, step.asked_for = step.name if step.status else name, name
        return step

    # --- one step, and several ----------------------------------------------------------------------------------------

    def _one(self, step: Step) -> str:
        self._compare(step)
        next_ = self._begin(step)
        while isinstance(next_, Attempt):
            if next_.delay:
                self._write()
                self.universe.clock += next_.delay
                self._heed()
            self._write(partial(self._start, step))
            next_ = self._follow(step)
        self._settle([next_], [step])
        if self.unwritten and step.has_crashed:
            self._write()
        return step.word

    def _gather(self, steps: list[Step]) -> str:
        self._heed()
        for step in steps:
            self._compare(step)
        nexts = [self._begin(step) for step in steps]
        if any(isinstance(next_, Attempt) for next_ in nexts):
            self._side_by_side(steps, nexts)
            self._heed()
        self._settle(nexts, steps)
        return " ".join(step.word for step in steps)

    def _side_by_side(self, steps: list[Step], nexts: list[Next]) -> None:
        ready = deque(place for place, next_ in enumerate(nexts) if isinstance(next_, Attempt))
        most = 1 if any(step.has_crashed for step in self.written.recorded()) else min(MOST_THREADS, len(ready))
        working: list[int] = []

        def start() -> None:
            if self.state.cancel_requested or self.stopped:
                ready.clear()
            places = [ready.popleft() for _ in range(min(most - len(working), len(ready)))]
            ripe = [steps[place] for place in places if not delay(place)]
            if self._append(*(partial(self._start, step) for step in ripe)):
                working.extend(places)
            else:
                self._append()

        def delay(place: int) -> float:
            next_ = nexts[place]
            return next_.delay if isinstance(next_, Attempt) else 0.0

        start()
        while working:
            place = working.pop(self.script.choose(len(working)))
            if seconds := delay(place):
                self.universe.clock += seconds
                nexts[place] = Attempt(steps[place])
                ready.appendleft(place)
            else:
                nexts[place] = self._follow(steps[place])
                if isinstance(nexts[place], Attempt):
                    ready.append(place)
            start()

    def _settle(self, nexts: list[Next], settled: list[Step]) -> None:
        if waiting := [next_ for next_ in nexts if isinstance(next_, Open)]:
            self._park(waiting)
        self.missing = self.missing or any(step.status == "skipped" for step in settled)
        if refusal := next((next_ for next_ in nexts if isinstance(next_, Refusal)), None):
            raise Refused(refusal.step)

    # --- before and after an attempt ----------------------------------------------------------------------------------

    def _compare(self, step: Step) -> None:
        if step.status and step.name != step.asked_for:
            self._ask_about_the_change(step)

    def _ask_about_the_change(self, step: Step) -> NoReturn:
        if not (step.status == "waiting" and step.cause == "code_changed"):
            step.under = (step.status, step.cause)
        self._park([self._ask(step, "code_changed")])

    def _begin(self, step: Step) -> Next:
        if self._is_held(step):
            return Open("undo", step, step.effective_at)
        if step.status in ("rejected", "expired"):
            return Refusal(step)
        if step.status in ("succeeded", "skipped"):
            return None
        if step.status == "waiting":
            return self._ask(step, step.cause) if step.withdrawn else Open("person", step, step.deadline)
        if step.kind in QUESTIONS or (step.kind == "gated" and not step.gate_passed):
            return self._ask(step, "gated" if step.kind == "gated" else "question")
        if step.status == "retrying" and step.wake_at is not None and step.wake_at > self.universe.clock:
            return Open("retry" if step.failed_before else "later", step, step.wake_at)
        if step.status == "running":
            return self._crash(step, others=self._in_hand() - 1 if self.lost else None)
        return self._after_crash(step) if step.crashed else Attempt(step)

    def _in_hand(self) -> int:
        return sum(step.status == "running" for step in self.written.recorded())

    def _ask(self, step: Step, cause: str) -> Open:
        self.unwritten = True
        step.status, step.cause, step.asked, step.withdrawn = "waiting", cause, True, False
        step.effective_at = step.undecided = None
        step.deadline = self.universe.clock + WITHIN if step.kind == "urgent" and cause == "question" else None
        return Open("person", step, step.deadline)

    def _crash(self, step: Step, *, others: int | None) -> Next:
        """Where more was in hand of the process, or nobody knows, it is not held against the step."""
        step.status, step.crashed, step.failed_before = "retrying", True, True
        step.crashes, step.losses, step.blamed = step.crashes + (others == 0), step.losses + bool(others), others == 0
        self.unwritten = True
        return self._after_crash(step)

    def _after_crash(self, step: Step) -> Next:
        if step.kind == "once":
            return self._ask(step, "outcome_unknown")
        if step.crashes >= MOST_CRASHES or step.losses >= MOST_LOSSES:
            return self._ask(step, "failed")
        return Attempt(step)

    def _start(self, step: Step) -> None:
        step.status, step.crashed, step.blamed, step.wake_at = "running", False, False, None
        step.attempt, step.tries = step.attempt + 1, step.tries + 1

    def _follow(self, step: Step) -> Next:
        """Its worker is called; then what comes next."""
        said, self.unwritten = self._execute(step), True
        if said == "overran":
            return self._crash(step, others=0)
        if said in ("not yet", "later"):
            return self._defer(step, SHORT if said == "not yet" else LONG)
        if said in TRY_LATER and step.kind != "once" and step.tries < ATTEMPTS:
            return self._retry(step, {"again": 0.0, "soon": SHORT, "far": LONG}[said])
        if said in (*TRY_LATER, "gave up", "asked", "unknown"):
            return self._fail_finally(step, said)
        if said == "unsure" and step.kind == "judged":
            return self._ask(step, "low_confidence")
        step.status, step.word, self.results = "succeeded", f"done {step.number}", True
        return None

    def _execute(self, step: Step) -> str:
        self.universe.ledger.append((self.id, step.name, step.attempt))
        said = self.script.next()
        if said == "taken over":  # while it worked; it comes back to find that
            self.universe.clock += LEASE + 1
            self.advance(self.script)
        if said in ("killed", "taken over"):
            raise Left
        if said in ("killed unwritten", "killed unanswered"):
            self.dies = "before" if said == "killed unwritten" else "after"
        if said == "cancelled":
            self.cancel()
        if said == "decided" and (asked := self.may_be_decided()):
            self.decide(asked[0].position, asked[0].allowed[0])
        self.stopped = self.stopped or said == "stopped"
        return said

    def _defer(self, step: Step, seconds: float) -> Next:
        step.status, step.failed_before, step.wake_at = "retrying", False, self.universe.clock + seconds
        step.attempt, step.tries, step.deferrals = step.attempt - 1, step.tries - 1, step.deferrals + 1
        if seconds == LONG or step.deferrals > MOST_DEFERRALS:
            return Open("later", step, step.wake_at)
        return Attempt(step, seconds)

    def _retry(self, step: Step, seconds: float) -> Next:
        step.status, step.failed_before = "retrying", True
        if seconds < LONG:
            return Attempt(step, seconds)
        step.wake_at = self.universe.clock + seconds
        return Open("retry", step, step.wake_at)

    def _fail_finally(self, step: Step, said: str) -> Next:
        step.status, step.failed_before = "failed", True
        if step.kind == "spare" and not step.fallback and said in (*TRY_LATER, "gave up"):
            step.fallback, step.tries = True, 0
            return Attempt(step)
        if step.kind == "dispensable" and said in (*TRY_LATER, "gave up"):
            step.status, step.word, self.results = "skipped", WITHOUT, True
            return None
        return self._ask(step, "outcome_unknown" if step.kind == "once" else "failed")

    # --- waits and children -------------------------------------------------------------------------------------------

    def _sleep(self, step: Step) -> str:
        self._heed()
        self._compare(step)
        if step.status != "succeeded":
            self.unwritten = True
            step.wake_at = self.universe.clock + NAP if step.wake_at is None else step.wake_at
            if step.wake_at > self.universe.clock:
                step.status, step.cause = "waiting", "timer"
                self._park([Open("timer", step, step.wake_at)])
            step.status, self.results = "succeeded", True
        return "slept"

    def _spawn(self, part: Part, step: Step) -> str:
        self._heed()
        self._compare(step)
        if not step.status:
            if self.results:
                self._write()
            self.dies = self.dies and "before"  # children and step are one transaction
            self._write(partial(self._bear, part, step))
        return "started"

    def _bear(self, part: Part, step: Step) -> None:
        step.status, step.children = "succeeded", [Model(self.universe, plan, parent=self) for plan in part.plans]

    def _join(self, step: Step) -> str:
        self._heed()
        self._compare(step)
        if step.status != "succeeded":
            self.unwritten = True
            children = [child for one in self.state.recorded() if one.position < self.at for child in one.children]
            if open_ := [child for child in children if child.status not in ENDED]:
                step.status, step.cause = "waiting", "children"
                self._park([Open("children", step, waits_for=open_)])
            step.status, step.word, self.results = "succeeded", " ".join(child.status for child in children), True
        self.missing = self.missing or "partial" in step.word
        return step.word

    # --- writing, and leaving -----------------------------------------------------------------------------------------

    def _write(self, *then: Callable[[], None]) -> None:
        if not self._append(*then):
            self._heed()

    def _append(self, *then: Callable[[], None]) -> bool:
        """What the process believes becomes true, and that with it; where a cancel came meanwhile, nothing does yet."""
        dies, self.dies = self.dies, ""
        if dies == "before":
            raise Left
        if self.written.cancel_requested and not self.state.cancel_requested:
            self.state.cancel_requested = True
            return False
        self.lease_until = self.universe.clock + LEASE
        for change in then:
            change()
        self.written, self.unwritten, self.results = self.state.copy(), False, False
        if dies == "after":
            raise Left
        return True

    def _heed(self) -> None:
        if self.state.cancel_requested:
            self._append(partial(self._ended, self.state, "cancelled"))
            raise Left
        if self.stopped:
            self._write(partial(self._give_back, "queued"))
            raise Left

    def _park(self, waiting: list[Open]) -> NoReturn:
        first = min(waiting, key=lambda one: (one.cause != "person", one.wake_at or self.universe.clock))
        self._write(partial(self._wait, waiting, first))
        raise Left

    def _wait(self, waiting: list[Open], first: Open) -> None:
        if first.cause == "person" and not all(one.step.asked for one in waiting if one.cause == "person"):
            return self._give_back("queued")  # somebody was quick
        state = self.state
        state.cause, state.waiting_step, state.waits_for = first.cause, first.step.position, first.waits_for
        state.wake_at = min((one.wake_at for one in waiting if one.wake_at is not None), default=None)
        return self._give_back("retrying" if first.cause == "retry" else "waiting")

    def _give_back(self, status: str) -> None:
        self.state.status, self.lease_until = status, float("-inf")

    def _finish(self, status: str, failed_step: int | None = None) -> NoReturn:
        self._write(partial(self._ended, self.state, status, failed_step))
        raise Left

    def _ended(self, state: State, status: str, failed_step: int | None = None) -> None:
        for step in state.recorded():
            if status == "cancelled" or step.asked:
                step.end_with_the_run()
        state.moves(status)
        state.failed_step = failed_step
        self.lease_until, self.finished_at = float("-inf"), self.universe.clock
