"""The page of all operations: what each agent can do, what is critical, and what happens when it fails."""

from dataclasses import dataclass, replace
from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from runs import access, sdk
from runs.models import mishaps
from runs.operations import Operation, operations_of

LOOK_BACK = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class AgentOperations:
    agent: sdk.Agent
    operations: list[Operation]


@require_GET
@access.permits(access.may_look)
def operations(request: HttpRequest) -> HttpResponse:
    """By agent, with the failures of the last day."""
    counted = mishaps.counts(timezone.now() - LOOK_BACK)
    by_agent: dict[str, dict[str, tuple[int, int]]] = {}
    for (slug, name), counts in counted.items():
        by_agent.setdefault(slug, {})[name] = counts
    rows = [AgentOperations(agent, operations_of(agent, by_agent.get(agent.slug))) for agent in sdk.agents()]
    every = {replace(one, variant=1, failed=0, degraded=0) for row in rows for one in row.operations}
    shown = {
        "rows": rows,
        "count": len(every),
        "critical": sum(one.critical for one in every),
        "bare": sum(one.is_bare for one in every),
    }
    return render(request, "operations/list.html", shown)
