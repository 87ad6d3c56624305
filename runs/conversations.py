"""What an attempt and a model said to one another, as a page shows it: each message under a label of ours, its content apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runs import event_log
from runs.engine.canonical import Large
from runs.engine.events import Fact
from runs.models.content import Hidden

LABELS = {"system": "System prompt", "user": "Prompt", "assistant": "The model answers", "tool": "What the tool gave back"}
CALLS_TOOL = "The model calls a tool"
FIRST_SHOWN, LAST_SHOWN = 2, 8  # of the messages of one call, where nobody looks for all


@dataclass(frozen=True, slots=True)
class Message:
    """`value` is untrusted."""

    number: int
    label: str
    value: Any
    is_folded: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model; `large` stands for all calls of an attempt, where they are kept beside the log (and may be hidden).

    Of a long one the messages in its middle are `left_out`, unless it is wanted `whole`.
    """

    number: int
    attempt: int
    said: dict[str, Any]
    large: Large | Hidden | None = None
    whole: bool = False

    @property
    def model(self) -> str:
        return str(self.said.get("model", ""))

    @property
    def count(self) -> int:
        return len(self.said.get("messages", ()))

    @property
    def left_out(self) -> int:
        more = self.count - FIRST_SHOWN - LAST_SHOWN
        return 0 if self.whole or more <= 1 else more

    @property
    def first(self) -> list[Message]:
        return self._messages(0, FIRST_SHOWN if self.left_out else self.count)

    @property
    def last(self) -> list[Message]:
        return self._messages(FIRST_SHOWN + self.left_out, self.count) if self.left_out else []

    def _messages(self, begin: int, end: int) -> list[Message]:
        return [_message(number, one) for number, one in enumerate(self.said.get("messages", ())[begin:end], begin + 1)]

    @property
    def spent(self) -> str:
        return told([self])


def is_kept(run_id: int, position: int) -> bool:
    """Whether something was said to a model in this step."""
    return event_log.rows(run_id).filter(step=position, data__has_key="model_calls").exists()


def of_step(run_id: int, position: int) -> list[Call]:
    """Every call of this step, with all its messages."""
    rows = event_log.rows(run_id).filter(step=position)
    return calls(event_log.outlined(run_id, map(event_log.as_fact, rows)), whole=True)


def calls(facts: Iterable[Fact], *, whole: bool = False) -> list[Call]:
    """Of the events of one step, in order."""
    found, attempt = list[Call](), 0
    for fact in facts:
        attempt = fact.data.get("attempt", attempt)
        said = fact.data.get("model_calls") or ()
        made: list[tuple[dict[str, Any], Large | Hidden | None]]
        made = [({}, said)] if isinstance(said, Large | Hidden) else [(one, None) for one in said]
        found += [Call(number, attempt, one, large, whole) for number, (one, large) in enumerate(made, len(found) + 1)]
    return found


def told(found: Iterable[Call]) -> str:
    """What they took of the model, in words; "" where nothing is known."""
    said = [one.said for one in found]
    tokens = [sum(one.get(name) or 0 for one in said) for name in ("tokens_in", "tokens_out")]
    parts = [f"{number:,} tokens {word}" for number, word in zip(tokens, ("in", "out"), strict=True) if any(tokens)]
    for currency in sorted({one["currency"] for one in said if "cost" in one}):
        cost = sum((Decimal(one["cost"]) for one in said if one.get("currency") == currency), Decimal(0))
        parts.append(f"{cost.normalize():f} {currency}")
    return ", ".join(parts)


def _message(number: int, one: dict[str, Any]) -> Message:
    label, is_system = LABELS.get(one["role"], "Message"), one["role"] == "system"
    if "arguments" in one:
        return Message(number, CALLS_TOOL, {"tool": one.get("tool"), "arguments": one["arguments"]}, is_system)
    value = {"tool": one["tool"], "result": one.get("text")} if "tool" in one else one.get("text")
    return Message(number, label, value, is_system)
