"""The rows: an event is the truth, a run and a step are what its events say, the others what an admin wants."""

from runs.models import content, event, held, mishaps, open_reviews, retention, versions
from runs.models.alert import Alert, AlertChannel, AlertEvent, AlertNotice, AlertRule
from runs.models.budget import Budget, Reservation
from runs.models.bulk import Bulk, BulkAction, BulkActionItem, BulkQuerySet
from runs.models.config import AgentConfig
from runs.models.dependency import BreakerChange, Dependency, DependencyKind
from runs.models.pace import Pace, validate_zone
from runs.models.policy import Policy
from runs.models.reading import BrokenLog, Reading, Round
from runs.models.retention import Hold, Pruning, Tombstone, kept_until_removed, never_emptied
from runs.models.reveal import Reveal
from runs.models.run import Run, RunStatus
from runs.models.search import SearchText
from runs.models.step import Step, StepStatus
from runs.models.view import RunView, SavedViewQuerySet

__all__ = [
    "AgentConfig", "Alert", "AlertChannel", "AlertEvent", "AlertNotice", "AlertRule", "BreakerChange", "BrokenLog", "Budget",
    "Bulk", "BulkAction", "BulkActionItem", "BulkQuerySet", "Dependency", "DependencyKind", "Hold", "Pace", "Policy", "Pruning",
    "Reading", "Reservation", "Reveal", "Round", "Run", "RunStatus", "RunView", "SavedViewQuerySet", "SearchText", "Step",
    "StepStatus", "Tombstone", "content", "event", "held", "kept_until_removed", "mishaps", "never_emptied", "open_reviews",
    "retention", "validate_zone", "versions",
]  # fmt: skip
