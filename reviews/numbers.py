"""How reviewers decide, in numbers: for themselves and for admins, so that nobody approves without looking."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

DAYS, LAST, QUICK_SECONDS = 7, 50, 3
LEAST = 20  # of the last decisions: fewer say nothing
QUICK_SHARE = 0.5  # of them, from which on it is worth a word

GENTLE = "You are the last to look before it happens: take the time that it needs."

# Seconds count from when the reviewer first had the review open; decisions without that, as in bulk, have none.
NUMBERS = """
    WITH recent AS (
        SELECT actor_id, kind, extract(epoch FROM decided_at - opened_at) AS seconds,
            row_number() OVER (PARTITION BY actor_id, opened_at IS NULL ORDER BY decided_at DESC, id DESC) AS nth
        FROM reviews_decision
        WHERE decided_at > now() - make_interval(days => %(days)s) AND revoked_at IS NULL
            AND (%(actor)s::bigint IS NULL OR actor_id = %(actor)s)
    )
    SELECT username, count(*), count(*) FILTER (WHERE kind = 'approve'), count(seconds),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), count(*) FILTER (WHERE seconds < %(quick)s),
        count(seconds) FILTER (WHERE nth <= %(last)s), count(*) FILTER (WHERE seconds < %(quick)s AND nth <= %(last)s)
    FROM recent JOIN auth_user ON auth_user.id = actor_id GROUP BY username ORDER BY username
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """One reviewer over the last seven days; `timed` are the decisions whose review they had open."""

    reviewer: str
    decided: int = 0
    approved: int = 0
    timed: int = 0
    median_seconds: float | None = None
    quick: int = 0
    last: int = 0
    last_quick: int = 0

    @property
    def approved_share(self) -> float | None:
        return self.approved / self.decided if self.decided else None

    @property
    def quick_share(self) -> float | None:
        return self.quick / self.timed if self.timed else None

    @property
    def warning(self) -> str:
        """A gentle word, or ""."""
        if self.last < LEAST or self.last_quick < self.last * QUICK_SHARE:
            return ""
        return f"Of the last {self.last} decisions {self.last_quick} took under {QUICK_SECONDS} s."


def of(reviewer_id: int | None = None) -> Iterable[Numbers]:
    """Of one reviewer, or of everybody who decided something; one question."""
    with connection.cursor() as cursor:
        cursor.execute(NUMBERS, {"days": DAYS, "actor": reviewer_id, "quick": QUICK_SECONDS, "last": LAST})
        return [Numbers(*row) for row in cursor.fetchall()]
