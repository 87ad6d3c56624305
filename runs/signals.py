"""The two sentences that runs say to reviews, inside the transaction that makes them true."""

from django.dispatch import Signal

# A step now waits for a person. Arguments: run_id, step (StepState), fact (the StepEscalated event).
escalated = Signal()
# No step of this run waits for a person any more, because the run was cancelled. Arguments: run_id, fact.
withdrawn = Signal()
