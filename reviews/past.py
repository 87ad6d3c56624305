"""What was decided: the filters of the history, and its rows."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, time, timedelta
from typing import ClassVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.dateparse import parse_date

from reviews.filters import LONGEST, containing
from reviews.models import Cause, Decision


@dataclass(frozen=True, slots=True)
class Past:
    """Each empty where it does not matter; days are of UTC, and the last one is meant too."""

    by: str = ""
    kind: str = ""
    cause: str = ""
    agent: str = ""
    step: str = ""
    since: str = ""
    until: str = ""
    text: str = ""

    CHOICES: ClassVar[dict[str, list[str]]] = {"kind": Decision.Kind.values, "cause": Cause.values}
    DAYS: ClassVar[tuple[str, ...]] = ("since", "until")

    @classmethod
    def read(cls, query: QueryDict) -> "Past":
        """What is unknown, no day, or holds characters that no row can hold is dropped."""
        given = {field.name: query.get(field.name, "").replace("\x00", "").strip()[:LONGEST] for field in fields(cls)}
        return cls(**{name: text for name, text in given.items() if cls.fits(name, text)})

    @classmethod
    def fits(cls, name: str, text: str) -> bool:
        if name in cls.DAYS:
            return day(text) is not None
        return text in cls.CHOICES.get(name, [text])

    @property
    def query(self) -> str:
        return urlencode({field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)})

    def decisions(self) -> QuerySet[Decision]:
        """Newest first by the page that shows them; with those that were taken back."""
        looks = {
            "actor__username": self.by,
            "kind": self.kind,
            "review__cause": self.cause,
            "review__agent": self.agent,
            "review__title__icontains": self.step,
            "decided_at__gte": day(self.since),
            "decided_at__lt": _next(day(self.until)),
        }
        found = Decision.objects.filter(**{lookup: value for lookup, value in looks.items() if value})
        found = found.filter(review__in=containing(self.step)) if self.step else found  # it has an index, the title has none
        found = found.filter(review__in=containing(self.text)) if self.text else found
        return found.select_related("actor", "review__run")


def day(text: str) -> datetime | None:
    """The beginning of a day such as 2026-11-23; None where it is none."""
    try:
        parsed = parse_date(text)
    except ValueError:
        return None
    return datetime.combine(parsed, time(), UTC) if parsed and parsed.year < 9999 else None


def _next(start: datetime | None) -> datetime | None:
    return start + timedelta(days=1) if start else None
