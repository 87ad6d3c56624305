"""Tells an open inbox what changed in its list, as whoever looks at it may see it now."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import structlog
from django.db import Error as DatabaseError
from django.http import QueryDict

from reviews import frames
from reviews.models import Review
from runs import access, live
from runs.consumers import FALLBACK_SECONDS, Watcher

logger = structlog.get_logger()
COUNTED_SOONEST_SECONDS, COUNTED_SECONDS = 0.5, 4.0  # the tabs are counted over every review: seldom
ENDED = frozenset(Review.State.values) - {Review.State.OPEN}


class InboxConsumer(Watcher):
    """One open inbox. A burst of changes becomes one message: what is said of each review, and the rows that are not gone.

    How a review ended is said at once: the page has a mark for that. Of many the page is told the numbers, and asks.
    The tabs are counted beside that: nothing waits for them.
    """

    question = staticmethod(access.may_review)
    counting: asyncio.Task[None] | None = None
    is_count_due = False
    counted_at = float("-inf")

    async def ready(self) -> bool:
        self.query = QueryDict(self.scope["query_string"])
        return True

    def group(self) -> str:
        self.reviews: dict[str, str] = {}
        return live.INBOX

    def changed(self, message: dict[str, Any]) -> None:
        self.reviews = live.joined(self.reviews, message["reviews"])
        super().changed(message)

    async def accept(self, *args: Any, **kwargs: Any) -> None:
        await super().accept(*args, **kwargs)
        self._count_soon()

    async def close(self, *args: Any, **kwargs: Any) -> None:
        self._count_no_more()
        await super().close(*args, **kwargs)

    async def hang_up(self) -> None:
        self._count_no_more()
        await super().hang_up()
        self._count_no_more()  # the reader may have been about to

    async def read(self, rung: bool) -> bool:
        if self.reviews:
            named, self.reviews = self.reviews, {}
            self._count_soon()
            await self._tell(frames.Page.read(self.query, self.viewer), named)
        return bool(self.reviews)

    async def _tell(self, page: frames.Page, named: dict[str, str]) -> None:
        at_once = {review: what for review, what in named.items() if what in ENDED and page.filters.is_open}
        others = {review: what for review, what in named.items() if review not in at_once}
        if at_once:
            await self.send(text_data=json.dumps({"changed": at_once}))
        if others:
            await self.send(text_data=json.dumps({"changed": others} | await self._rows(page, others)))

    async def _rows(self, page: frames.Page, named: dict[str, str]) -> dict[str, str]:
        """Nothing where they are too many, or too large, for a message, or so late that whoever looks may see them no more."""
        if len(named) > frames.MOST_ROWS:
            return {}
        asked_at = time.monotonic()
        rows = await frames.rows.get((page, tuple(sorted(map(int, named)))))
        if time.monotonic() - asked_at > FALLBACK_SECONDS and not await self._sees_still(page):
            return {}
        return {} if rows is None or len(json.dumps(rows)) > frames.MOST_BYTES else {"rows": rows}

    async def _sees_still(self, page: frames.Page) -> bool:
        return await self.allowed() and frames.Page.read(self.query, self.viewer).hides == page.hides

    def _count_soon(self) -> None:
        self.is_count_due = True
        if self.counting is None:
            self.counting = asyncio.create_task(self._count())

    def _count_no_more(self) -> None:
        if self.counting:
            self.counting.cancel()

    async def _count(self) -> None:
        """As long as something changes."""
        try:
            while self.is_count_due:
                await asyncio.sleep(max(COUNTED_SOONEST_SECONDS, self.counted_at + COUNTED_SECONDS - time.monotonic()))
                self.is_count_due, self.counted_at = False, time.monotonic()
                counts = await frames.counted(frames.Page.read(self.query, self.viewer))
                with suppress(OSError):  # its page has gone
                    await self.send(text_data=json.dumps({"changed": {}} | counts))
        except (DatabaseError, OSError) as error:
            logger.warning("not_counted", error=str(error) or repr(error))
        except Exception:  # whatever it is, the next change is counted anew
            logger.exception("not_counted")
        finally:
            self.counting = None
