"""Writes through a language model: any provider of pydantic-ai, or a server that speaks OpenAI's dialect."""

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from django.conf import settings
from pydantic import BaseModel

from runs.engine.errors import HeldBack
from runs.integrations import conversation, exchange, prices
from runs.reliability import guard

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.providers import Provider

logger = structlog.get_logger()
MODEL = guard.declare("model", kind="model")
BYTES_A_TOKEN, ANSWER_TOKENS = 3, 1000  # what a call is counted with until the model says what it used

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
    before = tokens_in(f"{instructions}{prompt}", output_type)
    tokens = before + ANSWER_TOKENS
    most = guard.Spending(tokens, prices.cost(name(), before, ANSWER_TOKENS))
    return guard.call(MODEL, lambda: _written(output_type, instructions, prompt), tokens=tokens, most=most)


def tokens_in(text: str, output_type: type[BaseModel]) -> int:
    """About the most that the model will count for it: bytes, because in some scripts a letter is a token or two."""
    return len(f"{text}{_schema(output_type)}".encode()) // BYTES_A_TOKEN


@lru_cache(maxsize=256)
def _schema(output_type: type[BaseModel]) -> str:
    """It is sent along."""
    return json.dumps(output_type.model_json_schema())


def _written(output_type: type[Output], instructions: str, prompt: str) -> Output:
    # Imported here: it takes seconds, and a process that only serves pages never needs it.
    from pydantic_ai import Agent, NativeOutput, capture_run_messages
    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.usage import RunUsage

    # Small local models fail at tool calls but keep to a schema; the big providers do well with either.
    wanted: Any = NativeOutput(output_type) if settings.AGENTOPS_MODEL_BASE_URL else output_type
    agent: Agent[None, Output] = Agent(
        _home.model(), output_type=wanted, instructions=instructions, name="draft", retries=0,
        model_settings={"max_tokens": ANSWER_TOKENS}, capabilities=_traced(),
    )  # fmt: skip
    usage, messages = RunUsage(), list[Any]()
    try:
        with capture_run_messages() as messages:
            return _home.done(agent.run(prompt, usage=usage)).output
    except Exception as error:
        causes = list(_causes(error))
        if held := next((one for one in causes if isinstance(one, HeldBack)), None):
            raise held from None  # of guard.connected: the client takes it for an error of the way
        if isinstance(error, ModelHTTPError) or any(type(one).__name__ in UNSENT for one in causes):
            guard.unspent()
        raise
    finally:
        tokens = (usage.input_tokens, usage.output_tokens)
        cost = prices.cost(name(), *tokens) if usage.total_tokens else None
        if usage.total_tokens:  # what says nothing, or 0, counts as it was reserved
            guard.used(usage.total_tokens, cost)
        conversation.record(name(), messages, tokens=tokens, cost=cost)


def _traced() -> list[Any]:
    """Where traces are wanted (agentops/tracing.py): never what was written."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return []
    from pydantic_ai.capabilities import Instrumentation
    from pydantic_ai.models.instrumented import InstrumentationSettings

    return [Instrumentation(settings=InstrumentationSettings(include_content=False))]


UNSENT = ("ConnectError", "ConnectTimeout")  # there was no connection to send anything by


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _model() -> "Model":
    from pydantic_ai.models import infer_model
    from pydantic_ai.models.openai import OpenAIChatModel

    if settings.AGENTOPS_MODEL_BASE_URL:
        return OpenAIChatModel(name().removeprefix("openai:"), provider=_provider("openai"))
    return infer_model(settings.AGENTOPS_MODEL, provider_factory=_provider)


def _provider(provider: str) -> "Provider[Any]":
    """Its client says when it has a connection: the call counts from then on."""
    found = _without_retries(provider)
    if client := getattr(found.client, "_client", None):
        client.event_hooks["request"].append(_listen)
    return found


async def _listen(request: Any) -> None:
    async def trace(event: str, info: dict[str, Any]) -> None:
        if event.endswith(exchange.SENDING) and guard.is_calling():
            await asyncio.to_thread(guard.connected)

    request.extensions["trace"] = trace


def _without_retries(provider: str) -> "Provider[Any]":
    """A step's attempts are counted in one place."""
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
        self._kept: tuple[object, Any, float] | None = None  # what it was made for, the model, the time of an attempt

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
                before, self._kept = self._kept, (wanted, _model(), terms.attempt_timeout_seconds)
                if before and self._loop:
                    self._loop.call_soon_threadsafe(_close_later, before[1], max(before[2], terms.attempt_timeout_seconds))
            found: Model = self._kept[1]
            return found

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="model", daemon=True).start()
            return self._loop


def _close_later(model: Any, seconds: float) -> None:
    """In the loop: once the calls under way by its client are over."""
    loop, close = asyncio.get_running_loop(), getattr(getattr(model, "client", None), "close", None)
    if close:
        loop.call_later(seconds, lambda: _closing.add(loop.create_task(close())))


_closing: set[asyncio.Task[None]] = set()  # a loop alone does not keep its tasks
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
