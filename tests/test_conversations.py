"""What is said to a model and what it says: recorded with the attempt, whole or bounded, and shown as a conversation."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.test import Client
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)  # fmt: skip

from agentops.outside import Outside
from runs import commands, conversations, event_log
from runs.answers import said_to_models
from runs.engine.errors import TryLater
from runs.engine.events import Draft, Kind
from runs.engine.masking import MASK
from runs.integrations import conversation, llm
from runs.values import StepContext, executing
from tests import agents
from tests.world import Reply, known_dependencies, plan

__all__ = ["known_dependencies"]
MARKUP = "<script>alert(1)</script>"

ASKED: list[ModelMessage] = [
    ModelRequest([UserPromptPart("Where is order 4711?")], instructions="Be kind."),
    ModelResponse([TextPart("I look."), ToolCallPart("look_up", '{"order": 4711}', tool_call_id="a")]),
    ModelRequest([ToolReturnPart("look_up", {"place": "Bern"}, tool_call_id="a")], instructions="Be kind."),
    ModelResponse([ToolCallPart("look_up", "{not json", tool_call_id="b")]),
    ModelRequest([ToolReturnPart("look_up", "Write JSON.", tool_call_id="b", outcome="retried")], instructions="Be kind."),
    ModelResponse([TextPart("In Bern." + "!" * 9_000)]),
]


def test_a_conversation_is_recorded_message_by_message() -> None:
    context = StepContext("1:ask")
    with executing(context):
        for _ in range(conversation.CALLS + 1):
            conversation.record("openai:gpt", ASKED, tokens=(12, 3), cost=None)
    conversation.record("openai:gpt", ASKED, tokens=(12, 3), cost=None)  # outside of a step: nowhere to keep it
    assert len(context.model_calls) == conversation.CALLS
    said = context.model_calls[0]
    assert (said["model"], said["tokens_in"], said["tokens_out"], "cost" in said) == ("openai:gpt", 12, 3, False)
    *messages, last = said["messages"]
    assert messages[:5] == [
        {"role": "system", "text": "Be kind."},
        {"role": "user", "text": "Where is order 4711?"},
        {"role": "assistant", "text": "I look."},
        {"role": "assistant", "tool": "look_up", "arguments": {"order": 4711}},
        {"role": "tool", "tool": "look_up", "text": '{"place":"Bern"}'},
    ]
    assert messages[5] == {"role": "assistant", "tool": "look_up", "arguments": "{not json"}
    assert (messages[6]["role"], "Write JSON." in messages[6]["text"]) == ("tool", True)
    assert len(last["text"]) == conversation.LETTERS


def test_secrets_of_the_step_are_masked_in_it() -> None:
    calls = [
        {"messages": [{"role": "user", "text": "Use hunter22"}, {"role": "assistant", "tool": "t", "arguments": {"pin": "9"}}]}
    ]
    masked = said_to_models(replace(agents.pay, masked=("pin",)), calls, {"hunter22"})["model_calls"][0]["messages"]
    assert (masked[0]["text"], masked[1]["arguments"]) == (f"Use {MASK}", {"pin": MASK})
    assert said_to_models(agents.pay, [], set()) == {}


@pytest.mark.parametrize("fails", [False, True])
def test_the_client_of_a_model_tells_what_it_sent_also_where_it_failed(model: Outside, fails: bool) -> None:
    if fails:
        plan(model, "500", path="/v1/", count=9)
    context = StepContext("1:draft", uses=("model",))
    with executing(context):
        try:
            llm.write(Reply, instructions="Be kind.", prompt="The customer wrote: hello")
        except TryLater:
            assert fails
    (said,) = context.model_calls
    roles = ["system", "user"] + ["assistant"] * (not fails)
    assert [one["role"] for one in said["messages"]] == roles
    assert said["messages"][1]["text"] == "The customer wrote: hello"
    assert bool(said["tokens_in"] and said["tokens_out"]) is not fails


@pytest.mark.django_db
def test_a_page_shows_it_under_labels_of_ours_and_what_was_said_in_boxes(
    signed_in: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = f"{MARKUP} pay\u202eton"
    messages = [
        {"role": "system", "text": "Be kind."},
        {"role": "user", "text": hostile},
        {"role": "assistant", "tool": hostile, "arguments": {"order": hostile}},
        {"role": "tool", "tool": "look_up", "text": hostile},
        {"role": "assistant", "text": "It is in Bern."},
    ]
    call = {"model": hostile, "tokens_in": 1200, "tokens_out": 34, "cost": "0.00150", "currency": "USD", "messages": messages}
    run = commands.start("counting", {"text": "a"}, by="operator")
    taken = event_log.take(run.pk, owner="a process")
    assert taken
    log, opening = taken
    begun = {"name": "draft", "worker": "draft", "title": "Draft", "fingerprint": "", "input": {}, "effect": "none", "attempt": 1}
    failed = {
        "attempt": 1,
        "error": {"kind": "TryLater", "message": "No", "trace": ""},
        "wait_seconds": 0.0,
        "model_calls": [call],
    }
    log.append(opening, Draft(Kind.STEP_STARTED, begun, 1), Draft(Kind.ATTEMPT_FAILED, failed, 1))
    log.append(Draft(Kind.ATTEMPT_STARTED, {"attempt": 2, "remark": ""}, 1))
    log.append(Draft(Kind.STEP_SUCCEEDED, {"output": 1, "model_calls": [call], "confidence": 0.5, "source": "a guess"}, 1))
    page = signed_in().get(f"/runs/{run.pk}/?step=1").text
    assert page.count(": 5 messages, 1,200 tokens in, 34 tokens out, 0.0015 USD") == 2
    assert ", in attempt 2</summary>" in page
    assert "<dt>Model</dt><dd>2,400 tokens in, 68 tokens out, 0.003 USD</dd>" in page
    assert "<dt>Confidence</dt><dd>0.50; it comes from a guess</dd>" in page
    labels = ["Prompt", "The model calls a tool", "What the tool gave back", "The model answers"]
    assert [one for one in re.findall(r'<p class="label">([^<]+)</p>', page) if one in labels] == labels * 2
    assert "System prompt: 8 letters</summary>" in page
    assert MARKUP not in page
    assert "\u202e" not in page
    monkeypatch.setattr(conversations, "LAST_SHOWN", 1)
    brief = signed_in().get(f"/runs/{run.pk}/parts/step-1/").text
    assert brief.count('<a href="?step=1#step-1">Show the 2 messages between these</a>') == 2
    assert (brief.count("It is in Bern."), brief.count('<p class="label">What the tool gave back</p>')) == (2, 0), (
        "nor in its raw events"
    )
    assert signed_in().get(f"/runs/{run.pk}/?step=1").text.count('<p class="label">What the tool gave back</p>') == 2
