"""The list of runs: what its address asks for, and how many runs fit."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import connection, models
from django.db.models import BigIntegerField, DurationField, Exists, ExpressionWrapper, F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce, Concat, Lower, Substr
from django.http import QueryDict
from django.utils.functional import cached_property

from runs import limited, sdk
from runs.engine.tags import typed
from runs.filters import AddressFilters, day, day_after, is_day, is_id
from runs.models import Budget, Run, RunStatus, SearchText
from runs.models.content import are_hidden
from runs.models.run import RunQuerySet

MOST_COUNTED = 10_000
COUNT_MS = 100  # how long a count may take: no index serves every two filters together
SHORT_TEXT, SHORT_REACH = 3, 20_000  # a text of fewer letters is in no index: so many runs are read for it
MOST_NAMED = 2_000  # runs by their cost
WAITS = {
    "person": "a person", "children": "other runs", "timer": "a time", "later": "its worker's time", "retry": "another attempt",
    "limit": "a limit", "slot": "a slot", "breaker": "a breaker", "switched_off": "a dependency that is switched off",
    "budget": "a budget", "reviews": "room among the open reviews", "undo": "a decision that can be taken back",
}  # fmt: skip
OF_A_RUN = "run:"  # how the scope of its budget begins
TOOK = ExpressionWrapper(F("finished_at") - F("created_at"), output_field=DurationField())


def is_amount(text: str) -> bool:
    """A number that is not negative, such as 90 or 0.05."""
    whole, _, part = text.partition(".")
    return len(text) < 13 and whole.isdecimal() and text.isascii() and (not part or part.isdecimal())


@dataclass(frozen=True, slots=True)
class RunFilters(AddressFilters):
    """Days are of UTC, and the last one is meant too; seconds and money are at least, or at most, so much;
    of the tags, with commas between, a run has each."""

    agent: str = ""
    version: str = ""
    status: str = ""
    waits: str = ""
    by: str = ""
    tag: str = ""
    since: str = ""
    until: str = ""
    longer: str = ""
    shorter: str = ""
    dearer: str = ""
    cheaper: str = ""
    text: str = ""
    original: str = ""
    parent: str = ""
    children: str = ""

    FITS: ClassVar[dict[str, Callable[[str], bool]]] = {
        **dict.fromkeys(("since", "until"), is_day),
        **dict.fromkeys(("longer", "shorter", "dearer", "cheaper"), is_amount),
        **dict.fromkeys(("original", "parent"), is_id),
        "waits": WAITS.__contains__,
        "tag": lambda text: bool(typed(text)),
        "children": "show".__eq__,
    }
    UNNAMED: ClassVar[tuple[str, ...]] = ("original", "parent", "children")
    SELDOM: ClassVar[tuple[str, ...]] = (
        "version", "waits", "by", "tag", "since", "until", "longer", "shorter", "dearer", "cheaper",
    )  # fmt: skip

    @classmethod
    def read(cls, query: QueryDict) -> "RunFilters":
        """As AddressFilters.read_from says."""
        return cls(**cls.read_from(query))

    @property
    def with_children(self) -> bool:
        """Runs that other runs started are hidden, unless they are asked for."""
        return bool(self.parent or self.children)

    @property
    def narrows(self) -> bool:
        return bool(self.given("children"))

    @property
    def seldom_chosen(self) -> int:
        """How many of the filters behind "More filters" are on."""
        return len(set(self.SELDOM) & set(self.given()))

    def runs(self) -> RunQuerySet:
        looks = {
            "agent": self.agent,
            "agent_version": self.version,
            "status": self.status,
            "waiting_cause": self.waits,
            "started_by": self.by,
            "created_at__gte": day(self.since),
            "created_at__lt": day_after(self.until),
            "forked_from": self.original,
            "parent": self.parent,
        }
        found = Run.objects.filter(**{lookup: value for lookup, value in looks.items() if value})
        found = found if self.with_children else found.top_level()
        found = found.tagged(typed(self.tag)) if self.tag else found
        found = found.filter(pk__in=containing(self.text)) if self.text else found
        return self._costing(self._lasting(found))

    def _lasting(self, runs: RunQuerySet) -> RunQuerySet:
        """Of what has ended."""
        looks = {"took__gte": self.longer, "took__lte": self.shorter}
        bounds = {lookup: timedelta(seconds=min(float(text), 1e10)) for lookup, text in looks.items() if text}
        return runs.filter(finished_at__isnull=False).alias(took=TOOK).filter(**bounds) if bounds else runs

    def _costing(self, runs: RunQuerySet) -> RunQuerySet:
        """A run that has spent nothing has no row that says so. Few are named; of many each run is asked about its own."""
        looks = {"used__gte": self.dearer, "used__lte": self.cheaper}
        bounds = {lookup: Decimal(text) for lookup, text in looks.items() if text}
        if not bounds:
            return runs
        spent = Budget.objects.filter(unit="money", scope__startswith=OF_A_RUN, **bounds)
        run_of = Cast(Substr("scope", len(OF_A_RUN) + 1), BigIntegerField())
        few = list(spent.values_list(run_of, flat=True)[: MOST_NAMED + 1])
        if len(few) <= MOST_NAMED:
            return runs.filter(pk__in=few)
        own = Concat(Value(OF_A_RUN), Cast(OuterRef("pk"), models.TextField()))
        return runs.filter(Exists(Budget.objects.filter(scope=own, unit="money", **bounds)))

    def word(self, name: str, value: str) -> str:
        words: dict[str, Callable[[], str]] = {
            "agent": lambda: agent_title(value),
            "version": lambda: f"Version {value}",
            "status": lambda: str(dict(RunStatus.choices).get(value, value)),
            "waits": lambda: f"Waits for {WAITS[value]}",
            "by": lambda: f"Started by {value}",
            "tag": lambda: f"Tagged {', '.join(typed(value))}",
            "since": lambda: f"From {value}",
            "until": lambda: f"Until {value}",
            "longer": lambda: f"Took at least {value} s",
            "shorter": lambda: f"Took at most {value} s",
            "dearer": lambda: f"Cost at least {value} {settings.CURRENCY}",
            "cheaper": lambda: f"Cost at most {value} {settings.CURRENCY}",
            "text": lambda: f"“{value}”" + (f" in the newest {SHORT_REACH:,}" if len(value) < SHORT_TEXT else ""),
        }
        return words[name]()


@dataclass(frozen=True)
class Count:
    """How many runs fit, as far as it is counted: that a list is long need not be known exactly.

    `least` is said where counting takes too long: so many are known to fit.
    """

    filters: RunFilters
    least: int = 0

    @cached_property
    def number(self) -> int | None:
        """None where counting took too long, which it does not where all fit."""
        fitting = self.filters.runs().order_by()[: MOST_COUNTED + 1]
        if not self.filters.narrows:
            return fitting.count()
        try:
            with limited.at_most(COUNT_MS):
                return fitting.count()
        except limited.TookTooLong:
            return None

    def __str__(self) -> str:
        if self.number is None:
            return f"{self.least:,}+"
        return f"{MOST_COUNTED:,}+" if self.number > MOST_COUNTED else f"{self.number:,}"


def containing(text: str) -> "QuerySet[SearchText, int]":
    """The runs in whose input or output the text stands, in large or small letters; a short one only among the newest."""
    if are_hidden():
        return SearchText.objects.none().values_list("pk", flat=True)
    found = SearchText.objects.filter(text__contains=Lower(Value(text)))
    if len(text) < SHORT_TEXT:
        found = found.filter(pk__gt=Coalesce(Subquery(SearchText.objects.order_by("-pk").values("pk")[:1]), 0) - SHORT_REACH)
    return found.values_list("pk", flat=True)


AGENTS = """
WITH RECURSIVE slugs AS (
  (SELECT agent FROM runs_run ORDER BY agent LIMIT 1)
  UNION ALL
  SELECT (SELECT agent FROM runs_run WHERE agent > slugs.agent ORDER BY agent LIMIT 1) FROM slugs WHERE agent IS NOT NULL
) SELECT agent FROM slugs WHERE agent IS NOT NULL"""


def agent_choices(chosen: str = "") -> list[tuple[str, str]]:
    """Slug and title of every agent that is installed or has runs: one look into the index for each."""
    with connection.cursor() as cursor:
        cursor.execute(AGENTS)
        slugs = {slug for (slug,) in cursor.fetchall()} | {agent.slug for agent in sdk.agents()} | ({chosen} - {""})
    return sorted(((slug, agent_title(slug)) for slug in slugs), key=lambda one: one[1].casefold())


def agent_title(slug: str) -> str:
    """The agent's title, or its slug when it is no longer installed."""
    return sdk.AGENTS[slug].title if slug in sdk.AGENTS else slug
