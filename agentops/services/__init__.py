"""Brings along the PostgreSQL and Redis of a checkout where the environment names none (development and tests only)."""

from agentops.services.failure import ServicesFailure
from agentops.services.sharing import ensure_env

__all__ = ["ServicesFailure", "ensure_env"]
