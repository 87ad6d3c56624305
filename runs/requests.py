"""What a run is asked to do: its agent, its input and the configuration in force, as the draft of its first event."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from runs import sdk
from runs.engine.canonical import dumps, stored
from runs.engine.events import Draft, Kind
from runs.engine.tags import checked
from runs.models import AgentConfig, Policy

SUMMARY_LETTERS = 160


class Refused(Exception):
    """The command does not fit the state of the run or agent; the message says why and what to do."""


class UnknownAgent(Refused):
    """There is no agent of that slug; the message lists those there are."""


def request(
    slug: str, given: Any, *, by: str, terms: dict[str, Any] | None = None, tags: str | Iterable[str] = (), **more: Any
) -> Draft:
    """The first event of a run of the agent on the input (a dict or its model); `more` joins what it says.

    Without `terms`, the configuration and the policies in force count.

    Raises UnknownAgent, Refused when the agent is disabled or one of `tags` is none, pydantic's ValidationError when the input
    does not fit, and Unstorable when it cannot be kept.
    """
    agent = find_agent(slug)
    value = agent.input_model.model_validate(given)
    said = {
        "agent": agent.slug,
        "agent_version": agent.version,
        "input": stored(sdk.dump_model(value)),
        "summary": summary(value),
        "config": in_force(enabled(agent)) if terms is None else terms,
    }
    return Draft(Kind.RUN_REQUESTED, said | tagged(tags) | more, actor=by)


def tagged(tags: str | Iterable[str]) -> dict[str, Any]:
    """What the first event says of its tags, which is nothing where there are none. Raises Refused."""
    try:
        found = checked(tags)
    except ValueError as error:
        raise Refused(str(error)) from error
    return {"tags": found} if found else {}


def find_agent(slug: str) -> sdk.Agent:
    """The registered agent of that slug. Raises UnknownAgent."""
    if slug not in sdk.AGENTS:
        known = ", ".join(sorted(sdk.AGENTS)) or "none is installed"
        raise UnknownAgent(f"There is no agent {slug!r}. Known agents: {known}. Others come with the apps that AGENT_APPS names.")
    return sdk.AGENTS[slug]


def configuration(slug: str) -> AgentConfig:
    """The configuration in force; made from the agent's declaration on first sight. Raises UnknownAgent."""
    agent = find_agent(slug)
    for config in AgentConfig.objects.raw(CONFIGURATION, [slug]):
        return config
    return AgentConfig.objects.get_or_create(slug=slug, defaults=_declared(agent))[0]


def shown_configuration(slug: str) -> AgentConfig:
    """The same for who only looks: as it is declared, not saved, where it has no row yet."""
    return AgentConfig.objects.filter(slug=slug).first() or AgentConfig(slug=slug, **_declared(find_agent(slug)))


def see() -> None:
    """Make the rows of agents that have none, so that an admin can change them before their first run."""
    known = set(AgentConfig.objects.values_list("slug", flat=True))
    for slug in sdk.AGENTS.keys() - known:
        configuration(slug)


def _declared(agent: sdk.Agent) -> dict[str, Any]:
    defaults: dict[str, Any] = {"threshold": agent.threshold, "values": stored(sdk.dump_model(agent.config_model()))}
    return defaults | {f"run_{unit}": limit for unit, limit in agent.budget.limits().items()}


CONFIGURATION = """
    SELECT *, EXISTS (SELECT FROM runs_policy WHERE agent = slug AND runs_policy.enabled) AS has_policies
    FROM runs_agentconfig WHERE slug = %s
"""


def enabled(agent: sdk.Agent) -> AgentConfig:
    """The configuration in force. Raises Refused when it says that no run may start."""
    config = configuration(agent.slug)
    if not config.enabled:
        raise Refused(f"The agent {agent.title} is disabled: an admin can enable it in its configuration.")
    return config


def in_force(config: AgentConfig) -> dict[str, Any]:
    """As a run keeps it, with the policies of its agent."""
    terms: dict[str, Any] = {"version": config.version, "threshold": config.threshold, "attempts": config.attempts}
    policies = Policy.objects.in_force(config.slug) if getattr(config, "has_policies", True) else []
    terms |= {"values": config.values, "budget": config.run_limits, "policies": policies}
    return terms | {"reviews": {"run": config.reviews_per_run, "agent": config.reviews_per_agent}}


def summary(value: BaseModel) -> str:
    """The input in one line: its first text, else what its fields say, shortened."""
    said = value.model_dump(mode="json")
    texts = [text for text in said.values() if isinstance(text, str) and text.strip()]
    fields = ", ".join(f"{name}: {dumps(one)[:40]}" for name, one in said.items())
    line = " ".join((texts or [fields or "(no input)"])[0].split())
    return line if len(line) <= SUMMARY_LETTERS else line[: SUMMARY_LETTERS - 1] + "…"
