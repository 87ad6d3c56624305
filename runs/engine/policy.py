"""Whether a step needs a person, and why; code and configuration decide, never the content of a step."""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a review was opened."""

    GATED = "gated"
    LOW_CONFIDENCE = "low_confidence"
    FAILED = "failed"
    QUESTION = "question"
    CODE_CHANGED = "code_changed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    BUDGET = "budget"


class Subject(StrEnum):
    """What the reviewer decides about: the step's input (before it is executed) or its output (after)."""

    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is the sentence that the reviewer reads."""

    needs_person: bool
    why: str


def judge(confidence: float | None, threshold: float) -> Verdict:
    """Compare a confidence with the threshold, both in [0, 1]; no confidence is under every threshold."""
    if confidence is None:
        return Verdict(True, "The worker gave no confidence, which counts as under every threshold.")
    if not 0 <= confidence <= 1:
        return Verdict(True, f"The worker gave the confidence {confidence}, which is not between 0 and 1.")
    if confidence < threshold:
        return Verdict(True, f"Confidence {confidence:.2f} is under the threshold of {threshold:.2f}.")
    return Verdict(False, f"Confidence {confidence:.2f} reaches the threshold of {threshold:.2f}.")


# What a reviewer may do, by cause: the page shows these, the server refuses the others.
ALLOWED: dict[Cause, tuple[str, ...]] = {
    Cause.GATED: ("approve", "edit", "reject"),
    Cause.LOW_CONFIDENCE: ("approve", "edit", "reject", "retry"),
    Cause.FAILED: ("retry", "edit", "reject"),
    Cause.QUESTION: ("answer", "reject"),
    Cause.CODE_CHANGED: ("retry", "fork", "cancel"),
    Cause.OUTCOME_UNKNOWN: ("happened", "not_happened", "retry"),
    Cause.BUDGET: ("raise", "finish", "cancel"),
}
