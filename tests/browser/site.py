"""The web process of the browser tests: the real one, which also knows the small agents of the tests."""

from agentops.asgi import application
from tests import agents

__all__ = ["agents", "application"]
