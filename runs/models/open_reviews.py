"""How many reviews are open of a run with its family, and of an agent: for the caps that protect people from a flood."""

from dataclasses import dataclass

from django.db import connection
from django.db.models import QuerySet

from runs.models.run import Run, RunStatus

CAUSE = "reviews"  # of a wait for room

# A look at a sample holds nothing up, so it takes no room. From the topmost run down to all that it started.
OF_FAMILY = """
WITH RECURSIVE above AS (
  SELECT id, parent_id FROM runs_run WHERE id = %(run_id)s
  UNION ALL SELECT run.id, run.parent_id FROM runs_run AS run JOIN above ON run.id = above.parent_id
), family AS (
  SELECT id FROM above WHERE parent_id IS NULL
  UNION ALL SELECT run.id FROM runs_run AS run JOIN family ON run.parent_id = family.id
)
SELECT count(*) FROM family JOIN reviews_review AS review ON review.run_id = family.id
WHERE review.state = 'open' AND review.cause <> 'sample' AND review.run_id <> %(but)s
"""

OF_AGENT = "SELECT count(*) FROM reviews_review WHERE state = 'open' AND cause <> 'sample' AND agent = %(slug)s"
PAUSED = """
SELECT review.agent, count(*) FROM reviews_review AS review JOIN runs_agentconfig AS config ON config.slug = review.agent
WHERE review.state = 'open' AND review.cause <> 'sample' AND %(slug)s IN ('', review.agent)
GROUP BY review.agent, config.reviews_per_agent HAVING count(*) >= config.reviews_per_agent ORDER BY review.agent
"""


@dataclass(frozen=True, slots=True)
class Paused:
    """An agent whose new runs wait, because so many of its reviews are open."""

    agent: str
    open: int


def of_family(run_id: int, *, but: int = 0) -> int:
    """Of the run, the runs above it, and all that these started; without those of the run `but`."""
    with connection.cursor() as cursor:
        cursor.execute(OF_FAMILY, {"run_id": run_id, "but": but})
        return int(cursor.fetchone()[0])


def of_agent(slug: str) -> int:
    """Of all its runs together."""
    with connection.cursor() as cursor:
        cursor.execute(OF_AGENT, {"slug": slug})
        return int(cursor.fetchone()[0])


def paused(slug: str = "") -> list[Paused]:
    """The agents that have as many as they may, or this one where it has."""
    with connection.cursor() as cursor:
        cursor.execute(PAUSED, {"slug": slug})
        return [Paused(*row) for row in cursor.fetchall()]


def waiting() -> QuerySet[Run]:
    """Runs that wait for room, the oldest first."""
    return Run.objects.filter(status=RunStatus.WAITING, waiting_cause=CAUSE).order_by("pk")
