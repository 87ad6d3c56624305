"""The real client of a model against a provider that fails on demand; and what is wrong with how it is configured."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from pydantic import BaseModel, Field
from pytest_django import Settings

from agentops.outside import Outside
from runs.engine.errors import GiveUp, TryLater
from runs.integrations import card_processor, llm
from runs.models import Dependency
from runs.reliability import guard, terms
from tests.actors import at_once
from tests.world import Reply, known_dependencies, plan

__all__ = ["known_dependencies"]


@pytest.mark.parametrize("own_server", [True, False], ids=["native output", "tool output"])
def test_a_model_answers_in_the_shape_asked_for(
    model: Outside, settings: Settings, own_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own_server:  # the real provider's client, sent to the fake by its own environment variable
        monkeypatch.setenv("OPENAI_BASE_URL", f"{model.url}/v1")
        settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL = "openai-chat:gpt-of-tests", ""
        settings.AGENTOPS_MODEL_API_KEY = "sk-of-tests"
    written = llm.write(Reply, instructions="Be kind.", prompt="The customer wrote: hello")
    assert written.reply.startswith("Thank you for writing")
    (request,) = model.seen
    assert ("tools" in request["body"]) is not own_server
    assert "The customer wrote: hello" in str(request["body"]["messages"])


def freeze() -> None:
    card_processor.freeze_card("K-10011", key="1:freeze_card")


def write() -> None:
    llm.write(Reply, instructions="Be kind.", prompt="hello")


CLIENTS = {"card-processor": freeze, "model": write}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("429", TryLater),
        ("500", TryLater),
        ("503", TryLater),
        ("408", TryLater),
        ("reset", TryLater),
        ("malformed", TryLater),
        ("html", TryLater),
        ("hang", TryLater),
        ("slow", TryLater),
        ("rejected_key", GiveUp),
        ("context_too_long", GiveUp),
        ("400", GiveUp),
        ("404", GiveUp),
    ],
)
def test_a_fault_has_a_kind_and_is_one_request_since_no_client_retries_by_itself(
    model: Outside, client: str, kind: str, expected: type[Exception]
) -> None:
    Dependency.objects.update(read_timeout_seconds=0.3, attempt_timeout_seconds=8 if kind != "slow" else 0.5)
    terms.forget()
    plan(model, kind, path="/v1/", count=9, seconds=0.2 if kind == "slow" else 0)
    with pytest.raises(expected, match=f"^{client}"):
        CLIENTS[client]()
    assert len(model.visits.told(path="/v1/", window=60)["visits"]) == 1


@pytest.mark.parametrize("own_server", [True, False], ids=["native output", "tool output"])
def test_an_answer_that_does_not_fit_is_not_asked_for_again(
    model: Outside, settings: Settings, own_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own_server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{model.url}/v1")
        settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL = "openai-chat:gpt-of-tests", ""
        settings.AGENTOPS_MODEL_API_KEY = "sk-of-tests"
    with pytest.raises(GiveUp):
        llm.write(Numbered, instructions="Be kind.", prompt="hello")
    assert len(model.seen) == 1


class Numbered(BaseModel):
    number: str = Field(pattern="^[0-9]+$")


PROVIDERS = {
    "deepseek": {"DEEPSEEK_API_KEY": "k"}, "openrouter": {"OPENROUTER_API_KEY": "k"}, "together": {"TOGETHER_API_KEY": "k"},
    "ollama": {"OLLAMA_BASE_URL": "http://127.0.0.1:1/v1"}, "fireworks": {"FIREWORKS_API_KEY": "k"},
    "azure": {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://a.example", "OPENAI_API_VERSION": "2024-06-01"},
    "moonshotai": {"MOONSHOTAI_API_KEY": "k"}, "cerebras": {"CEREBRAS_API_KEY": "k"}, "anthropic": {"ANTHROPIC_API_KEY": "k"},
    "openai": {"OPENAI_API_KEY": "k"},
}  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_provider_s_client_retries_and_each_has_our_timeouts(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in PROVIDERS[provider].items():
        monkeypatch.setenv(variable, value)
    client = guard.call("model", lambda: llm._provider(provider).client)
    wanted = terms.of("model")
    assert client.max_retries == 0
    assert (client.timeout.read, client.timeout.connect) == (wanted.read_timeout_seconds, wanted.connect_timeout_seconds)


def test_a_provider_whose_client_cannot_be_told_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        client = object()

    monkeypatch.setattr("pydantic_ai.providers.infer_provider", lambda _: Own())
    settings.AGENTOPS_MODEL = "deepseek:chat"
    assert "cannot be used as it is configured: the client of deepseek tries again by itself" in llm.complaint()


def test_a_rejected_key_and_a_context_that_is_too_long_are_said_in_the_provider_s_words(model: Outside) -> None:
    for kind, words in {"rejected_key": "Incorrect API key", "context_too_long": "maximum context"}.items():
        plan(model, kind, path="/v1/chat")
        with pytest.raises(GiveUp, match=words):
            write()


def test_a_process_keeps_its_connection_to_the_model_until_a_timeout_is_changed(model: Outside) -> None:
    def ports() -> list[int]:
        return [visit["port"] for visit in model.visits.told(path="/v1/", window=60)["visits"]]

    for _ in range(3):
        write()
    assert len(set(ports())) == 1
    Dependency.objects.filter(name="model").update(read_timeout_seconds=30)
    terms.forget()
    write()
    assert len(set(ports())) == 2


@pytest.mark.django_db(transaction=True)
def test_threads_and_processes_that_were_forked_write_at_the_same_time(model: Outside) -> None:
    write()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_and_leave(), range(8)))
    connection.close()  # each of the processes has its own
    assert at_once(lambda _: write_and_leave(), processes=3) == ["done"] * 3
    write()


def write_and_leave() -> str:
    try:
        write()
    finally:
        connection.close()
    return "done"


def test_a_rate_limited_model_says_how_long(model: Outside) -> None:
    plan(model, "429", path="/v1/chat", retry_after="9")
    with pytest.raises(TryLater) as raised:
        llm.write(Reply, instructions="Be kind.", prompt="hello")
    assert raised.value.retry_after == 9


@pytest.mark.parametrize(
    ("name", "base_url", "key", "words"),
    [
        ("", "", "", None), ("openai:gpt-5", "", "sk-1", None), ("anthropic:claude-sonnet-4-5", "", "sk-1", None),
        ("any-name", "http://127.0.0.1:1/v1", "", None), ("", "https://models.example/v1", "", None),
        ("some-model", "", "", "Unknown model: some-model; use provider:name such as openai:gpt-5, or set AGENTOPS_"),
        ("nobody:some-model", "", "sk-1", "Unknown model: nobody:some-model;"),
        ("openai:", "", "sk-1", "Unknown model: openai:;"),
        ("openai:gpt-5", "", "", "The model openai:gpt-5 cannot be used as it is configured: .*OPENAI_API_KEY"),
        ("mistral:large", "", "sk-1", "The model mistral:large cannot be used as it is configured: Please install"),
        ("any-name", "127.0.0.1:1/v1", "", "must begin with http:// or https://, and mostly ends in /v1"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model_is_known_without_a_network(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, base_url: str, key: str, words: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL, settings.AGENTOPS_MODEL_API_KEY = name, base_url, key
    with monkeypatch.context() as offline:
        offline.setattr(socket.socket, "connect", lambda *_: pytest.fail("it used the network"))
        complaint = llm.complaint()
    assert complaint == "" if words is None else re.match(f".*{words}", complaint)


def test_which_model_is_used_is_said(settings: Settings) -> None:
    assert llm.described() == ""
    settings.AGENTOPS_MODEL = "openai:gpt-5"
    assert llm.described() == "Replies are drafted by the model openai:gpt-5."
    settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_BASE_URL = "qwen", "http://127.0.0.1:1/v1"
    assert llm.described() == "Replies are drafted by the model qwen at http://127.0.0.1:1/v1."


def test_a_job_process_logs_at_its_start_which_model_it_uses(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    llm.load()
    assert "model_loaded" not in caplog.text
    settings.AGENTOPS_MODEL, settings.AGENTOPS_MODEL_API_KEY = "openai:gpt-5", "sk-1"
    llm.load()
    assert "'model': 'openai:gpt-5'" in caplog.text
    assert "sk-1" not in caplog.text
