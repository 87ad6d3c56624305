"""The two sentences that runs say to reviews, inside the transaction that makes them true."""

from django.dispatch import Signal

# A step now waits for a person. Arguments: run_id, agent (its slug), step (StepState), fact (the StepEscalated event).
escalated = Signal()
# It waits for a person no more: one step (StepExpired, StepWithdrawn), or each (RunCancelled). Arguments: run_id, fact.
withdrawn = Signal()
