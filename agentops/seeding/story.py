"""What happened in one run of the past, as drafts of its events with their times."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from runs.engine.canonical import digest
from runs.engine.events import Draft, Kind

OWNER = "seed"
CHANNELS = ("channel:app", "channel:mail", "channel:phone")
TAGS = {"vip": 0.05, "region:eu": 0.3, "campaign:spring": 0.01}  # how often runs have each


def tags(random: Random) -> list[str]:
    """What somebody might give to a run; every third has none."""
    if random.random() < 1 / 3:
        return []
    return sorted([random.choice(CHANNELS), *(tag for tag, share in TAGS.items() if random.random() < share)])


class Told(NamedTuple):
    """One event that is to be written, and when."""

    at: datetime
    draft: Draft


@dataclass
class Story:
    """Tells the events of one run in their order; each sentence takes its time."""

    random: Random
    at: datetime
    until: datetime  # nothing is told of later times
    told: list[Told] = field(default_factory=list)
    steps: int = 0
    spent: dict[str, float] = field(default_factory=dict)  # on models, by unit

    def requested(self, data: dict[str, Any], *, by: str) -> None:
        named = tags(self.random)
        self.say(Kind.RUN_REQUESTED, data | ({"tags": named} if named else {}), actor=by)
        self.waits(self.random.expovariate(4.0))
        self.say(Kind.RUN_STARTED, {"owner": OWNER, "fence": 1})

    def begins(
        self, name: str, worker: str, title: str, given: dict[str, Any], *, effect: str = "none", runs: bool = True
    ) -> None:
        """A step; where it does not run at once, a person is asked before."""
        self.steps += 1
        said = {"name": name, "worker": worker, "title": title, "effect": effect, "input": given}
        said["fingerprint"] = digest(name, worker, given)
        if runs:
            self.say(Kind.STEP_STARTED, said | {"attempt": 1}, self.steps)
        else:
            self.say(Kind.STEP_REQUESTED, said, self.steps)

    def fails(self, error: dict[str, Any], *, attempt: int, wait_seconds: float | None) -> None:
        """An attempt did; another begins after the wait, where there is one."""
        self.say(Kind.ATTEMPT_FAILED, {"error": error, "attempt": attempt, "wait_seconds": wait_seconds}, self.steps)
        if wait_seconds is not None:
            self.waits(wait_seconds)
            self.say(Kind.ATTEMPT_STARTED, {"attempt": attempt + 1, "remark": ""}, self.steps)

    def gives(self, output: Any, *, seconds: float, **judged: Any) -> None:
        """The step succeeds after so long."""
        self.waits(seconds)
        self.say(Kind.STEP_SUCCEEDED, {"output": output, "duration_ms": round(seconds * 1000)} | judged, self.steps)

    def asks(self, question: dict[str, Any]) -> None:
        """A person, and the run is parked."""
        self.say(Kind.STEP_ESCALATED, question, self.steps)
        self.say(Kind.RUN_PARKED, {"cause": "person", "steps": [self.steps]}, self.steps)

    def decided(self, decision: str, value: Any, *, by: str, after_seconds: float, reason: str = "") -> None:
        """A person answers, and the run is taken up again."""
        self.waits(after_seconds)
        said = {"decision": decision, "reason": reason, "value": value}
        self.say(Kind.STEP_DECIDED, said, self.steps, actor=by)
        self.waits(0.2)
        self.say(Kind.RUN_RESUMED, {"owner": OWNER, "fence": 2})

    def ends(self, kind: Kind, data: dict[str, Any], *, actor: str = "") -> None:
        self.say(kind, data, actor=actor)

    def say(self, kind: Kind, data: dict[str, Any], step: int | None = None, *, actor: str = "") -> None:
        self.told.append(Told(self.at, Draft(kind, data, step, actor)))
        self.waits(self.random.uniform(0.00004, 0.0009))

    def waits(self, seconds: float) -> None:
        self.at += min(timedelta(seconds=seconds), (self.until - self.at) / 4)
