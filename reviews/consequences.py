"""Says what follows from a decision, before it is taken: in one sentence, and by the name of the act."""

from functools import lru_cache
from itertools import islice
from typing import Any

from reviews.models import Cause, Decision, Review
from runs import describe, sdk
from runs.engine.act import Part, plain, said, short
from runs.engine.budget import DAY
from runs.engine.policy import MOST_SENT_BACK, Subject
from runs.templatetags.content import Reader

Kind = Decision.Kind
NEVER_UNDONE = (Cause.BUDGET, Cause.CODE_CHANGED)  # runs go on from it at once (runs.commands says the same)
MOST_FIELDS = 3  # of a value, where no template names what is done
ELSE_FAILS = "The supervisor hears your reason and may go another way; else the run fails."
LEFT_OUT = "“{title}” is left out: {note} The run goes on without it, and ends as completed partially."
OF_A_RESULT = {
    Kind.EDIT: "The run goes on with your correction in the place of the result.",
    Kind.REJECT: "The result is thrown away. " + ELSE_FAILS,
    Kind.SEND_BACK: "The worker begins anew{remark}. It was sent back {sent_back} of {most} times that it may be.",
    Kind.SKIP: LEFT_OUT,
}
SAID: dict[tuple[str, str], str] = {
    (Cause.GATED, Kind.EDIT): "“{title}” is carried out with the input as you leave it here.",
    (Cause.GATED, Kind.REJECT): "“{title}” is not carried out. " + ELSE_FAILS,
    (Cause.GATED, Kind.TAKE_OVER): "“{title}” is not carried out: you did it yourself. The run goes on with what you enter.",
    (Cause.GATED, Kind.SKIP): LEFT_OUT,
    (Cause.FAILED, Kind.RETRY): "“{title}” is tried again{remark}.",
    (Cause.FAILED, Kind.TAKE_OVER): "“{title}” is not tried again. The run goes on with the result that you give here.",
    (Cause.FAILED, Kind.REJECT): "“{title}” is given up. " + ELSE_FAILS,
    (Cause.FAILED, Kind.SKIP): LEFT_OUT,
    (Cause.QUESTION, Kind.ANSWER): "The agent's suggestion is above, for what it is worth. What you send here is the answer.",
    (Cause.QUESTION, Kind.REJECT): "The question stays without an answer. " + ELSE_FAILS,
    (Cause.CODE_CHANGED, Kind.RETRY): (
        "The code is compared with this step once more. Choose it when the code is again as it was; else it stops here again."
    ),
    (Cause.CODE_CHANGED, Kind.FORK): (
        "A new run {prefix}executes step {position} and all after it with the code as it is now{version}. This run is cancelled."
    ),
    (Cause.CODE_CHANGED, Kind.CANCEL): "The run ends here. What its steps did stays done.",
    (Cause.OUTCOME_UNKNOWN, Kind.HAPPENED): (
        "“{title}” is not carried out again. The run goes on with the result that you give here."
    ),
    (Cause.OUTCOME_UNKNOWN, Kind.NOT_HAPPENED): (
        "“{title}” is not carried out. The supervisor is told that it did not happen and may go another way; else the run fails."
    ),
    (Cause.OUTCOME_UNKNOWN, Kind.RETRY): "“{title}” is carried out once more. If it did happen, it will have happened twice.",
    (Cause.BUDGET, Kind.RAISE): "“{title}” is carried out, and all that waits for the same limit goes on as far as it fits.",
    (Cause.BUDGET, Kind.FINISH): (
        "“{title}” is left out. The supervisor is told so and may finish with what there is, completed partially; else the run "
        "fails.{others}"
    ),
    (Cause.BUDGET, Kind.CANCEL): "The run ends here. What its steps did stays done.{others}",
    (Cause.SAMPLE, Kind.EDIT): "You record what would have been right. The run went on with the result as it was.",
    (Cause.SAMPLE, Kind.REJECT): "You record that the result was wrong. The run went on with it.",
}
WITH_REMARK = (", and its worker gets your remark", " with your remark")
WITHOUT_REMARK = ", as before: it takes no remarks, so what you write is for the history alone, and it may well come to the same"
OF_THE_FIRST: dict[str | tuple[str, str], str] = {  # of two approvals: what the second lets happen
    (Kind.EDIT, Subject.INPUT): "“{title}” is carried out with the input below, as {who} edited it. Nothing has been done yet.",
    (Kind.EDIT, Subject.OUTPUT): "the run goes on with the result below, as {who} corrected it.",
    Kind.TAKE_OVER: "the run goes on with the result that {who} gave. “{title}” itself is not carried out.",
    Kind.ANSWER: "the run goes on with the answer that {who} gave.",
    Kind.HAPPENED: "the run goes on with the result that {who} gave. “{title}” is not carried out again.",
    Kind.NOT_HAPPENED: "the supervisor is told that “{title}” did not happen, as {who} says.",
    Kind.RETRY: "“{title}” is carried out once more, as {who} wants it. If it did happen, it will have happened twice.",
    Kind.SKIP: "“{title}” is left out, as {who} wants it, and the run goes on without it.",
    Kind.RAISE: "the limit is raised as {who} wants it, and the run goes on.",
}
OTHERS = " Other runs of this agent that need more wait until midnight UTC, and nobody is asked about them again today."


def of(review: Review, kind: str) -> str:
    """One or two sentences, or "" where the button says it all."""
    if kind == Kind.ANSWER and review.proposal is None:
        return ""
    of_a_result = review.cause in (Cause.GATED, Cause.LOW_CONFIDENCE) and review.subject == Subject.OUTPUT
    sentence = OF_A_RESULT.get(Kind(kind), "") if of_a_result else SAID.get((review.cause, kind), "")
    sentence = sentence.replace("{others}", OTHERS if _is_of_a_day(review) else "")
    about = {"title": review.title, "position": review.position, "prefix": _prefix(review.position), "version": _version(review)}
    about["remark"] = WITH_REMARK[kind == Kind.SEND_BACK] if reads_remark(review) else WITHOUT_REMARK
    if kind == Kind.SEND_BACK:
        about |= {"sent_back": _sent_back(review), "most": MOST_SENT_BACK}
    if kind == Kind.SKIP:
        about |= {"note": _note(review)}
    lasting = " This cannot be taken back." if review.cause in NEVER_UNDONE else ""
    return (sentence.format(**about) + lasting).strip()


def reads_remark(review: Review) -> bool:
    """Whether what is written beside "send back" or "try again" reaches the code of its worker."""
    worker = sdk.find_worker(review.worker)
    return worker is not None and worker.remarks


def of_second(review: Review, first: Decision) -> str:
    """What an approval after this first one lets happen; "" where that approved what was proposed."""
    said = OF_THE_FIRST.get((first.kind, review.subject)) or OF_THE_FIRST.get(first.kind)
    return "Approve, and " + said.format(title=review.title, who=first.actor) if said else ""


def brief(review: Review, value: Any = None) -> str:
    """What is asked, beside the title: "Refund 42.00 EUR to C-1004", "Queue: card problem", or why. Others wrote parts of it."""
    if review.cause == Cause.QUESTION:
        return str(review.why)
    proposal = review.proposal if value is None else value
    if sentence := _sentence(review, proposal):
        return plain(sentence)
    if _is_title_alone(review, proposal):
        return " ".join(describe.said(review.why).split())
    return plain(_main_fields(proposal, _schema(review), in_sentence=False))


def parts(review: Review, value: Any = None) -> list[Part]:
    """What is carried out, what was written by others apart from our words; with another value (an edited one) in place of
    the proposal."""
    proposal = review.proposal if value is None else value
    if sentence := _sentence(review, proposal):
        return sentence
    if _is_title_alone(review, proposal):
        return [Part(review.title)]
    return [Part(f"{review.title}, "), *_main_fields(proposal, _schema(review), in_sentence=True)]


def _sentence(review: Review, proposal: Any) -> list[Part]:
    """Where its worker says what is carried out."""
    worker = sdk.find_worker(review.worker)
    is_named = worker and worker.says and review.subject == Subject.INPUT and isinstance(proposal, dict)
    return said(worker.says, proposal) if worker and is_named else []


def _is_title_alone(review: Review, proposal: Any) -> bool:
    return proposal is None or review.cause == Cause.BUDGET


def _main_fields(value: Any, schema: dict[str, Any], *, in_sentence: bool) -> list[Part]:
    """By the names that their schema gives them, as are values that are names of code; any other name is what others wrote."""
    reader = Reader(schema)
    if not isinstance(value, dict):
        return [_given(reader, value, reader.resolved(schema))]
    value = value if in_sentence else {name: inner for name, inner in value.items() if inner not in (None, "")}
    shown: list[Part] = []
    for name, inner, known in islice(reader.fields(value, reader.resolved(schema)), MOST_FIELDS):
        label = f"{_within_a_sentence(name)} " if in_sentence else f"{name}: "
        shown += [Part(", ")] if shown else []
        shown += [Part(label, given=bool(schema) and not known), _given(reader, inner, known)]
    if (more := len(value) - MOST_FIELDS) > 0:
        shown.append(Part(f", and {more} more field{'s' if more > 1 else ''}"))
    return shown


def _given(reader: Reader, value: Any, known: dict[str, Any]) -> Part:
    return Part(short(reader.text(value, known) if isinstance(value, str) else value), given=True)


def _within_a_sentence(label: str) -> str:
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def _schema(review: Review) -> dict[str, Any]:
    """Of the proposal; of what is no longer in the code nothing is known."""
    worker = sdk.find_worker(review.worker)
    return schema_of(worker, review.subject) if worker and review.cause != Cause.CODE_CHANGED else {}


@lru_cache
def schema_of(worker: sdk.Worker[..., Any], subject: str) -> dict[str, Any]:
    """With the fields in their order, which what PostgreSQL keeps has lost."""
    return worker.input_model.model_json_schema() if subject == Subject.INPUT else worker.output.json_schema()


def _sent_back(review: Review) -> int:
    about = {"review__run": review.run_id, "review__position": review.position}
    return Decision.objects.filter(kind=Kind.SEND_BACK, final=True, revoked_at=None, **about).count()


def _note(review: Review) -> str:
    worker = sdk.find_worker(review.worker)
    skip = sdk.skip_of(worker) if worker else None
    return skip.note if skip else ""


def _is_of_a_day(review: Review) -> bool:
    asked = review.proposal if review.cause == Cause.BUDGET else None
    return isinstance(asked, dict) and str(asked["scope"]).startswith(DAY)


def _prefix(position: int) -> str:
    return f"takes over {describe.first_steps(position - 1)} as recorded, and " if position > 1 else ""


def _version(review: Review) -> str:
    agent = sdk.AGENTS.get(review.run.agent)
    return f" (version {agent.version})" if agent else ""
