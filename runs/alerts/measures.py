"""What can be watched, what each number is of, and how it is said."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.conf import settings

from runs import sdk
from runs.templatetags.shown import duration

GRAIN = timedelta(minutes=5)  # in which what ended is read
MINUTE = timedelta(minutes=1)  # in which what is there is read
Of = Literal["", "agent", "dependency"]


@dataclass(frozen=True, slots=True)
class Measure:
    """`of`: what it is of besides everything. `is_gauge`: read at a moment, not of what ended. `adds_up`: counted, no mean.

    `is_spread`: a percentile (runs/alerts/spread.py).
    """

    name: str
    title: str
    unit: Literal["share", "seconds", "money", "count", "bytes", "yes"]
    of: Of = ""
    is_gauge: bool = False
    adds_up: bool = False
    is_spread: bool = False
    about: str = ""  # what somebody might take it for, and what it is

    @property
    def grain(self) -> timedelta:
        return MINUTE if self.is_gauge else GRAIN

    def said(self, value: float | None) -> str:
        """The value as a sentence has it."""
        match self.unit:
            case _ if value is None:
                return "not known"
            case "share":
                return f"{100 * value:.3g} %" if self.name != "confidence" else f"{value:.2f}"
            case "seconds":
                return duration(1000 * value) if value else "0 s"
            case "money":
                return f"{value:.3g} {settings.CURRENCY}"
            case "bytes":
                return f"{value / 1e9:.2f} GB"
            case "yes":
                return "yes" if value else "no"
            case _:
                return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


DISK = "What the files of this database take on their disk. How much room is left there PostgreSQL does not say."
MEASURES = {
    one.name: one
    for one in (
        Measure("runs_ended", "Runs that ended", "count", of="agent", adds_up=True),
        Measure("failure_rate", "Failure rate of runs", "share", of="agent"),
        Measure("duration", "Median duration of runs", "seconds", of="agent", is_spread=True),
        Measure("duration_p95", "Duration of runs, 95th percentile", "seconds", of="agent", is_spread=True),
        Measure("cost", "Cost of a run", "money", of="agent"),
        Measure("tokens", "Tokens of a run", "count", of="agent"),
        Measure("confidence", "Mean confidence of steps", "share", of="agent"),
        Measure("escalation_rate", "Share of runs that asked a person", "share", of="agent"),
        Measure("correction_rate", "Share of runs that a person corrected", "share", of="agent"),
        Measure("reviews_late", "Time by which the oldest review is overdue", "seconds", is_gauge=True),
        Measure("review_age", "Age of the oldest open review", "seconds", is_gauge=True),
        Measure("reviews_open", "Open reviews", "count", is_gauge=True),
        Measure("queue", "Jobs on the queue", "count", is_gauge=True),
        Measure("job_processes", "Job processes alive", "count", is_gauge=True),
        Measure("sweeper", "Sweeper alive", "yes", is_gauge=True),
        Measure("redis", "Redis answers", "yes", is_gauge=True),
        Measure("failed_parts", "Parts of the monitoring that failed", "count", is_gauge=True),
        Measure("breaker_open", "Breaker open or half-open", "yes", of="dependency", is_gauge=True),
        Measure("quarantined", "Open reviews of steps that ended their process", "count", is_gauge=True),
        Measure("broken_logs", "Runs and prunings whose verification failed", "count", is_gauge=True),
        Measure("retention_missed", "Last night's retention was missed", "yes", is_gauge=True),
        Measure("database_bytes", "Size of the database", "bytes", is_gauge=True, about=DISK),
    )
}


def subject_title(measure: Measure, subject: str) -> str:
    """Of whom it is, as a sentence ends; "" is everything together."""
    if not subject:
        return ""
    return sdk.AGENTS[subject].title if measure.of == "agent" and subject in sdk.AGENTS else subject
