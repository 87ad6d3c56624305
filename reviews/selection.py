"""Which reviews may be decided together, and what differs between them."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.core import signing
from django.utils import timezone

from reviews.eligibility import Eligibility
from reviews.models import Cause, Decision, Review, Risk

MOST = 1_000  # at once
GOOD_FOR = timedelta(hours=1)  # a preview: what was seen longer ago is to be looked at again
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
    Cause.SAMPLE: "Each result is noted as right. The runs were not held up.",
}


class OutOfDate(Exception):
    """What was shown is too old, or was not shown to this person."""


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
        allowed = (
            [choice for choice in CHOICES if all(choice.kind in review.allowed for review in self.rows)] if self.rows else []
        )
        said = APPROVED.get(Cause(self.first.cause), "") if self.rows else ""
        return [replace(choice, says=said) if choice.kind == Kind.APPROVE else choice for choice in allowed]

    @cached_property
    def alike(self) -> dict[str, Cell]:
        """What every proposal says in the same words."""
        return {name: _cell(name, value) for name, value in _fields(self.first).items() if name not in self.differing}

    @cached_property
    def differing(self) -> list[str]:
        """The names of the fields that are not the same in all, in their order."""
        names = dict.fromkeys(name for review in self.rows for name in _fields(review))
        return [name for name in names if any(_fields(one).get(name) != _fields(self.first).get(name) for one in self.rows)]

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

    def sealed(self) -> str:
        """Which reviews were shown to whom and when, and what of them: nobody can put another in."""
        shown = [[review.pk, review.fingerprint] for review in self.rows]
        told = {"id": str(uuid.uuid4()), "by": self.actor.pk, "at": timezone.now().isoformat(), "shown": shown}
        return signing.dumps(told, salt=SALT, compress=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person had before them when they decided: ids of reviews, each with its fingerprint."""

    id: uuid.UUID
    at: datetime
    shown: list[tuple[int, str]]


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
    if review.risk == Risk.HIGH:
        return "High risk: each of these is looked at by itself."
    if review.approvals > 1:
        return "Four eyes: each of these needs two people who look at it."
    if review.cause in NEVER or not any(kind in review.allowed for kind in KINDS):
        return "Each of these needs an answer of its own."
    return ""


def identical(review: Review) -> list[Review]:
    """The open reviews that ask exactly the same, this one among them."""
    return list(Review.objects.open().filter(same=review.same).in_turn().with_people()[: MOST + 1]) if review.same else [review]


def opened(sealed: str, actor: User) -> Seen:
    """Raises OutOfDate."""
    try:
        told = signing.loads(sealed, salt=SALT, max_age=GOOD_FOR)
    except signing.BadSignature as error:
        raise OutOfDate from error
    if told["by"] != actor.pk:
        raise OutOfDate
    return Seen(uuid.UUID(told["id"]), datetime.fromisoformat(told["at"]), [(pk, seen) for pk, seen in told["shown"]])


# --- what differs -------------------------------------------------------------------------------------------------


def _sort(review: Review) -> tuple[str, str, str]:
    return review.agent, review.worker, review.cause


def _foreign(actor: User) -> Callable[[Review], str]:
    """Why a review is not this person's to decide; asked once for all whom the same groups are asked about."""
    known: dict[tuple[object, ...], str] = {}

    def why(review: Review) -> str:
        asked = (review.group_id, review.escalated_at and review.second_group_id, review.assignee_id == actor.pk)
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
