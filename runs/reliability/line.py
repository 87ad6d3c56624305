"""A step that is held back from a dependency has a place in its line: whoever will not call after all gives it up."""

import structlog
from django.db import transaction

from runs.engine.state import RunState, Status, StepState
from runs.models import Run, held
from runs.reliability import entry, store

logger = structlog.get_logger()


def held_step(state: RunState) -> StepState | None:
    """The step that waits for a dependency, of a run that is parked for it."""
    step = state.steps.get(state.waiting_step or 0)
    is_held = state.status == Status.WAITING and state.waiting_cause in held.CAUSES
    return step if step and is_held and step.status == Status.RETRYING else None


def leave(run_id: int, state: RunState) -> None:
    """Those behind it need not wait for it. Called in a transaction, before anything is appended that says so."""
    step = held_step(state)
    said = held.said([Run.objects.get(pk=run_id)]).get(run_id, {}) if step else {}
    if step and (name := said.get("dependency")):
        key, ticket = entry.fair_key(state.agent, said.get("tenant", "")), f"{run_id}:{step.name}"
        transaction.on_commit(lambda: _give_up(name, key, ticket))


def _give_up(name: str, key: str, ticket: str) -> None:
    try:
        entry.give_up(name, key, ticket)
    except store.Unavailable as error:  # the place is lost when nobody looks again
        logger.warning("place_not_given_up", dependency=name, error=str(error))
