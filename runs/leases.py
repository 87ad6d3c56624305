"""The lease of a run as SQL: how one process takes it, and keeps those that it has."""

from typing import NamedTuple

TAKE = """
WITH taken AS (
  UPDATE runs_run AS run
  SET lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8),
    fence = run.fence + 1, lost_owner = CASE before.lease_owner WHEN '' THEN run.lost_owner ELSE before.lease_owner END
  FROM (SELECT id, lease_owner FROM runs_run WHERE id = %(run_id)s FOR UPDATE) AS before
  WHERE run.id = before.id AND (run.lease_until IS NULL OR run.lease_until < clock_timestamp())
    AND CASE
      WHEN run.status IN ('queued', 'running', 'retrying') THEN run.wake_at IS NULL OR run.wake_at <= clock_timestamp()
      WHEN run.status <> 'waiting' THEN false
      WHEN run.waiting_cause = 'children' THEN NOT EXISTS (
        SELECT FROM unnest(run.waiting_runs) AS waited(id)
        WHERE (SELECT child.status FROM runs_run AS child WHERE child.id = waited.id)
          NOT IN ('succeeded', 'partial', 'failed', 'cancelled'))
      ELSE run.wake_at <= clock_timestamp() END
  RETURNING run.id, run.fence, before.lease_owner, run.last_seq, run.started_at IS NULL AND EXISTS (
    SELECT FROM runs_agentconfig AS config WHERE config.slug = run.agent AND config.reviews_per_agent IS NOT NULL AND EXISTS (
      SELECT FROM reviews_review AS review WHERE review.agent = run.agent AND review.state = 'open' AND review.cause <> 'sample'
      OFFSET config.reviews_per_agent - 1)) AS must_wait
)
SELECT taken.fence, taken.lease_owner, taken.last_seq, taken.must_wait,
  e.seq, e.kind, e.data, e.step, e.actor, e.at, e.prev_hash, e.hash
FROM taken JOIN runs_event AS e ON e.run_id = taken.id ORDER BY e.seq
"""
# A row that somebody else has locked is skipped: waiting for it could deadlock, and the next round finds it free.
RENEW_ALL = """
WITH mine AS (
  SELECT * FROM unnest(%(run_ids)s::bigint[], %(fences)s::int[]) AS mine(run_id, fence)
), free AS (
  SELECT run.id FROM runs_run AS run JOIN mine ON mine.run_id = run.id AND mine.fence = run.fence
  WHERE run.lease_until IS NOT NULL FOR NO KEY UPDATE OF run SKIP LOCKED
), renewed AS (
  UPDATE runs_run AS run SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8)
  FROM free WHERE run.id = free.id RETURNING run.id
)
SELECT mine.run_id, mine.fence, run.fence = mine.fence AND run.lease_until IS NOT NULL, renewed.id IS NOT NULL,
  run.cancel_requested
FROM mine JOIN runs_run AS run ON run.id = mine.run_id LEFT JOIN renewed ON renewed.id = run.id
"""


class Lease(NamedTuple):
    """A lease as one look found it; it may be ours and not renewed, while its row is locked."""

    ours: bool
    renewed: bool
    cancel_requested: bool
