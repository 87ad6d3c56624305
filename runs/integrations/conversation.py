"""The messages of pydantic-ai to a model and from it, as they are recorded with the attempt: plain values, bounded."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

from django.conf import settings

from runs import values
from runs.engine.canonical import Unstorable, clean, dumps, normalise

LETTERS = 8_000  # of one message
MESSAGES, CALLS = 40, 5  # the last messages of one call, and the first calls of one attempt
Said = dict[str, Any]


def record(model: str, messages: Iterable[Any], *, tokens: tuple[int, int], cost: Decimal | None) -> None:
    """Keep it for the attempt that is under way, if there is one; `tokens` in and out are 0 where the model did not say."""
    said = [*_said(messages)]
    with suppress(LookupError):
        calls = values.current_step().model_calls
        if said and len(calls) < CALLS:
            told = {"model": clean(model, 200), "tokens_in": tokens[0], "tokens_out": tokens[1], "messages": said[-MESSAGES:]}
            calls.append(told | ({"cost": str(cost), "currency": settings.CURRENCY} if cost is not None else {}))


def _said(messages: Iterable[Any]) -> Iterator[Said]:
    """Each part as one message with its role: system, user, assistant or tool."""
    instructions = ""
    for message in messages:
        if message.kind == "request" and message.instructions and message.instructions != instructions:
            instructions = message.instructions
            yield {"role": "system", "text": clean(instructions, LETTERS)}
        for part in message.parts:
            yield from _part(part)


def _part(part: Any) -> Iterator[Said]:
    match part.part_kind:
        case "system-prompt":
            yield {"role": "system", "text": clean(part.content, LETTERS)}
        case "user-prompt":
            yield {"role": "user", "text": _text(part.content)}
        case "text":
            yield {"role": "assistant", "text": clean(part.content, LETTERS)}
        case "tool-call" | "builtin-tool-call":
            yield {"role": "assistant", "tool": clean(part.tool_name, 200), "arguments": _arguments(part)}
        case "tool-return" | "builtin-tool-return":
            yield {"role": "tool", "tool": clean(part.tool_name, 200), "text": _text(part.model_response_str())}
        case "retry-prompt" | "retry-feedback":
            yield {"role": "user", "text": clean(part.model_response(), LETTERS)}


def _text(content: Any) -> str:
    """Of a prompt that has other things than text in it, what each of them is."""
    if isinstance(content, str):
        return clean(content, LETTERS)
    return clean("\n".join(one if isinstance(one, str) else f"({type(one).__name__})" for one in content), LETTERS)


def _arguments(part: Any) -> Any:
    """As JSON where it is some, and not too long."""
    try:
        given = normalise(part.args_as_dict(raise_if_invalid=True))
    except (Unstorable, ValueError, AssertionError):
        return clean(str(part.args), LETTERS)
    return given if len(text := dumps(given)) <= LETTERS else clean(text, LETTERS)
