"""What the steps of one pass through a supervisor know of it, and of one another."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runs import escalations, event_log, keeper, sdk
from runs.engine.outcome import Ending
from runs.engine.state import Status
from runs.models import Run, open_reviews
from runs.reliability import budget

BELOW_SECONDS = 1.0


@dataclass(slots=True)
class Pass:
    """What its steps know of one pass through a supervisor."""

    log: event_log.RunLog
    held: keeper.Held
    woken_for: datetime | None = None  # the time for which the run was parked, where it has come
    lost_owner: str = ""  # whom this process took the run over from
    ending: Ending | None = None  # of the process that the present attempt had to itself
    offers_process: bool = False  # whether a step can be given a process to itself
    asks_for_more: int = 0  # the step at which a person is asked, because the run has come to one of its ceilings
    _in_hand: int | None = None
    _below: float = 0.0
    _below_until: float = 0.0  # by the monotonic clock
    _open: dict[int, bool] | None = None  # the steps that a person is asked about, and whether that is of high risk
    _open_elsewhere: int = 0  # the reviews of the runs above it and below

    @property
    def tenant(self) -> str:
        """Whose work the run does, where its agent says so."""
        agent = sdk.AGENTS.get(self.log.state.agent)
        return agent.tenant_of(self.log.state.input) if agent else ""

    def seconds(self, limits: Mapping[str, Any]) -> float:
        """So long the run has taken without people, with the runs that it started; asked only where that has a limit."""
        if limits.get("seconds") is None:
            return 0.0
        return self.log.state.seconds(event_log.now()) + self._seconds_below()

    def _seconds_below(self) -> float:
        """Read at most once a second: it is a question about every event of every run below."""
        if self._has_started_runs and time.monotonic() >= self._below_until:
            self._below = budget.seconds_below(self.log.run_id)
            self._below_until = time.monotonic() + BELOW_SECONDS
        return self._below

    @property
    def _has_started_runs(self) -> bool:
        return any(step.worker.startswith("spawn[") for step in self.log.state.steps.values())

    def others(self, position: int) -> int | None:
        """What else was in hand of the process that was lost: runs, and steps of this one. None where nobody knows."""
        if not self.lost_owner:
            return None
        if self._in_hand is None:
            self._in_hand = Run.objects.in_hand_of(self.lost_owner).exclude(pk=self.log.run_id).count()
        steps = self.log.state.steps.values()
        return self._in_hand + sum(step.status == Status.RUNNING and step.position != position for step in steps)

    def has_room_for(self, position: int, asked: dict[str, Any]) -> bool:
        """Whether a person may be asked about one more step.

        What is of high risk waits only for what is of high risk in the same run, what is about the run itself for nothing.
        """
        if self._open is None:
            steps = self.log.state.steps.values()
            self._open = {step.position: step.escalation.get("risk") == "high" for step in steps if step.asked}
            self._open_elsewhere = self._count_elsewhere()
        most, is_high = self.log.state.config.get("reviews", {}).get("run"), asked.get("risk") == "high"
        others = [risky for place, risky in self._open.items() if place != position]
        before = sum(others) if is_high else len(others) + self._open_elsewhere
        if most and before >= most and asked["cause"] not in escalations.UNTIMED:
            return False
        self._open[position] = is_high
        return True

    def _count_elsewhere(self) -> int:
        state = self.log.state
        has_family = state.parent_id or self._has_started_runs
        return open_reviews.of_family(self.log.run_id, but=self.log.run_id) if has_family else 0


def has_come(moment: datetime, woken_for: datetime | None) -> bool:
    """Whether that time has come by the database's clock, which has already found that `woken_for` has."""
    return (woken_for is not None and moment <= woken_for) or moment <= event_log.now()
