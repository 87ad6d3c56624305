"""Whether a step needs a person, and why; code and configuration decide, never the content of a step."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from . import condition
from .canonical import clean
from .condition import Unclear


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


class When(StrEnum):
    """When a policy sends a step to a person, beside what its code gates and what fails."""

    THRESHOLD = "threshold"
    CONDITION = "condition"
    ALWAYS = "always"
    NEVER = "never"


class Default(StrEnum):
    """What happens when nobody has decided in time."""

    EXPIRE = "expire"
    SKIP = "skip"
    APPROVE = "approve"


RISKS = ("low", "normal", "high")
EFFECTS = ("none", "idempotent", "once")  # the worst last
RULE_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is the sentence that the reviewer reads."""

    needs_person: bool
    why: str = ""
    cause: Cause = Cause.LOW_CONFIDENCE
    is_unclear: bool = False  # nobody could evaluate it
    rule: str = ""  # of the policy that says it


PASSES = Verdict(False)


@dataclass(frozen=True, slots=True)
class Policy:
    """As a run keeps it. Of a `worker`, or where that is "" of every worker of the agent that has none of its own."""

    id: int = 0
    version: int = 0
    worker: str = ""
    when: str = When.THRESHOLD
    threshold: float | None = None  # else the agent's
    subject: str = Subject.OUTPUT
    path: str = ""
    operator: str = ""
    value: Any = None
    sample_share: float = 0.0
    risk: str = ""  # "": by what the step does
    approvals: int = 1
    within_seconds: float | None = None
    default: str = Default.EXPIRE
    changed_by: str = ""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        return cls(**{one.name: said[one.name] for one in fields(cls) if one.name in said})

    @property
    def rule(self) -> str:
        """ "Policy 12, version 3: amount_cents > 100"; "" where there is none."""
        if not self.id:
            return ""
        return clean(f"{self.name}: {self.words}", RULE_LETTERS)

    @property
    def name(self) -> str:
        return f"Policy {self.id}, version {self.version}" if self.id else "This policy"

    @property
    def words(self) -> str:
        """When it sends a step to a person."""
        match self.when:
            case When.CONDITION:
                wanted = "" if self.operator == "is empty" else f" {condition.shown(self.value)}"
                return f"{self.path or WHOLE.get(self.subject, self.subject)} {self.operator}{wanted}"
            case When.THRESHOLD if self.threshold is not None:
                return f"confidence under {self.threshold:g}"
            case When.THRESHOLD:
                return "confidence under the agent's threshold"
        return str(self.when)


NONE = Policy()
WHENS, SUBJECTS = frozenset(When), frozenset(Subject)
WHOLE: dict[str, str] = {Subject.INPUT: "the input", Subject.OUTPUT: "the result"}


def policy_of(config: Mapping[str, Any], worker: str) -> Policy:
    """The one that counts for a worker, of those that the run started with: its own before that of the whole agent."""
    found = {one["worker"]: one for one in config.get("policies", ())}
    said = found.get(worker) or found.get("")
    return Policy.read(said) if said else NONE


def before(policy: Policy, given: Any) -> Verdict:
    """Whether a person must approve the input before the worker is called."""
    return _applied(policy, given, Subject.INPUT)


def after(policy: Policy, result: Any, *, judged: bool, confidence: float | None, threshold: float) -> Verdict:
    """Whether a person must see the result; `judged` where the worker estimates, `threshold` is the agent's.

    A worker that has a threshold of its own and gives no confidence is under it.
    """
    verdict = _applied(policy, result, Subject.OUTPUT)
    if verdict.needs_person or policy.when == When.NEVER:
        return verdict
    if judged or (policy.when == When.THRESHOLD and policy.worker):
        return replace(judge(confidence, threshold_of(policy, threshold)), rule=policy.rule)
    return verdict


def after_remark(policy: Policy, verdict: Verdict, effect: str, *, declared: str = "normal") -> Verdict:
    """Of a result whose worker was given a person's remark: where one is not enough, no confidence takes their place."""
    is_high = risk_of(policy, verdict.cause, effect, declared=declared) == "high"
    if verdict.needs_person or not (policy.approvals > 1 or is_high):
        return verdict
    why = "It was sent back for changes, so a person decides about it again, however sure its worker is."
    return Verdict(True, why, Cause.GATED, rule=policy.rule)


def threshold_of(policy: Policy, threshold: float) -> float:
    """The policy's own, else the agent's."""
    return threshold if policy.threshold is None else policy.threshold


def _applied(policy: Policy, value: Any, subject: Subject) -> Verdict:
    """What "always" and the condition say of the value. What nobody can evaluate goes to a person."""
    known = policy.when in WHENS and policy.subject in SUBJECTS
    if known and (policy.subject != subject or policy.when in (When.THRESHOLD, When.NEVER)):
        return PASSES
    if policy.when == When.ALWAYS:
        return Verdict(True, f"{policy.name}: always.", Cause.GATED, rule=policy.rule)
    try:
        if not known:
            raise Unclear("it is of a newer version of agentops")
        if not condition.holds(value, policy.path, policy.operator, policy.value):
            return PASSES
    except Unclear as unclear:
        why = f"{policy.name} could not be evaluated: {unclear}. What cannot be evaluated goes to a person."
        return Verdict(True, why, Cause.GATED, is_unclear=True, rule=policy.rule)
    why = f"{policy.name}: {policy.words}. It is {condition.shown(condition.at(value, policy.path))}."
    return Verdict(True, why, Cause.GATED, rule=policy.rule)


def worst(effects: Collection[str]) -> str:
    """The one by which a question is judged: what has no name is taken for the worst."""
    return max(effects, key=lambda effect: EFFECTS.index(effect) if effect in EFFECTS else len(EFFECTS))


def risk_of(policy: Policy, cause: str, effect: str, *, declared: str = "normal") -> str:
    """Of a question: what may be done twice, and what the code declares so, is always risky; else the policy says it, else
    what the step does."""
    if cause == Cause.OUTCOME_UNKNOWN or declared == "high":
        return "high"
    return policy.risk if policy.risk in RISKS else "high" if effect == "once" else "normal"


def default_of(policy: Policy, cause: str, effect: str, *, can_skip: bool, declared: str = "normal") -> Default:
    """What happens at the deadline: nothing irreversible or risky is ever approved by the clock."""
    match policy.default:
        case Default.APPROVE if may_approve(cause, effect, risk_of(policy, cause, effect, declared=declared)):
            return Default.APPROVE
        case Default.SKIP if can_skip and cause in MAY_BE_SKIPPED:
            return Default.SKIP
    return Default.EXPIRE


def may_approve(cause: str, effect: str, risk: str) -> bool:
    """Whether the clock may approve it: there is something to approve, and it can do no harm."""
    return cause in (Cause.GATED, Cause.LOW_CONFIDENCE) and effect == "none" and risk != "high"


def is_drawn(share: float, run_id: int, step: str) -> bool:
    """Whether a step that nobody looked at is drawn for a person: at random, and the same whoever draws."""
    drawn = hashlib.sha256(f"{run_id}:{step}".encode()).digest()[:8]
    return int.from_bytes(drawn) / 2**64 < share


def judge(confidence: float | None, threshold: float) -> Verdict:
    """Compare a confidence with the threshold, both in [0, 1]; no confidence is under every threshold."""
    if confidence is None:
        return Verdict(True, "The worker gave no confidence, which counts as under every threshold.")
    if not 0 <= confidence <= 1:
        return Verdict(True, f"The worker gave the confidence {confidence}, which is not between 0 and 1.")
    if confidence < threshold:
        places = next((some for some in range(2, 6) if f"{confidence:.{some}f}" != f"{threshold:.{some}f}"), 6)
        return Verdict(True, f"Confidence {confidence:.{places}f} is under the threshold of {threshold:.{places}f}.")
    return Verdict(False, f"Confidence {confidence:.2f} reaches the threshold of {threshold:.2f}.")


# What a reviewer may do, by cause: the page shows these, the server refuses the others.
ALLOWED: dict[Cause, tuple[str, ...]] = {
    Cause.GATED: ("approve", "edit", "reject", "take_over"),
    Cause.LOW_CONFIDENCE: ("approve", "edit", "reject", "send_back"),
    Cause.FAILED: ("retry", "take_over", "reject"),
    Cause.QUESTION: ("answer", "reject"),
    Cause.CODE_CHANGED: ("retry", "fork", "cancel"),
    Cause.OUTCOME_UNKNOWN: ("happened", "not_happened", "retry"),
    Cause.BUDGET: ("raise", "finish", "cancel"),
}
OF_A_SAMPLE = ("approve", "edit", "reject")  # it was right, what would have been right, it was wrong
OF_A_RESULT = ALLOWED[Cause.LOW_CONFIDENCE]  # also where a policy sent the result here
MAY_BE_SKIPPED = (Cause.GATED, Cause.LOW_CONFIDENCE, Cause.FAILED)  # where the worker's fallback is skip(...)
MOST_SENT_BACK = 5  # times that a result is sent back for changes; then a person takes it, corrects it or rejects it


def allowed(
    cause: Cause, subject: str, *, effects: Collection[str] = (), sent_back: int = 0, may_skip: bool = False
) -> list[str]:
    """The decisions about a step that waits for this cause and was sent back so often.

    `effects` are those of its worker as recorded and as the code is now: what may happen once is not sent back to be done again.
    """
    of_its_result = cause == Cause.GATED and subject == Subject.OUTPUT
    kinds = list(OF_A_RESULT if of_its_result else ALLOWED[cause])
    if "send_back" in kinds and (sent_back >= MOST_SENT_BACK or "once" in effects):
        kinds.remove("send_back")
    return [*kinds, "skip"] if may_skip and cause in MAY_BE_SKIPPED else kinds
