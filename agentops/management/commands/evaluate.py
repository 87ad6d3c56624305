"""Measures an agent's first judgement on messages it has not seen."""

import json
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentops.arguments import whole_number
from agentops.intervals import wilson
from runs import commands
from runs.engine.errors import AskHuman
from runs.integrations import message_classifier
from runs.integrations import message_classifier_training as training


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, with the Wilson 95 % interval."""

    label: str
    hits: int
    of: int

    def as_dict(self) -> dict[str, Any]:
        low, high = wilson(self.hits, self.of)
        share = self.hits / self.of if self.of else None
        return {"hits": self.hits, "of": self.of, "share": share, "low": low, "high": high}

    def line(self) -> str:
        if not self.of:
            return f"{self.label:<44} none"
        low, high = wilson(self.hits, self.of)
        return f"{self.label:<44} {self.hits / self.of:>6.1%}   {low:.1%} to {high:.1%}   {self.hits} of {self.of}"


class Command(BaseCommand):
    help = "Classify held-out messages and say how often the agent is right, and how often it would ask a person."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("agent", choices=["card-desk"])
        parser.add_argument("--limit", type=whole_number(least=1), help="at most so many messages, drawn at random; default all")
        parser.add_argument("--seed", type=int, default=0, help="which messages --limit draws")
        parser.add_argument("--threshold", type=float, help="default: the threshold in the agent's configuration")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")

    def handle(self, *args: Any, **options: Any) -> None:
        limit, threshold = options["limit"], options["threshold"]
        if threshold is None:
            threshold = commands.configuration(options["agent"]).threshold
        if not 0 <= threshold <= 1:
            raise CommandError("--threshold must be between 0 and 1.")
        try:
            report = evaluate(float(threshold), limit=limit, seed=options["seed"])
        except AskHuman as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(report.as_dict()) if options["json"] else report.table())


@dataclass(frozen=True, slots=True)
class Report:
    """What `evaluate` found."""

    classifier: str
    threshold: float
    left_out: int
    shares: dict[str, Share]
    seconds_per_message: float

    def as_dict(self) -> dict[str, Any]:
        about = {"agent": "card-desk", "classifier": self.classifier, "threshold": self.threshold}
        about |= {"messages": self.shares["accuracy"].of, "left_out": self.left_out}
        measured = {name: share.as_dict() for name, share in self.shares.items()}
        return about | measured | {"seconds_per_message": self.seconds_per_message}

    def table(self) -> str:
        title = f"card-desk on {self.shares['accuracy'].of} held-out messages ({self.classifier}, threshold {self.threshold:g})"
        lines = [title, f"{'':<44} {'share':>6}   95 % interval", *(share.line() for share in self.shares.values())]
        lines.append(f"{'seconds per message':<44} {self.seconds_per_message:.4f}")
        lines.append(f"{self.left_out} test messages were left out: they occur in training.")
        return "\n".join(lines)


def evaluate(threshold: float, *, limit: int | None, seed: int) -> Report:
    """Classify held-out messages one at a time, as the agent does."""
    examples = training.held_out()
    left_out = len(training.messages("test")) - len(examples)
    chosen = training.drawn(examples, limit, seed=seed)
    classifier = message_classifier.load()
    started = time.perf_counter()
    found = [classifier.predict(example.text) for example in chosen]
    seconds = (time.perf_counter() - started) / len(chosen)
    right = [one.queue == example.queue for one, example in zip(found, chosen, strict=True)]
    passed = [is_right for is_right, one in zip(right, found, strict=True) if one.confidence >= threshold]
    shares = {
        "accuracy": Share("classified rightly", sum(right), len(chosen)),
        "needs_person": Share("needs a person", len(chosen) - len(passed), len(chosen)),
        "accuracy_without_person": Share("classified rightly, of what needs no person", sum(passed), len(passed)),
    }
    return Report(f"classifier {classifier.version}", threshold, left_out, shares, round(seconds, 5))
