"""A review's history as its page tells it: its opening, what people did with it, and its decisions, each from its own row."""

from dataclasses import dataclass
from datetime import datetime

from reviews.models import Decision, Review, ReviewEvent

Kind = ReviewEvent.Kind
SAID = {
    Kind.CLAIMED: "claimed it",
    Kind.RELEASED: "gave it back",
    Kind.TAKEN_OVER: "took it over from {about}",
    Kind.REASSIGNED: "gave it to {about}",
    Kind.SNOOZED: "snoozed it {about}",
    Kind.WOKEN: "ended the snooze",
}
OF_THE_SYSTEM = {
    Kind.RELEASED: "The claim of {about} was taken back",
    Kind.REASSIGNED: "It is no longer assigned to {about}",
    Kind.ESCALATED: "Half of its time had passed, so the group {about} is asked too",
    Kind.REMINDED: "People were reminded: {about}",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence: who (nobody: the system), what, and the note that came with it."""

    at: datetime
    who: str
    did: str
    note: str = ""


def lines(review: Review) -> list[Line]:
    """The oldest first, in two questions."""
    found = [Line(review.opened_at, "", "It was opened")]
    found += [_of_event(one) for one in review.events.select_related("actor").order_by("pk")]
    for decision in review.decisions.select_related("actor", "revoked_by").order_by("pk"):
        found += _of_decision(decision)
    if (said := review.why_closed) and review.closed_at:
        found.append(Line(review.closed_at, "", said))
    return sorted(found, key=lambda line: line.at)


def _of_event(event: ReviewEvent) -> Line:
    words = SAID if event.actor else OF_THE_SYSTEM
    return Line(event.at, str(event.actor or ""), words[Kind(event.kind)].format(about=event.about), event.note)


def _of_decision(decision: Decision) -> list[Line]:
    who, kind = str(decision.actor), decision.get_kind_display()
    awaits = "" if decision.final else "; another person must approve it too"
    said = [Line(decision.decided_at, who, f"decided “{kind}”{awaits}", decision.reason)]
    if decision.revoked_at is None:
        return said
    if decision.revoked_by is None:
        return [*said, Line(decision.revoked_at, "", f"“{kind}” by {who} no longer counts")]
    return [*said, Line(decision.revoked_at, str(decision.revoked_by), f"took “{kind}” by {who} back")]
