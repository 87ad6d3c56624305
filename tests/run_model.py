"""A small model of runs: what they and their steps must be after a process has carried one."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from tests.model_state import (
    ATTEMPTS,
    ENDED,
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
    Attempt,
    Left,
    Next,
    Open,
    Part,
    Refusal,
    Refused,
    Script,
    Step,
    Universe,
)
from tests.model_steered import Steered


class Model(Steered):
    """One run, as a process carries it."""

    def __init__(self, universe: Universe, parts: tuple[Part, ...], parent: "Model | None" = None) -> None:
        super().__init__(universe, parts, parent)
        self.script = Script()
        self.words: list[str] = []
        self.dies, self.stopped, self.lost, self.missing, self.at = "", False, False, False, 0
        self.unwritten, self.results = False, False  # anything at all; results among it

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
