"""The rows: an event is the truth, a run and a step are what its events say, the others what an admin wants."""

from runs.models import event, held, mishaps, open_reviews, versions
from runs.models.budget import Budget, Reservation
from runs.models.config import AgentConfig
from runs.models.dependency import BreakerChange, Dependency, DependencyKind
from runs.models.policy import Policy
from runs.models.run import Run, RunStatus
from runs.models.step import Step, StepStatus

__all__ = [
    "AgentConfig", "BreakerChange", "Budget", "Dependency", "DependencyKind", "Policy", "Reservation", "Run", "RunStatus",
    "Step", "StepStatus", "event", "held", "mishaps", "open_reviews", "versions",
]  # fmt: skip
