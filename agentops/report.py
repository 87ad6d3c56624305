"""A run as text for people and as one line of JSON for programs."""

import json

from django.db.models import QuerySet

from runs.models import Run


def with_details(runs: QuerySet[Run]) -> QuerySet[Run]:
    """The runs with what `as_json` reads of each, in three queries however many they are."""
    return runs.prefetch_related("steps", "reviews")


def as_json(run: Run) -> str:
    """id, status, output, error, steps (name, worker, status, confidence, attempts, duration_ms) and the ids of its
    reviews, open and closed, oldest first."""
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
    said = {"id": run.pk, "status": run.status, "output": run.output, "error": run.error, "steps": steps, "reviews": reviews}
    return json.dumps(said, ensure_ascii=False)


def as_text(run: Run) -> str:
    """Status, input and what came of it, in one or two lines."""
    line = f"Run {run.pk}  {run.get_status_display():<10} {run.input_text}"
    if run.error:
        return f"{line}\n    {run.error['message']}"
    return line if run.output is None else f"{line}\n    {json.dumps(run.output, ensure_ascii=False)}"
