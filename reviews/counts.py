"""How many reviews each tab of the inbox holds: counted once for all who ask at the same moment, whoever they are."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from django.contrib.auth.models import User
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, Case, Count, ExpressionWrapper, F, Max, Q, When
from django.db.models.functions import Now

from reviews.filters import Filters, Tab
from reviews.shared import Shared
from runs import limited
from runs.models.content import are_hidden

OF_ANYBODY = (Tab.ALL, Tab.UNASSIGNED, Tab.OVERDUE, Tab.SNOOZED)
Row = dict[str, Any]
_asked = Shared[Sequence[Row] | None]()


def of_tabs(filters: Filters) -> dict[Tab, int]:
    """By the other filters, for who looks (Filters.within says what is in each)."""
    return of_many([filters])[0]


def of_many(many: Collection[Filters], *, most_ms: int = 0) -> list[dict[Tab, int]]:
    """The same for many at once; nothing of those that take longer than `most_ms`."""
    found: dict[Filters, Sequence[Row] | None] = {}
    for filters in many:
        for_all = _of_anybody(filters)
        if for_all not in found:
            key = (for_all, are_hidden(), most_ms)
            found[for_all] = _asked.get(key, lambda for_all=for_all: _counted(for_all, most_ms))  # type: ignore[misc]
    answers = [(filters, found[_of_anybody(filters)]) for filters in many]
    return [{} if rows is None else _of_viewer(filters, rows) for filters, rows in answers]


def _of_anybody(filters: Filters) -> Filters:
    return replace(filters, viewer=None, tab="")


def _of_viewer(filters: Filters, rows: Sequence[Row]) -> dict[Tab, int]:
    me = filters.viewer.pk if filters.viewer else None
    found = {tab: sum(row[tab] for row in rows) for tab in OF_ANYBODY}
    found[Tab.MINE] = sum(row[Tab.ALL] for row in rows if me and me in (row["assignee"], row["claimer"]))
    found[Tab.GROUPS] = sum(row[Tab.ALL] for row in rows if _asked_of(row) & _groups_of(me, row))
    return {tab: found[tab] for tab in Tab}


def _asked_of(row: Row) -> set[int]:
    return {row["group"], row["second_group"] if row["escalated"] else None} - {None}


def _groups_of(person: int | None, row: Row) -> set[int]:
    return {group for group, member in zip(row["groups"], row["members"], strict=True) if member == person}


def _counted(filters: Filters, most_ms: int) -> Sequence[Row] | None:
    """For each assignee, claim, and group: who looks finds in these what is theirs. None where it takes too long."""
    claimer = Case(When(claim__until__gt=Now(), then=F("claim__reviewer")))
    escalated = ExpressionWrapper(Q(escalated_at__isnull=False), BooleanField())
    tabs = {tab: Count("pk", filter=filters.within(tab)) for tab in OF_ANYBODY}
    belongs = User.groups.through.objects.order_by("pk")
    # of what is the same for each row any is the greatest: so it is read once, and not for each review
    same = {"groups": Max(ArraySubquery(belongs.values("group"))), "members": Max(ArraySubquery(belongs.values("user")))}
    alike = filters.but_the_tab().order_by().values("assignee", "group", "second_group", claimer=claimer, escalated=escalated)
    rows: Any = alike.annotate(**tabs, **same)
    if not most_ms:
        return list(rows)
    try:
        with limited.at_most(most_ms):
            return list(rows)
    except limited.TookTooLong:
        return None
