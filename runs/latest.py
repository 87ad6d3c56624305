"""The newest runs of each agent, counted: what its pages say of them does not cost more as its history grows."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection
from django.db.models import Count

from runs.models import Run
from runs.models.run import OPEN, in_order

LATEST = 1_000  # runs of an agent
# BETWEEN and the order by agent leave only the index by agent: with `=` the planner may read the newest runs of all agents until
# it has enough of this one, and where it has few these are all runs there are
OF_THE_LATEST = """
SELECT slug, run.agent_version, run.status, count(*), max(run.created_at) FROM unnest(%s::text[]) AS slugs(slug), LATERAL (
  SELECT agent_version, status, created_at FROM runs_run WHERE agent BETWEEN slug AND slug
  ORDER BY agent, created_at DESC, id DESC LIMIT %s) AS run
GROUP BY 1, 2, 3"""


@dataclass
class Latest:
    """The newest LATEST runs of an agent, by status and by version; those that are open are counted among all its runs."""

    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, tuple[int, datetime]] = field(default_factory=dict)  # runs, and when the last of them began
    looked_at: int = 0

    @property
    def is_cut(self) -> bool:
        return self.looked_at == LATEST


def latest(slugs: list[str]) -> dict[str, Latest]:
    """Of each of these agents."""
    found = {slug: Latest() for slug in slugs}
    with connection.cursor() as cursor:
        cursor.execute(OF_THE_LATEST, [slugs, LATEST])
        for slug, version, status, number, last in cursor.fetchall():
            one = found[slug]
            runs, before = one.versions.get(version, (0, last))
            one.versions[version] = runs + number, max(last, before)
            one.looked_at += number
            if status not in OPEN:
                one.counts[status] = one.counts.get(status, 0) + number
    is_open = Run.objects.filter(agent__in=slugs, status__in=OPEN).order_by()
    for slug, status, number in is_open.values_list("agent", "status").annotate(Count("pk")):
        found[slug].counts[status] = number
    for one in found.values():
        one.counts = in_order(one.counts)
    return found
