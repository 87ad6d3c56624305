"""What a rule may do by itself when it opens an alert, through the commands that a person would use, with the rule as actor."""

import structlog
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import transaction

from runs import commands, dependencies
from runs.models import AgentConfig, AlertEvent, AlertRule, Dependency
from runs.requests import Refused, UnknownAgent

logger = structlog.get_logger()
UNEXPECTED = "an error that nobody expected, which the log of this process tells (alert_act_failed)."


def act(rule: AlertRule, subject: str, why: str) -> AlertEvent | None:
    """Do it, and say what was done or why it could not be; None where the rule does nothing. To be saved with the alert."""
    if not rule.act:
        return None
    on = rule.act_on or subject
    try:
        with transaction.atomic():
            note = ACTS[rule.act](rule, on, why)
    except (Refused, UnknownAgent, ValidationError, ObjectDoesNotExist) as error:
        said = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        return AlertEvent(kind=AlertEvent.Kind.NOT_ACTED, by=rule.actor, note=f"{on}: {said}"[:300])
    except Exception:  # whatever it is: the alert is opened all the same
        logger.exception("alert_act_failed", rule=rule.pk)
        return AlertEvent(kind=AlertEvent.Kind.NOT_ACTED, by=rule.actor, note=f"{on}: {UNEXPECTED}")
    return AlertEvent(kind=AlertEvent.Kind.ACTED, by=rule.actor, note=note[:300])


def _pause_agent(rule: AlertRule, slug: str, why: str) -> str:
    config = AgentConfig.objects.filter(slug=slug).first()
    if config and not config.enabled:
        return f"{slug} was disabled already."
    commands.configure(slug, by=rule.actor, enabled=False)
    return f"{slug} is disabled: it starts no new runs until somebody enables it."


def _lower_limit(rule: AlertRule, name: str, why: str) -> str:
    present, wanted = Dependency.objects.get(name=name).limit_requests, rule.act_limit or 1
    if present is not None and present <= wanted:
        return f"The limit of {name} was {present:,} already."
    dependencies.configure(name, by=rule.actor, limit_requests=wanted)
    return f"The limit of {name} is {wanted:,} requests now; it was {'none' if present is None else f'{present:,}'}."


def _open_breaker(rule: AlertRule, name: str, why: str) -> str:
    dependencies.force(name, "open", by=rule.actor, reason=why, on_commit=True)
    return f"The breaker of {name} is open until somebody closes it."


ACTS = {
    AlertRule.Act.PAUSE_AGENT.value: _pause_agent,
    AlertRule.Act.LOWER_LIMIT.value: _lower_limit,
    AlertRule.Act.OPEN_BREAKER.value: _open_breaker,
}
