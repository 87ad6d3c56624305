"""Rules and what they read, for tests of the monitoring: at a moment of its own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from runs.alerts import evaluation, readings, rules
from runs.models import Alert, AlertRule, Reading, Run, Step

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)  # a Friday
MINUTE, FIVE_MINUTES = timedelta(minutes=1), timedelta(minutes=5)


def rule(**wanted: Any) -> AlertRule:
    terms: dict[str, Any] = {"name": "The queue is long", "measure": "queue", "limit": 10, "breaches": 2, "of": 3}
    return rules.configure(by="admin", **terms | wanted)


def read(
    values: Sequence[float], *, measure: str = "queue", subject: str = "", every: timedelta = MINUTE, count: int = 1
) -> None:
    """The last of them in the minute of NOW, or in the five that are over."""
    until = readings.floor(NOW, every) + (every if every == MINUTE else timedelta())
    Reading.objects.filter(measure=measure, subject=subject).delete()
    Reading.objects.bulk_create(
        Reading(measure=measure, subject=subject, at=until - every * (len(values) - place), value=value, count=count)
        for place, value in enumerate(values)
    )


def judged(given: AlertRule, *values: float, **more: Any) -> Alert | None:
    read(values, **more)
    evaluation.evaluate(given, NOW)
    return Alert.objects.filter(rule=given).order_by("-pk").first()


def ended(minutes_ago: float, status: str = "succeeded", *, agent: str = "counting", seconds: float = 10, **step: Any) -> Run:
    at = NOW - timedelta(minutes=minutes_ago)
    run = Run.objects.create(
        agent=agent, agent_version="1", status=status, created_at=at - timedelta(seconds=seconds), finished_at=at,
        error={"message": "no luck"} if status == "failed" else None,
    )  # fmt: skip
    Step.objects.create(run=run, position=1, name="a", worker="w", title="t", fingerprint="", status="succeeded", **step)
    return run


def history(alert: Alert) -> list[str]:
    """What happened to it."""
    return list(alert.events.values_list("kind", flat=True))
