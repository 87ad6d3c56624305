"""What runs say to reviews; all but `written` and `swept` inside the transaction that makes them true."""

from collections.abc import Sequence

from django.dispatch import Signal

from runs.engine.events import Fact, Kind
from runs.engine.state import RunState

# A step now waits for a person. Arguments: run_id, agent (its slug), step (StepState), fact (the StepEscalated event).
escalated = Signal()
# It waits for a person no more: one step (StepExpired, StepWithdrawn), or each (RunCancelled). Arguments: run_id, fact.
withdrawn = Signal()
# A step that nobody looked at was drawn for a look at its quality. Arguments: as of `escalated` (the StepSucceeded event).
sampled = Signal()
# Retention is about to delete runs with all that hangs on them by foreign keys. Arguments: run_ids.
removing = Signal()
# Events of a run were written and are committed. Arguments: run_id, state, facts. Nobody is waited for, nothing is taken back.
written = Signal()
# The sweeper has made its round, and whoever has something of their own to look for may do so. No arguments, no transaction.
swept = Signal()


def concern_reviews(written: Sequence[Fact]) -> bool:
    """Whether reviews must be told of these in the transaction that writes them."""
    return any(fact.kind == Kind.STEP_ESCALATED or fact.kind in WITHDRAWING or fact.data.get("sampled") for fact in written)


def tell_reviews(sender: type, run_id: int, state: RunState, written: Sequence[Fact]) -> None:
    """Of the facts that concern them; `state` has them folded in."""
    for fact in written:
        if fact.kind == Kind.STEP_ESCALATED and fact.step is not None:
            escalated.send(sender=sender, run_id=run_id, agent=state.agent, step=state.steps[fact.step], fact=fact)
        if fact.data.get("sampled") and fact.step is not None:
            sampled.send(sender=sender, run_id=run_id, agent=state.agent, step=state.steps[fact.step], fact=fact)
        if fact.kind in WITHDRAWING:
            withdrawn.send(sender=sender, run_id=run_id, fact=fact)


WITHDRAWING = (Kind.RUN_CANCELLED, Kind.STEP_EXPIRED, Kind.STEP_WITHDRAWN)
