"""Writes through a language model: any provider of pydantic-ai, or a server that speaks OpenAI's dialect."""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from django.conf import settings
from pydantic import BaseModel

from runs.integrations import prices
from runs.reliability import guard

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.providers import Provider

logger = structlog.get_logger()
MODEL = guard.declare("model", kind="model")
LETTERS_A_TOKEN, ANSWER_TOKENS = 3, 1000  # what a call is counted with until the model says what it used

T = TypeVar("T")
Output = TypeVar("Output", bound=BaseModel)


def is_configured() -> bool:
    return bool(settings.AGENTOPS_MODEL or settings.AGENTOPS_MODEL_BASE_URL)


def name() -> str:
    """The model as it was configured, for the record."""
    return str(settings.AGENTOPS_MODEL or "default")


def described() -> str:
    """Who drafts replies, in one sentence for whoever starts the project; "" where no model does."""
    if not is_configured():
        return ""
    where = f" at {settings.AGENTOPS_MODEL_BASE_URL}" if settings.AGENTOPS_MODEL_BASE_URL else ""
    return f"Replies are drafted by the model {name()}{where}."


def complaint() -> str:
    """What is wrong with how the model is configured, as far as it shows without a network; "" when nothing is."""
    model, base_url = settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL
    if not is_configured():
        return ""
    if base_url and not base_url.startswith(("http://", "https://")):
        return f"AGENTOPS_MODEL_BASE_URL is {base_url}; it must begin with http:// or https://, and mostly ends in /v1."
    if wrong := prices.complaint():
        return wrong
    if not base_url and not re.fullmatch(r"[^:]+:.+", model):
        return UNKNOWN.format(model)
    try:
        _model()
    except ValueError:  # of infer_provider
        return UNKNOWN.format(model)
    except Exception as error:  # noqa: BLE001 - no client installed, no key: each provider has a class of its own for it
        return f"The model {name()} cannot be used as it is configured: {' '.join(str(error).split())}"
    return ""


UNKNOWN = "Unknown model: {}; use provider:name such as openai:gpt-5, or set AGENTOPS_MODEL_BASE_URL to a server of your own."

RETRIES = (
    "the client of {} tries again by itself, and cannot be told not to. Use another provider, or set AGENTOPS_MODEL_BASE_URL to a"
    " server that speaks OpenAI's dialect."
)


def load() -> None:
    """Import what writing needs, where a model is configured: it takes seconds, and job processes fork for each job."""
    if is_configured():
        _model()
        logger.info("model_loaded", model=name(), base_url=settings.AGENTOPS_MODEL_BASE_URL)


def write(output_type: type[Output], *, instructions: str, prompt: str) -> Output:
    """Have the model write a value of the given type."""
    tokens_in = (len(instructions) + len(prompt)) // LETTERS_A_TOKEN
    tokens = tokens_in + ANSWER_TOKENS
    most = guard.Spending(tokens, prices.cost(name(), tokens_in, ANSWER_TOKENS))
    return guard.call(MODEL, lambda: _written(output_type, instructions, prompt), tokens=tokens, most=most)


def _written(output_type: type[Output], instructions: str, prompt: str) -> Output:
    # Imported here: it takes seconds, and a process that only serves pages never needs it.
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.usage import RunUsage

    # Small local models fail at tool calls but keep to a schema; the big providers do well with either.
    wanted: Any = NativeOutput(output_type) if settings.AGENTOPS_MODEL_BASE_URL else output_type
    agent: Agent[None, Output] = Agent(
        _home.model(), output_type=wanted, instructions=instructions, name="draft", retries=0,
        model_settings={"max_tokens": ANSWER_TOKENS},
    )  # fmt: skip
    usage = RunUsage()
    try:
        return _home.done(agent.run(prompt, usage=usage)).output
    except Exception as error:
        if isinstance(error, ModelHTTPError) or not _was_sent(error):
            guard.unspent()
        raise
    finally:
        if usage.total_tokens:  # what says nothing, or 0, counts as it was reserved
            guard.used(usage.total_tokens, prices.cost(name(), usage.input_tokens, usage.output_tokens))


def _was_sent(error: BaseException | None) -> bool:
    """False where there was no connection to send anything by."""
    while error is not None:
        if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
            return False
        error = error.__cause__
    return True


def _model() -> "Model":
    from pydantic_ai.models import infer_model
    from pydantic_ai.models.openai import OpenAIChatModel

    if settings.AGENTOPS_MODEL_BASE_URL:
        return OpenAIChatModel(name().removeprefix("openai:"), provider=_provider("openai"))
    return infer_model(settings.AGENTOPS_MODEL, provider_factory=_provider)


def _provider(provider: str) -> "Provider[Any]":
    """Clients without retries of their own: a step's attempts are counted in one place."""
    key = settings.AGENTOPS_MODEL_API_KEY or None
    if provider in ("openai", "openai-chat", "openai-responses"):
        from openai import AsyncOpenAI, Timeout
        from pydantic_ai.providers.openai import OpenAIProvider

        base_url = settings.AGENTOPS_MODEL_BASE_URL or None
        key = key or ("none" if base_url else None)  # a server of one's own often asks for no key, the client does
        client = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=_timeout(Timeout))
        return OpenAIProvider(openai_client=client)
    if provider == "anthropic":
        from anthropic import AsyncAnthropic, Timeout
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client_ = AsyncAnthropic(api_key=key, max_retries=0, timeout=_timeout(Timeout))
        return AnthropicProvider(anthropic_client=client_)
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.providers import infer_provider

    found = infer_provider(provider)
    # openai's client and those made by the same generator: most providers have one
    if not all(hasattr(found.client, setting) for setting in ("max_retries", "timeout")):
        raise UserError(RETRIES.format(provider))
    found.client.max_retries = 0
    found.client.timeout = _timeout(type(found.client.timeout)) or found.client.timeout
    return found


class _Home:
    """Where the calls of this process run: one event loop in a thread of its own, and a client that keeps its connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: tuple[object, Any] | None = None

    def done(self, call: Coroutine[Any, Any, T]) -> T:
        """What it comes to within the time of an attempt: who waits may be given up, and the call ends all the same."""
        in_time = asyncio.wait_for(call, guard.terms().attempt_timeout_seconds)
        return asyncio.run_coroutine_threadsafe(in_time, self._running()).result()

    def model(self) -> "Model":
        """Anew where the configuration or a timeout has changed."""
        terms = guard.terms()
        timeouts = terms.connect_timeout_seconds, terms.read_timeout_seconds
        wanted = (name(), settings.AGENTOPS_MODEL_BASE_URL, settings.AGENTOPS_MODEL_API_KEY, timeouts)
        with self._lock:
            if self._kept is None or self._kept[0] != wanted:
                self._kept = wanted, _model()
            found: Model = self._kept[1]
            return found

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="model", daemon=True).start()
            return self._loop


_home = _Home()


def _after_fork() -> None:
    """Neither the thread nor the connections survive a fork."""
    global _home
    _home = _Home()


os.register_at_fork(after_in_child=_after_fork)


def _timeout(kind: Callable[..., T]) -> T | None:
    """As the client wants it; None where nothing is called: the configuration is only tried out."""
    if not guard.is_calling():
        return None
    terms = guard.terms()
    return kind(terms.read_timeout_seconds, connect=terms.connect_timeout_seconds)
