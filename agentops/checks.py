"""System checks for settings that contradict one another or are unsafe."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register

from agentops import reach
from agentops.services.places import is_embedded
from runs import operations, sdk
from runs.integrations import llm

DEFAULT_SECRETS = ("insecure", "changeme", "change-me", "secret")


@register(Tags.security)
def production_is_safe(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """In production: a secret of one's own, named hosts, services that are neither embedded nor a sample."""
    if not settings.PRODUCTION:
        return []
    wrong = {
        "agentops.E001": (_default_secret(), "SECRET_KEY is short or a default: set a random one of 50 letters or more."),
        "agentops.E002": (not settings.ALLOWED_HOSTS, "ALLOWED_HOSTS is empty: name the hosts that people open."),
        "agentops.E003": (_embedded(), "DATABASE_URL or REDIS_URL names an embedded service: give production its own."),
        "agentops.E004": (settings.DEBUG, "DEBUG is on: it shows the inside of the program to everybody."),
        "agentops.E005": ("*" in settings.ALLOWED_HOSTS, "ALLOWED_HOSTS is *: name the hosts that people open."),
        "agentops.E007": (
            _desk_without_bank(),
            "BANK_DATABASE_URL is not set: the card desk has no sample bank in production. Name the bank's database.",
        ),
    }
    return [Error(text, id=name) for name, (is_wrong, text) in wrong.items() if is_wrong]


@register()
def model_is_usable(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A model that cannot be used is found at the start, not inside the first step that needs it."""
    complaint = llm.complaint()
    return [Error(complaint, id="agentops.E008")] if complaint else []


@register()
def lease_outlives_renewal(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A lease must survive two missed renewals, or a slow second loses the run."""
    if settings.LEASE_SECONDS >= 3 * settings.LEASE_RENEW_SECONDS:
        return []
    return [Error("LEASE_SECONDS must be at least three times LEASE_RENEW_SECONDS.", id="agentops.E006")]


@register()
def allowed_networks_are_networks(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A slip is found at the start, not when the first URL leads there."""
    said = "ALLOWED_PRIVATE_NETWORKS has {}, which is no network: write it as 10.1.0.0/16, several separated by commas."
    return [Error(said.format(one), id="agentops.E010") for one in settings.ALLOWED_PRIVATE_NETWORKS if not _is_network(one)]


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


@register()
def retention_is_possible(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """What is wrong is said at the start, not in the log of a night."""
    wrong = {
        "PRUNE_DAYS must be 0 (nothing is removed by itself) or a number of days.": settings.PRUNE_DAYS < 0,
        "PRUNE_HOUR must be an hour of the day (UTC), from 0 to 23.": not 0 <= settings.PRUNE_HOUR <= 23,
        "PRUNE_ARCHIVE must be a whole path, such as /var/lib/agentops/archive.": bool(settings.PRUNE_ARCHIVE)
        and not Path(settings.PRUNE_ARCHIVE).is_absolute(),
    }
    return [Error(text, id="agentops.E014") for text, is_wrong in wrong.items() if is_wrong]


@register()
def workers_name_what_they_use(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """An outside call that its worker does not name, or that a supervisor makes itself, is found before it is made."""
    read: reach.Read = {}
    workers = [text for name in sorted(sdk.WORKERS) for text in _unnamed(sdk.WORKERS[name], read)]
    supervisors = [text for slug in sorted(sdk.AGENTS) for text in _called_by_supervisor(sdk.AGENTS[slug], read)]
    return [Error(text, id="agentops.E009") for text in workers + supervisors]


@register()
def what_leaves_goes_through_guard(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Also in the packages of AGENT_APPS, of which the import contracts know nothing."""
    workers = [text for name in sorted(sdk.WORKERS) for text in _past_guard(f"The worker {name}", sdk.WORKERS[name])]
    supervisors = [text for slug in sorted(sdk.AGENTS) for text in _past_guard(f"The supervisor of {slug}", sdk.AGENTS[slug])]
    return [Error(text, id="agentops.E013") for text in workers + supervisors]


@register()
def critical_workers_name_a_fallback(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """What matters most must not fail without anybody having said what happens then."""
    return [Error(_without_fallback(worker), id="agentops.E011") for worker in operations.bare()]


@register()
def what_happens_once_calls_one_dependency(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Where the second has no room, the first was called already, and the step cannot begin anew."""
    several = [worker for worker in sdk.WORKERS.values() if worker.effect == "once" and len(worker.uses) > 1]
    return [checks.Warning(_once_in_several(worker), id="agentops.W012") for worker in sorted(several, key=lambda one: one.name)]


def _once_in_several(worker: sdk.Worker[..., Any]) -> str:
    return (
        f'The worker {worker.name} has effect="once" and uses {" and ".join(worker.uses)}: where one of them has no room '
        "after another was called, a person must find out what happened. Make a worker for each, or make it idempotent."
    )


def _without_fallback(worker: sdk.Worker[..., Any]) -> str:
    agents = ", ".join(operations.agents_of(worker))
    by = f"agent {agents}" if agents else "no agent of this installation"
    return (
        f"The worker {worker.name} ({by}) is critical but names no fallback: "
        "add fallback=another_worker, fallback=ask_human or fallback=skip(note) to its @worker."
    )


def _unnamed(worker: sdk.Worker[..., Any], read: reach.Read) -> Iterator[str]:
    try:
        found = reach.reached(worker, read)
    except reach.Unreadable as unreadable:
        yield f"The worker {worker.name} cannot be checked: {unreadable}"
        return
    missing = sorted(found.keys() - set(worker.uses))
    named = ", ".join(f'"{name}"' for name in sorted({*worker.uses, *missing}))
    for name in missing:
        yield (
            f"The worker {worker.name} comes to {found[name]}, which calls {name}, but does not name it: "
            f"write uses=({named}{',' if ',' not in named else ''}) in its @worker."
        )


def _past_guard(who: str, of: sdk.Worker[..., Any] | sdk.Agent) -> Iterator[str]:
    try:
        found = reach.ways_out(of)
    except reach.Unreadable:  # said above
        return
    for module in sorted(found):
        yield (
            f"{who} comes to {found[module]}, which uses {module} past guard: no limit, breaker or budget would hold for it. "
            "Hand what calls outside to guard.call, as in docs/writing-an-agent.md."
        )


def _called_by_supervisor(agent: sdk.Agent, read: reach.Read) -> Iterator[str]:
    try:
        found = reach.reached(agent, read)
    except reach.Unreadable as unreadable:
        yield f"The supervisor of {agent.slug} cannot be checked: {unreadable}"
        return
    for name in sorted(found):
        yield (
            f"The supervisor of {agent.slug} comes to {found[name]}, which calls {name}, and would do so on every replay: "
            f'call it in a @worker(uses="{name}") of its own.'
        )


def _default_secret() -> bool:
    secret = settings.SECRET_KEY
    return len(secret) < 50 or any(word in secret.lower() for word in DEFAULT_SECRETS)


def _embedded() -> bool:
    return any(is_embedded(path) for path in _sockets())


def _sockets() -> Iterator[Path]:
    """The paths of sockets, as DATABASE_URL (in the host's place or behind host=) and REDIS_URL may name them."""
    database = settings.DATABASES["default"]
    hosts = [database.get("HOST") or "", database.get("OPTIONS", {}).get("host") or ""]
    redis = urlsplit(settings.REDIS_URL)
    paths = [unquote(part) for host in hosts for part in host.split(",")]
    paths.append(unquote(redis.path) if redis.scheme == "unix" else "")
    return (Path(path) for path in paths if path.startswith("/"))


def _desk_without_bank() -> bool:
    """Asked of the file, because the agents are loaded after this."""
    return not settings.BANK_DATABASE_URL and find_spec("runs.agents.card_desk") is not None
