"""Which reviews may be decided together, and what differs between them."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.functional import cached_property

from reviews.eligibility import HIDDEN_FROM_YOU, Eligibility
from reviews.models import Cause, Decision, Review
from runs import access, sealed

MOST = 1_000  # at once
SALT = "reviews.bulk"
Kind = Decision.Kind
NEVER = (Cause.OUTCOME_UNKNOWN, Cause.BUDGET)  # each is looked up, or calculated, by itself
CELL_LETTERS = 160
MOST_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """A button; `says` is what follows for each of them."""

    kind: str
    word: str
    tone: str
    says: str = ""


CHOICES = (
    Choice(Kind.APPROVE, "Approve them", "success"),
    Choice(Kind.REJECT, "Reject them", "danger", "Each supervisor is told and may go another way; else its run fails."),
    Choice(Kind.RETRY, "Try them again", "primary", "Each is carried out once more."),
    Choice(Kind.SKIP, "Skip them", "primary", "Each run goes on without this step."),
)
KINDS = tuple(choice.kind for choice in CHOICES)  # each means the same for every review
APPROVED = {
    Cause.GATED: "Each is carried out with the input that is shown. Nothing has been done yet.",
    Cause.LOW_CONFIDENCE: "Each run goes on with the result that is shown, as if it were certain.",
}
OF_SAMPLES = (
    Choice(Kind.APPROVE, "They were right", "success", "Each result is noted as right. The runs were not held up."),
    Choice(Kind.REJECT, "They were wrong", "danger", "Each result is noted as wrong. The runs went on with them."),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a proposal, as far as it is shown, and its field; `more` is how many letters are not."""

    name: str
    text: str
    more: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One review that would be decided, with what tells it from the others."""

    review: Review
    cells: list[Cell]


@dataclass
class Preview:
    """What would be decided, and what would not. `beyond` is how many were not even looked at."""

    actor: User
    rows: list[Review]
    excluded: dict[str, list[Review]]
    beyond: int = 0

    @property
    def first(self) -> Review:
        return self.rows[0]

    @cached_property
    def choices(self) -> list[Choice]:
        """The decisions that each of them allows."""
        if not self.rows:
            return []
        offered = OF_SAMPLES if self.first.cause == Cause.SAMPLE else CHOICES
        allowed = [choice for choice in offered if all(choice.kind in review.allowed for review in self.rows)]
        said = APPROVED.get(Cause(self.first.cause))
        return [replace(choice, says=said) if said and choice.kind == Kind.APPROVE else choice for choice in allowed]

    @cached_property
    def alike(self) -> dict[str, Cell]:
        """What every proposal says in the same words."""
        said = _fields(self.first) if self.first.proposal is not None else {}
        return {name: _cell(name, value) for name, value in said.items() if name not in self.differing}

    @cached_property
    def differing(self) -> list[str]:
        """The names of the fields that are not the same in all, in their order."""
        names = dict.fromkeys(name for review in self.rows for name in _fields(review))
        return [name for name in names if any(_fields(one).get(name) != _fields(self.first).get(name) for one in self.rows)]

    @property
    def is_identical(self) -> bool:
        """They ask exactly the same; where there is no proposal, what they are about may differ all the same."""
        return bool(self.first.same) and len({review.same for review in self.rows}) == 1

    @property
    def columns(self) -> list[str]:
        return self.differing[:MOST_COLUMNS]

    @property
    def hidden(self) -> list[str]:
        """Fields that differ and have no column."""
        return self.differing[MOST_COLUMNS:]

    @property
    def lines(self) -> list[Line]:
        return [Line(review, [_cell(name, _fields(review).get(name)) for name in self.columns]) for review in self.rows]

    @property
    def without(self) -> int:
        return sum(map(len, self.excluded.values()))

    @property
    def chosen(self) -> int:
        """How many were looked at."""
        return len(self.rows) + self.without

    def sealed(self) -> str:
        """Which reviews were shown, each with its fingerprint."""
        return sealed.seal([[review.pk, review.fingerprint] for review in self.rows], by=self.actor.pk, salt=SALT)


def preview(reviews: Iterable[Review], actor: User) -> Preview:
    """Of these, in their order, those that may be decided together, and why the others may not."""
    given, fit = list(reviews), list[Review]()
    excluded: dict[str, list[Review]] = {}
    foreign = _foreign(actor)
    for review in given[:MOST]:
        if why := why_not(review, actor) or foreign(review):
            excluded.setdefault(why, []).append(review)
        else:
            fit.append(review)
    commonest = Counter(map(_sort, fit)).most_common(1)
    rows = [review for review in fit if _sort(review) == commonest[0][0]]
    if others := [review for review in fit if _sort(review) != commonest[0][0]]:
        excluded[f"Another agent, step or cause than “{rows[0].title}”: decide these by themselves."] = others
    return Preview(actor, rows, excluded, len(given[MOST:]))


def why_not(review: Review, actor: User) -> str:
    """Why the review (read with_people) cannot be decided together with others, or "". Its group is not asked about here."""
    claim = review.held()
    if not review.is_open:
        return "Closed meanwhile."
    if why := why_alone(review):
        return why
    if claim and claim.reviewer_id != actor.pk:
        return f"{claim.reviewer} is at these now."
    if review.snoozed_until and review.snoozed_until > timezone.now():
        return "Snoozed: these come back by themselves."
    return ""


def why_alone(review: Review) -> str:
    """Why it can never be decided together with others, or ""."""
    if review.is_high_risk:
        return "High risk: each of these is looked at by itself."
    if review.approvals > 1:
        return "Four eyes: each of these needs two people who look at it."
    if review.cause in NEVER or not any(kind in review.allowed for kind in KINDS):
        return "Each of these needs an answer of its own."
    return ""


def identical(review: Review) -> list[Review]:
    """The open reviews that ask exactly the same, this one among them."""
    return list(Review.objects.open().filter(same=review.same).in_turn().with_people()[: MOST + 1]) if review.same else [review]


def opened(text: str, actor: User) -> sealed.Seen:
    """Raises sealed.OutOfDate."""
    return sealed.opened(text, by=actor.pk, salt=SALT)


# --- what differs -------------------------------------------------------------------------------------------------


def _sort(review: Review) -> tuple[str, str, str]:
    return review.agent, review.worker, review.cause


def _foreign(actor: User) -> Callable[[Review], str]:
    """Why a review is not this person's to decide; asked once for all whom the same groups are asked about."""
    known: dict[tuple[object, ...], str] = {}
    sees = access.may_see_payloads(actor)  # what is revealed is looked at by itself

    def why(review: Review) -> str:
        asked = (review.group_id, review.escalated_at and review.second_group_id, review.assignee_id == actor.pk)
        if not sees:
            return HIDDEN_FROM_YOU
        if asked not in known:
            known[asked] = Eligibility(review, actor).why_not()
        return known[asked]

    return why


def _fields(review: Review) -> dict[str, Any]:
    """Of what is proposed; a value without fields has one, without a name."""
    return review.proposal if isinstance(review.proposal, dict) else {"": review.proposal}


def _cell(name: str, value: Any) -> Cell:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return Cell(name, text[:CELL_LETTERS], max(0, len(text) - CELL_LETTERS))
