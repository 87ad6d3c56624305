"""The rows: an event is the truth, a run and a step are what its events say, a configuration is what an admin wants."""

from runs.models import event
from runs.models.config import AgentConfig
from runs.models.run import Run, RunStatus
from runs.models.step import Step, StepStatus

__all__ = ["AgentConfig", "Run", "RunStatus", "Step", "StepStatus", "event"]
