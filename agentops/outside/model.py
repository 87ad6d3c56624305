"""A model provider in the OpenAI dialect: it answers every prompt with a value that fits the schema asked for."""

import json
import time
from typing import Any

from agentops.outside.answer import Answer, refused

TEXT = (
    "Thank you for writing to us. I have looked into this for you, and what was done is set out in this message. "
    "Please write again if anything is unclear. Kind regards, the card desk"
)


def complete(body: dict[str, Any]) -> Answer:
    """POST /v1/chat/completions."""
    if not body.get("messages"):
        return refused(400, "Send at least one message.")
    tools = body.get("tools") or []
    if tools:
        return _answer(body, _tool_call(tools[-1]["function"]), finish_reason="tool_calls")
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    content = TEXT if schema is None else json.dumps(value_for(schema, schema.get("$defs", {})))
    return _answer(body, {"role": "assistant", "content": content}, finish_reason="stop")


def value_for(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """The plainest value that fits a JSON schema of objects, lists, choices, text and numbers."""
    if "$ref" in schema:
        return value_for(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return value_for(schema["anyOf"][0], definitions)
    if schema.get("type") == "object":
        return {name: value_for(part, definitions) for name, part in schema.get("properties", {}).items()}
    plain = {"string": TEXT, "array": [], "integer": 0, "number": 0, "boolean": False}
    return plain.get(schema.get("type", ""))


def _tool_call(function: dict[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters", {})
    arguments = json.dumps(value_for(parameters, parameters.get("$defs", {})))
    call = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _answer(body: dict[str, Any], message: dict[str, Any], *, finish_reason: str) -> Answer:
    tokens_in = sum(len(str(part.get("content", ""))) for part in body["messages"]) // 4
    tokens_out = len(json.dumps(message)) // 4
    return Answer(
        200,
        {
            "id": "chatcmpl-outside",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "outside"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            },
        },
    )
