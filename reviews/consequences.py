"""Says what follows from a decision, before it is taken."""

from reviews.models import Cause, Decision, Review
from runs import describe, sdk
from runs.engine.budget import DAY

Kind = Decision.Kind
SAID = {
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
}
OTHERS = " Other runs of this agent that need more wait until midnight UTC, and nobody is asked about them again today."


def of(review: Review, kind: str) -> str:
    """One or two sentences, or "" where the button says it all."""
    said = SAID.get((Cause(review.cause), Kind(kind)), "")
    said = said.replace("{others}", OTHERS if _is_of_a_day(review) else "")
    return said.format(title=review.title, position=review.position, prefix=_prefix(review.position), version=_version(review))


def _is_of_a_day(review: Review) -> bool:
    asked = review.proposal if review.cause == Cause.BUDGET else None
    return isinstance(asked, dict) and str(asked["scope"]).startswith(DAY)


def _prefix(position: int) -> str:
    return f"takes over {describe.first_steps(position - 1)} as recorded, and " if position > 1 else ""


def _version(review: Review) -> str:
    agent = sdk.AGENTS.get(review.run.agent)
    return f" (version {agent.version})" if agent else ""
