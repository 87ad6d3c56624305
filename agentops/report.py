"""A run as text for people and as one line of JSON for programs."""

import json
from typing import Any

from django.db.models import QuerySet

from runs import describe, event_log
from runs.models import Run, RunStatus


def with_details(runs: QuerySet[Run]) -> QuerySet[Run]:
    """The runs with what `as_json` reads of each, in three queries however many they are."""
    return runs.prefetch_related("steps", "reviews")


def as_json(run: Run, waits: str = "") -> str:
    """id, status, tags, output, error, waiting (why), missing (where it was completed partially), steps (name, worker, status,
    confidence, attempts, duration_ms) and the ids of its reviews, open and closed, oldest first."""
    steps = [
        {
            "name": step.name,
            "worker": step.worker,
            "status": step.status,
            "confidence": step.confidence,
            "attempts": step.attempt,
            "duration_ms": step.duration_ms,
        }
        for step in run.steps.all()
    ]
    reviews = sorted(review.pk for review in run.reviews.all())
    said = {"id": run.pk, "status": run.status, "tags": run.tags, "output": run.output, "error": run.error}
    said |= {"waiting": waits, "missing": _missing(run), "steps": steps, "reviews": reviews}
    return json.dumps(said, ensure_ascii=False)


def as_text(run: Run, waits: str = "") -> str:
    """Status, input and what came of it, or why it waits, in one or two lines."""
    line = f"Run {run.pk}  {run.get_status_display():<10} {run.input_text}"
    if run.error:
        return f"{line}\n    {run.error['message']}"
    if waits:
        return f"{line}\n    {waits}"
    missing = f"\n    {describe.what_is_missing(_missing(run))}" if run.status == RunStatus.PARTIAL else ""
    return line + missing if run.output is None else f"{line}{missing}\n    {json.dumps(run.output, ensure_ascii=False)}"


def _missing(run: Run) -> list[dict[str, Any]]:
    return event_log.missing(run.pk) if run.status == RunStatus.PARTIAL else []
