"""What is said of a review, and of a decision, in a file."""

from operator import attrgetter

from runs.views.files import Columns

OF_REVIEW: Columns = {
    "review": attrgetter("pk"),
    "run": attrgetter("run_id"),
    "agent": attrgetter("agent"),
    "step": attrgetter("title"),
    "cause": attrgetter("cause"),
    "state": attrgetter("state"),
    "ending": attrgetter("ending"),
    "risk": lambda review: review.get_risk_display(),
    "why": attrgetter("why"),
    "rule": attrgetter("rule"),
    "confidence": attrgetter("confidence"),
    "threshold": attrgetter("threshold"),
    "opened_at": attrgetter("opened_at"),
    "due_at": attrgetter("due_at"),
    "closed_at": attrgetter("closed_at"),
    "group": lambda review: str(review.group or ""),
    "assignee": lambda review: str(review.assignee or ""),
    "input": attrgetter("run.input_text"),
    "proposal": attrgetter("proposal"),
}
OF_DECISION: Columns = {
    "decided_at": attrgetter("decided_at"),
    "decided_by": attrgetter("actor.username"),
    "decision": attrgetter("kind"),
    "reason": attrgetter("reason"),
    "tag": attrgetter("tag"),
    "final": attrgetter("final"),
    "taken_back_at": attrgetter("revoked_at"),
    "channel": attrgetter("channel"),
    "seconds_open": lambda decision: round((decision.decided_at - decision.review.opened_at).total_seconds(), 3),
    "review": attrgetter("review_id"),
    "run": attrgetter("review.run_id"),
    "agent": attrgetter("review.agent"),
    "step": attrgetter("review.title"),
    "cause": attrgetter("review.cause"),
    "confidence": attrgetter("review.confidence"),
    "threshold": attrgetter("review.threshold"),
    "input": attrgetter("review.run.input_text"),
    "proposal": attrgetter("review.proposal"),
    "value": attrgetter("value"),
}
