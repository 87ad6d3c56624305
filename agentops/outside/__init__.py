"""The outside world in one process: a card processor and a model provider, with faults on demand."""

from agentops.outside.server import Outside

__all__ = ["Outside"]
