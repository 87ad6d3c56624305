"""What runs say to reviews; all but `written` and `swept` inside the transaction that makes them true."""

from django.dispatch import Signal

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
