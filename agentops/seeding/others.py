"""The past of agents that are not installed here any more: lists, charts and filters meet more than one agent and version."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentops.seeding.story import Story
from runs.engine.events import Kind

CONFIG = {"version": 1, "threshold": 0.8, "attempts": 3, "values": {}, "policies": [], "budget": {}}
FAULTS = (
    {"kind": "Timeout", "message": "The model gave no answer within 60 s.", "trace": ""},
    {"kind": "Overloaded", "message": "The model answered 529 Overloaded.", "trace": ""},
    {"kind": "ValueError", "message": "The invoice names no date that could be read.", "trace": ""},
)
OF_MODELS_CENTS = 0.0009  # what a token costs


@dataclass(frozen=True, slots=True)
class Agent:
    """`subject` is its input, `{}` a number of it; a worker that uses the model spends so many tokens."""

    slug: str
    subject: str
    steps: tuple[tuple[str, str, int], ...]
    seconds: float


AGENTS = (
    Agent("invoice-check", "Check invoice {} of the supplier", (
        ("read", "Read the invoice", 2_400), ("match", "Match it with the order", 0), ("book", "Book the amount", 0),
    ), 2.0),
    Agent("letter-writer", "Answer letter {} about a loan", (
        ("outline", "Outline the answer", 900), ("write", "Write the letter", 3_800), ("check", "Check it", 1_600),
        ("file", "File the letter", 0),
    ), 9.0),
    Agent("night-report", "Report of branch {}", (("collect", "Collect the figures", 0), ("sum_up", "Sum them up", 6_000)), 30.0),
)  # fmt: skip


def tell(agent: Agent, story: Story, *, trouble: float, newest_since: datetime) -> None:
    """One run; a new version of each agent came at that moment."""
    version = "2" if story.at >= newest_since else "1"
    number, by = story.random.randint(1000, 99_999), story.random.choice(("operator", "operator", "admin", "api"))
    subject = agent.subject.format(number)
    said: dict[str, Any] = {"agent": agent.slug, "agent_version": version, "input": {"number": number}, "summary": subject}
    story.requested(said | {"config": CONFIG}, by=by)
    for name, title, tokens in agent.steps:
        story.begins(name, f"{agent.slug}.{name}", title, {"number": number})
        if tokens:
            _spent(story, tokens)
        if story.random.random() < trouble:
            story.waits(story.random.expovariate(1 / agent.seconds))
            fault = story.random.choice(FAULTS)
            story.fails(fault, attempt=1, wait_seconds=4.0)
            if story.random.random() < 0.5:
                story.fails(fault, attempt=2, wait_seconds=None)
                story.ends(Kind.RUN_FAILED, {"error": fault})
                return
        story.gives({"number": number, "is_right": True}, seconds=story.random.lognormvariate(0, 0.8) * agent.seconds)
    story.ends(Kind.RUN_SUCCEEDED, {"output": {"subject": subject, "is_right": True}})


def _spent(story: Story, tokens: int) -> None:
    used = round(tokens * story.random.uniform(0.5, 1.6))
    more = {"calls": 1.0, "tokens": float(used), "money": used * OF_MODELS_CENTS / 100}
    story.spent = {unit: story.spent.get(unit, 0.0) + amount for unit, amount in more.items()}
