"""What the figures of guard come from: the visits that a provider saw, and the event log."""

import math

from django.db import connection

from agentops.outside.visits import Visit, most_at_once, most_within

MOST_CALLS, PARTS, CALLS_EACH = 20, 4, 15  # the budget of a run, and its children, who would make 60 calls
# A step that failed for good, or came to a person for it: while there are tries left nobody gives up.
GAVE_UP = """SELECT count(*) FROM runs_event e JOIN runs_run r ON r.id = e.run_id
  WHERE r.input->>'phase' = %s AND (e.kind = 'RunFailed' OR (e.kind = 'StepEscalated' AND e.data->>'cause' = 'failed'))"""
LONGEST_CANCEL = """SELECT max(extract(epoch FROM ended.at - asked.at)) FROM runs_event asked
  JOIN runs_run r ON r.id = asked.run_id JOIN runs_event ended ON ended.run_id = r.id AND ended.kind = 'RunCancelled'
  WHERE r.input->>'phase' = %s AND asked.kind = 'RunCancelRequested'"""


def most_calls(visits: list[Visit], seconds: float) -> int:
    """In any window of that length."""
    return most_within(seconds, [visit.at for visit in visits])


def calls_at_once(visits: list[Visit]) -> int:
    return most_at_once(visits)


def between(visits: list[Visit], first: float, last: float) -> int:
    """How many came in that time."""
    return sum(first <= visit.at < last for visit in visits)


def utilisation(visits: list[Visit], limit: int, period: float, flushed: float) -> float:
    """While enough calls wait: from one period after the first call on, without the period after the counters were lost."""
    blind = flushed + period + min(2, 0.1 + 0.03 * period) + 0.5
    spans = [(visits[0].at + period, flushed), (blind + period, visits[-2 * limit].at)]
    seconds = sum(max(last - first, 0) for first, last in spans)
    calls = sum(between(visits, first, last) for first, last in spans)
    return calls * period / (limit * seconds) if seconds > 0 else 0.0


def p95(numbers: list[float]) -> float:
    return round(sorted(numbers)[math.ceil(0.95 * len(numbers)) - 1], 3) if numbers else 0.0


def given_up(phase: str) -> int:
    return int(_asked(GAVE_UP, phase))


def longest_cancel(phase: str) -> float:
    """Seconds from asked to ended."""
    return _asked(LONGEST_CANCEL, phase)


def _asked(statement: str, phase: str) -> float:
    with connection.cursor() as cursor:
        cursor.execute(statement, [phase])
        return float(cursor.fetchone()[0] or 0)
