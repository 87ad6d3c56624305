"""What was decided: the filters of the history, and its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from django.db.models import QuerySet
from django.http import QueryDict

from reviews.filters import containing
from reviews.models import Cause, Decision
from runs.filters import AddressFilters, day, day_after, is_day
from runs.models.content import are_hidden, titles_with


@dataclass(frozen=True, slots=True)
class Past(AddressFilters):
    """Each empty where it does not matter; days are of UTC, and the last one is meant too."""

    by: str = ""
    kind: str = ""
    cause: str = ""
    agent: str = ""
    step: str = ""
    since: str = ""
    until: str = ""
    text: str = ""
    decision: str = ""  # this one alone, with what it changed

    FITS: ClassVar[dict[str, Callable[[str], bool]]] = {
        "kind": Decision.Kind.values.__contains__,
        "cause": Cause.values.__contains__,
        "since": is_day,
        "until": is_day,
        "decision": lambda number: number.isdecimal() and len(number) < 19,
    }

    @classmethod
    def read(cls, query: QueryDict) -> "Past":
        """As AddressFilters.read_from says."""
        return cls(**cls.read_from(query))

    def decisions(self) -> QuerySet[Decision]:
        """Newest first by the page that shows them; with those that were taken back."""
        looks = {
            "actor__username": self.by,
            "kind": self.kind,
            "review__cause": self.cause,
            "review__agent": self.agent,
            "review__title__icontains": self.step,
            "decided_at__gte": day(self.since),
            "decided_at__lt": day_after(self.until),
            "pk": self.decision,
        }
        found = Decision.objects.filter(**{lookup: value for lookup, value in looks.items() if value})
        if self.step and are_hidden():
            found = found.filter(review__title__in=titles_with(self.step))
        elif self.step:
            found = found.filter(review__in=containing(self.step))  # it has an index, the title has none
        found = found.filter(review__in=containing(self.text)) if self.text else found
        return found.select_related("actor", "review__run")
