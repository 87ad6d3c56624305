"""The outside world in one process: a card processor and a model provider, with faults on demand."""

from agentops.outside.server import Outside
from agentops.outside.whereabouts import forget, note, noted

__all__ = ["Outside", "forget", "note", "noted"]
