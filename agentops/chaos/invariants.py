"""What must hold of every run whatever happened to it, asked in SQL of the event log, the rows and the ledger outside."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from runs import audit, event_log
from runs.models import Run


@dataclass(frozen=True, slots=True)
class Invariant:
    """`column` of the report counts the rows of `broken`: run ids, once for each time that it does not hold."""

    column: str
    sentence: str
    broken: str


# An effect of an attempt after another process has taken its run: a process that was stopped between its last look at the
# lease and the effect. No check can come later than that, so a process does it once at most each time that it was stopped.
LATE = """
SELECT l.run_id, l.pid FROM chaos_ledger l JOIN runs_step s ON s.run_id = l.run_id AND s.name = l.step
JOIN runs_event b ON b.run_id = l.run_id AND b.step = s.position AND b.kind IN ('StepStarted', 'AttemptStarted')
  AND (b.data->>'attempt')::int = l.attempt
JOIN runs_event t ON t.run_id = l.run_id AND t.seq > b.seq AND t.kind = 'RunTakenOver' AND t.at < l.at
GROUP BY l.run_id, l.key, l.attempt, l.pid
"""
EVERY_RUN = audit.Part(audit.LOWEST, audit.HIGHEST, 0)
# An effect as it stands in the ledger; and where the log says that a step got its result.
PREPARE = """
DROP TABLE IF EXISTS chaos_ledger, chaos_completion;
CREATE TEMPORARY TABLE chaos_ledger
  (run_id bigint, step text, errand text, effect text, key text, attempt int, pid int, at timestamptz);
CREATE TEMPORARY TABLE chaos_completion AS
SELECT e.run_id, e.step, e.seq,
  (SELECT coalesce(max((s.data->>'attempt')::int), 0) FROM runs_event s
   WHERE s.run_id = e.run_id AND s.step = e.step AND s.seq < e.seq AND s.kind IN ('StepStarted', 'AttemptStarted')) AS attempt
FROM runs_event e
WHERE e.kind = 'StepSucceeded' OR (
  e.kind = 'StepDecided' AND e.data->>'decision' IN ('approve', 'edit', 'answer', 'happened') AND 'output' = (
  SELECT q.data->>'subject' FROM runs_event q
  WHERE q.run_id = e.run_id AND q.step = e.step AND q.seq < e.seq AND q.kind = 'StepEscalated' ORDER BY q.seq DESC LIMIT 1));
"""
LEDGER_LINE = """INSERT INTO chaos_ledger
  VALUES (%(run_id)s, %(step)s, %(errand)s, %(effect)s, %(key)s, %(attempt)s, %(pid)s, %(at)s)"""

INVARIANTS = [
    Invariant(
        "lost",
        "every run has ended, and of those with a step that kills its process each waits for a person",
        """SELECT id FROM runs_run WHERE status NOT IN ('succeeded', 'partial', 'failed', 'cancelled', 'waiting')
           OR (status = 'waiting') <> (agent = 'chaos-poison')""",
    ),
    Invariant(
        "re-executed",
        "no step with a recorded result has a later attempt outside",
        """SELECT l.run_id FROM chaos_ledger l JOIN runs_step s ON s.run_id = l.run_id AND s.name = l.step
           JOIN chaos_completion c ON c.run_id = l.run_id AND c.step = s.position WHERE l.attempt > c.attempt""",
    ),
    Invariant(
        "re-executed",
        "no attempt is begun in the log after the step has its result",
        """SELECT e.run_id FROM runs_event e JOIN chaos_completion c ON c.run_id = e.run_id AND c.step = e.step
           WHERE e.kind IN ('StepStarted', 'AttemptStarted') AND e.seq > c.seq""",
    ),
    Invariant(
        "duplicates",
        "an effect has one key, however often it is tried",
        "SELECT max(run_id) FROM chaos_ledger GROUP BY errand HAVING count(DISTINCT key) > 1",
    ),
    Invariant(
        "duplicates",
        "what may happen only once happened at most once",
        "SELECT max(run_id) FROM chaos_ledger WHERE effect = 'once' GROUP BY errand HAVING count(*) > 1",
    ),
    Invariant(
        "stale writes",
        "between two takings of a run one process alone executes what the log begins",
        """SELECT run_id FROM (SELECT l.run_id, l.pid,
             (SELECT max(t.seq) FROM runs_event t WHERE t.run_id = b.run_id AND t.seq < b.seq
              AND t.kind IN ('RunStarted', 'RunResumed', 'RunTakenOver')) AS taken
           FROM chaos_ledger l JOIN runs_step s ON s.run_id = l.run_id AND s.name = l.step
           JOIN runs_event b ON b.run_id = l.run_id AND b.step = s.position AND b.kind IN ('StepStarted', 'AttemptStarted')
             AND (b.data->>'attempt')::int = l.attempt
           WHERE s.name <> 'die' -- its last try is carried alone, by a process of its own
           ) AS executed
           GROUP BY run_id, taken HAVING count(DISTINCT pid) > 1""",
    ),
    Invariant(
        "stale writes",
        "an attempt that was executed was begun in the log, and once",
        """SELECT l.run_id FROM chaos_ledger l JOIN runs_step s ON s.run_id = l.run_id AND s.name = l.step
           LEFT JOIN runs_event b ON b.run_id = l.run_id AND b.step = s.position AND b.kind IN ('StepStarted', 'AttemptStarted')
             AND (b.data->>'attempt')::int = l.attempt
           GROUP BY l.run_id, l.step, l.attempt HAVING count(b.id) <> 1""",
    ),
    Invariant(
        "stale writes",
        "what came of an attempt is written by who owned the run when it began",
        """SELECT e.run_id FROM runs_event e JOIN LATERAL (
             SELECT b.seq FROM runs_event b WHERE b.run_id = e.run_id AND b.step = e.step AND b.seq < e.seq
             AND b.kind IN ('StepStarted', 'AttemptStarted') ORDER BY b.seq DESC LIMIT 1) AS begun ON true
           WHERE e.kind IN ('StepSucceeded', 'AttemptFailed', 'StepDeferred') AND EXISTS (
             SELECT FROM runs_event t WHERE t.run_id = e.run_id AND t.seq > begun.seq AND t.seq < e.seq
             AND t.kind IN ('RunStarted', 'RunResumed', 'RunTakenOver'))""",
    ),
    Invariant(
        "stale writes",
        "each owner has a higher fence than the one before",
        """SELECT run_id FROM (SELECT run_id, (data->>'fence')::int <= lag((data->>'fence')::int, 1, 0)
             OVER (PARTITION BY run_id ORDER BY seq) AS wrong
           FROM runs_event WHERE kind IN ('RunStarted', 'RunResumed', 'RunTakenOver')) AS taken WHERE wrong""",
    ),
    Invariant(
        "other",
        "a run gives the result that the same errand gave without faults",
        """SELECT r.id FROM runs_run r JOIN runs_run u ON u.input->>'phase' = 'none' AND u.input->>'number' = r.input->>'number'
           WHERE r.agent = 'chaos-errand' AND u.agent = r.agent
             AND r.status IN ('succeeded', 'partial', 'failed', 'cancelled', 'waiting')
             AND (r.status <> 'succeeded' OR r.output IS DISTINCT FROM u.output)""",
    ),
    Invariant(
        "other",
        "code that changed never goes on silently: the run stops at the step that has another name",
        """SELECT run_id FROM runs_event WHERE kind = 'StepEscalated' AND data->>'cause' = 'code_changed' AND step <> 4
           UNION ALL SELECT run_id FROM runs_step WHERE name IN ('fetch', 'fetch_anew') GROUP BY run_id HAVING count(*) > 1""",
    ),
    Invariant(
        "other",
        "a step that kills its process is tried twice among others at most, and three times where it alone can be to blame",
        """SELECT e.run_id FROM runs_event e JOIN runs_run r ON r.id = e.run_id
           WHERE r.agent = 'chaos-poison' AND e.kind = 'AttemptCrashed' GROUP BY e.run_id, e.step
           HAVING count(*) FILTER (WHERE coalesce((e.data->>'counts')::boolean, true)) > 3
             OR count(*) FILTER (WHERE NOT (e.data->>'counts')::boolean) > 2
           UNION ALL SELECT run_id FROM chaos_ledger WHERE step = 'die' GROUP BY run_id HAVING count(*) > 5""",
    ),
    Invariant(
        "other",
        "a step gets its result once",
        "SELECT run_id FROM chaos_completion GROUP BY run_id, step HAVING count(*) > 1",
    ),
    Invariant(
        "other",
        "events are numbered from 1 without a gap, as the run's row says",
        """SELECT e.run_id FROM runs_event e JOIN runs_run r ON r.id = e.run_id GROUP BY e.run_id, r.last_seq
           HAVING min(e.seq) <> 1 OR max(e.seq) <> count(*) OR max(e.seq) <> r.last_seq""",
    ),
    Invariant(
        "other",
        "nothing follows the end of a run but a retry",
        """SELECT e.run_id FROM runs_event e JOIN runs_event n ON n.run_id = e.run_id AND n.seq = e.seq + 1
           WHERE e.kind IN ('RunSucceeded', 'RunFailed', 'RunCancelled') AND n.kind <> 'RunRetried'""",
    ),
    Invariant(
        "other",
        "each question has one review, each decided review one decision and one event",
        """SELECT r.id FROM runs_run r WHERE
           (SELECT count(*) FROM runs_event e WHERE e.run_id = r.id AND e.kind = 'StepEscalated')
             <> (SELECT count(*) FROM reviews_review v WHERE v.run_id = r.id)
           OR (SELECT count(*) FROM runs_event e WHERE e.run_id = r.id AND e.kind = 'StepDecided')
             <> (SELECT count(*) FROM reviews_decision d JOIN reviews_review v ON v.id = d.review_id
                 WHERE v.run_id = r.id AND v.state = 'decided')""",
    ),
    Invariant(
        "other",
        "a review is open exactly while its run waits",
        """SELECT r.id FROM runs_run r LEFT JOIN reviews_review v ON v.run_id = r.id AND v.state = 'open'
           GROUP BY r.id, r.status HAVING count(v.id) <> (r.status = 'waiting')::int""",
    ),
    Invariant(
        "other",
        "nobody owns a run that waits or has ended",
        """SELECT id FROM runs_run WHERE lease_until IS NOT NULL
           AND status IN ('waiting', 'succeeded', 'partial', 'failed', 'cancelled')""",
    ),
]


def late_effects() -> list[tuple[int, int]]:
    """The run of each, and the process that did it; to be asked after `broken`, which has the ledger brought here."""
    with connection.cursor() as cursor:
        cursor.execute(LATE)
        return [(run_id, pid) for run_id, pid in cursor.fetchall()]


def how_it_stands(run_id: int) -> str:
    """What there is to know of a run that did not come to its end."""
    run, events = Run.objects.get(pk=run_id), [row.kind for row in event_log.rows(run_id)]
    held = f"held by {run.lease_owner} until {run.lease_until}" if run.lease_until else "owned by nobody"
    came_to, cause = ", ".join(events[-4:]), run.waiting_cause or "no cause"
    return f"Run {run_id} is {run.status} ({cause}), {held}, wakes at {run.wake_at}; last: {came_to}."


def broken(ledger: Iterable[dict[str, Any]]) -> list[tuple[Invariant, list[int]]]:
    """Each invariant that does not hold, with the runs for which it does not."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute(PREPARE)
        cursor.executemany(LEDGER_LINE, list(ledger))
        for invariant in INVARIANTS:
            cursor.execute(invariant.broken)
            if run_ids := [row[0] for row in cursor.fetchall()]:
                found.append((invariant, run_ids))
    with transaction.atomic():
        wrong = audit.audit(connection.connection, EVERY_RUN)
    if wrong.wrong:
        sentence = f"the events fold to the rows, and their chain holds ({wrong.wrong})"
        found.append((Invariant("other", sentence, ""), [wrong.run_id or 0]))
    return found
