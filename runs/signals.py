"""What runs say to reviews; all but the last inside the transaction that makes them true."""

from django.dispatch import Signal

# A step now waits for a person. Arguments: run_id, agent (its slug), step (StepState), fact (the StepEscalated event).
escalated = Signal()
# It waits for a person no more: one step (StepExpired, StepWithdrawn), or each (RunCancelled). Arguments: run_id, fact.
withdrawn = Signal()
# A step that nobody looked at was drawn for a look at its quality. Arguments: as of `escalated` (the StepSucceeded event).
sampled = Signal()
# The sweeper has made its round, and whoever has something of their own to look for may do so. No arguments, no transaction.
swept = Signal()
