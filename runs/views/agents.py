"""The agents that are installed, the page of one, and the form that starts a run of it."""

from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, budgets, commands, requests, sdk, waiting
from runs.engine import budget
from runs.engine.canonical import Unstorable
from runs.engine.policy import Policy as Terms
from runs.forms import TagsForm, model_form
from runs.latest import Latest, latest
from runs.models import AgentConfig, Policy, Run, versions
from runs.models.config import CHANGEABLE
from runs.operations import operations_of
from runs.views import trends

RECENT_RUNS = 10
VERSIONS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An installed agent, its configuration where one was made yet, and its latest runs."""

    agent: sdk.Agent
    config: AgentConfig | None
    latest: Latest

    @property
    def enabled(self) -> bool:
        return self.config is None or self.config.enabled

    @property
    def threshold(self) -> float:
        return self.config.threshold if self.config else self.agent.threshold


@require_GET
@access.permits(access.may_look)
def agents(request: HttpRequest) -> HttpResponse:
    configs = AgentConfig.objects.in_bulk(field_name="slug")
    counted = latest([one.slug for one in sdk.agents()])
    rows = [AgentRow(one, configs.get(one.slug), counted[one.slug]) for one in sdk.agents()]
    return render(request, "runs/agents.html", {"rows": rows, "may_start": access.may_start(request.user)})


@require_GET
@access.permits(access.may_look)
def agent(request: HttpRequest, slug: str) -> HttpResponse:
    """`?part=trends` answers with that part, for the page that is open."""
    found, pictures = _agent(slug), trends.shown(request, slug)
    if request.GET.get("part") == "trends":
        return render(request, "dashboard/_trends.html", pictures)
    row = AgentRow(found, requests.shown_configuration(slug), latest([slug])[slug])
    recent = list(Run.objects.filter(agent=slug).with_child_count().order_by("-created_at", "-id")[:RECENT_RUNS])
    shown = {"row": row, "runs": recent, "waits": waiting.answers(recent)}
    shown |= {
        "operations": operations_of(found),
        "versions": _versions(row.latest),
        "history": _history(row),
    }
    shown |= {"spent": budgets.spent_today(slug), "limits": _limits(row.config), "policies": _policies(slug)}
    may = {"may_start": access.may_start(request.user), "may_configure": access.may_configure(request.user)}
    may |= {"may_change_policies": access.may_change_policies(request.user)}
    return render(request, "runs/agent.html", shown | pictures | {"input": _fields(found)} | may)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_start)
def start_run(request: HttpRequest, slug: str) -> HttpResponse:
    """A form made from the agent's input model; on success, on to the run."""
    found = _agent(slug)
    sent = request.POST if request.method == "POST" else None
    form, tags = model_form(found.input_model, sent), TagsForm(sent)
    status = 200
    if request.method == "POST" and form.is_valid() and tags.is_valid():
        try:
            started = commands.start(slug, form.value(), by=request.user.get_username(), tags=tags.named)
        except (commands.Refused, Unstorable) as refused:
            messages.error(request, str(refused))
            status = 409
        else:
            return redirect(started)
    elif request.method == "POST":
        status = 200 if form.more else 422
    config = requests.shown_configuration(slug)
    return render(request, "runs/start.html", {"agent": found, "form": form, "tags": tags, "config": config}, status=status)


def _policies(slug: str) -> list[dict[str, Any]]:
    """Those in force, each with what it says in words."""
    rows = Policy.objects.filter(agent=slug, enabled=True).order_by("worker")
    return [{"row": row, "about": _about(row), "says": Terms.read(row.terms()).words} for row in rows]


def _about(row: Policy) -> str:
    """The title of its worker, as far as the code still has it."""
    worker = sdk.find_worker(row.worker)
    return worker.title if worker else row.worker or "Every other worker"


def _versions(found: Latest) -> list[dict[str, Any]]:
    """Of the agent, that ran lately: how many runs, and when the last of them began. The newest first."""
    told = [{"agent_version": version, "runs": runs, "last": last} for version, (runs, last) in found.versions.items()]
    return sorted(told, key=itemgetter("last"), reverse=True)[:VERSIONS_SHOWN]


def _history(row: AgentRow) -> list[Any]:
    """The last versions of its configuration, each with what changed."""
    found = versions.versions(row.config, most=VERSIONS_SHOWN) if row.config else []
    return [(one, list(versions.changes(one, CHANGEABLE))) for one in found]


def _limits(config: AgentConfig | None) -> dict[str, list[str]]:
    """What one run may do, and what all runs may spend in a day, as far as there are limits."""
    kinds = {"run": budget.UNITS, "day": budget.DAILY} if config else {}
    found = {kind: [(unit, getattr(config, f"{kind}_{unit}")) for unit in units] for kind, units in kinds.items()}
    return {kind: [_limit(*one) for one in limits if one[1] is not None] for kind, limits in found.items()}


def _limit(unit: str, number: Decimal | int) -> str:
    said = budget.shown(unit, Decimal(number), settings.CURRENCY)
    return f"the same step {said}" if unit == "repeats" else said


def _agent(slug: str) -> sdk.Agent:
    try:
        return commands.find_agent(slug)
    except commands.UnknownAgent as unknown:
        raise Http404(str(unknown)) from unknown


def _fields(found: sdk.Agent) -> list[dict[str, Any]]:
    """What the agent's input is made of, for its page."""
    return [
        {"name": name, "required": field.is_required(), "description": field.description or ""}
        for name, field in found.input_model.model_fields.items()
    ]
