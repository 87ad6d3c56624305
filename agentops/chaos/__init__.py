"""Chaos: faults on purpose against runs on real processes and services, judged by an outside ledger and the event log."""
