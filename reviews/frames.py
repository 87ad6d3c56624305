"""What the socket of an open inbox says: rows that changed, and counts; found once for all who ask at the same moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import Error as DatabaseError
from django.http import QueryDict
from django.template.loader import render_to_string

from reviews import counts, notices
from reviews.filters import Filters, Tab
from reviews.listing import Listing, Row, changed_rows
from reviews.models import Review
from reviews.shared import Together
from runs import access
from runs.models.content import hidden

logger = structlog.get_logger()
MOST_ROWS, MOST_BYTES = 40, 60_000  # of one message: of more the page is told the numbers, and asks
COUNT_MS = 2000  # for the tabs of one filter: no counts rather than late ones


@dataclass(frozen=True, slots=True)
class Page:
    """An open inbox: who looks, which filters are on, and which review is open beside the list."""

    viewer: User
    filters: Filters
    selected: str

    @classmethod
    def read(cls, query: QueryDict, viewer: User) -> "Page":
        return cls(viewer, Filters.read(query, viewer), query.get("selected", ""))

    @property
    def of_anybody(self) -> Filters:
        """The same for all, but where the tab is another for each."""
        return self.filters if self.filters.tab in (Tab.MINE, Tab.GROUPS) else replace(self.filters, viewer=None)

    @property
    def hides(self) -> bool:
        """Whether content is hidden from who looks."""
        return not access.may_see_payloads(self.viewer)


def _rows(asked: Sequence[tuple[Page, tuple[int, ...]]]) -> list[str | None]:
    """For each page as its viewer may see them; None where they cannot be written."""
    found: dict[tuple[Filters, tuple[int, ...], bool], list[Row] | None] = {}
    written: list[str | None] = []
    for page, ids in asked:
        key = (page.of_anybody, ids, page.hides)
        with hidden(page.hides):
            try:
                if key not in found:
                    found[key] = changed_rows(page.of_anybody, ids)
                rows = found[key]
                written.append(_html(page, rows) if rows is not None else None)
            except DatabaseError:
                raise
            except Exception:
                logger.exception("rows_not_written", reviews=ids)
                found[key] = None
                written.append(None)
    return written


def _html(page: Page, rows: Sequence[Row]) -> str:
    shown = {"listing": Listing(page.filters), "rows": [replace(row, among=page.filters) for row in rows]}
    return render_to_string(
        "reviews/_rows.html", shown | {"selected": page.selected, "may_decide": access.may_decide(page.viewer)}
    )


def _counts(asked: Sequence[Page]) -> list[dict[str, Any]]:
    """Of each tab; and what stands around every page: the number in the menu, and the bell."""
    open_count, unread = Review.objects.open().count(), notices.unread_of({page.viewer.pk for page in asked})
    tabs: dict[Page, dict[Tab, int]] = {}
    for hides in (False, True):
        wanted = [page for page in asked if page.filters.is_open and page.hides == hides]
        with hidden(hides):
            tabs |= zip(wanted, counts.of_many([page.filters for page in wanted], most_ms=COUNT_MS), strict=True)
    return [{"counts": tabs.get(page, {}), "around": _around(open_count, unread[page.viewer.pk])} for page in asked]


@lru_cache(maxsize=100)
def _around(open_count: int, unread: int) -> dict[str, str]:
    return {
        "nav-count": render_to_string("_nav_count.html", {"count": open_count}),
        "bell": render_to_string("notices/_bell.html", {"unread": unread}),
    }


async def counted(page: Page) -> dict[str, Any]:
    """The counts; those who search wait for each other, and nobody for them."""
    return await (_searched if page.filters.text or page.filters.step else _counted).get(page)


rows = Together(_rows)
_counted, _searched = Together(_counts), Together(_counts)
