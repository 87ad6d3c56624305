"""What the figures of guard come from: the visits that a provider saw, and the event log."""

import math
from collections.abc import Sequence

from django.db import connection

from agentops.outside.visits import Visit, most_at_once, most_within

MOST_CALLS, PARTS, CALLS_EACH = 20, 4, 15  # the budget of a run, and its children, who would make 60 calls
# A step that failed for good, or came to a person for it: while there are tries left nobody gives up. Who has one try has none.
GAVE_UP = """SELECT count(*) FROM runs_event e JOIN runs_run r ON r.id = e.run_id
  WHERE r.input->>'phase' = %s AND r.agent <> 'chaos-degrade'
    AND (e.kind = 'RunFailed' OR (e.kind = 'StepEscalated' AND e.data->>'cause' = 'failed'))"""
LONGEST_CANCEL = """SELECT max(extract(epoch FROM ended.at - asked.at)) FROM runs_event asked
  JOIN runs_run r ON r.id = asked.run_id JOIN runs_event ended ON ended.run_id = r.id AND ended.kind = 'RunCancelled'
  WHERE r.input->>'phase' = %s AND r.agent = %s AND asked.kind = 'RunCancelRequested'"""
HELD_BACK = """SELECT extract(epoch FROM at), extract(epoch FROM until) FROM (
    SELECT e.kind, e.at, lead(e.at, 1, now()) OVER (PARTITION BY e.run_id, e.step ORDER BY e.seq) AS until
    FROM runs_event e JOIN runs_run r ON r.id = e.run_id
    WHERE r.input->>'phase' = %s AND e.kind IN ('StepDeferred', 'AttemptStarted')) AS told WHERE kind = 'StepDeferred'"""
Span = tuple[float, float]


def most_calls(visits: Sequence[Visit], seconds: float) -> int:
    """In any window of that length."""
    return most_within(seconds, [visit.at for visit in visits])


def calls_at_once(visits: Sequence[Visit]) -> int:
    return most_at_once(visits)


def between(visits: Sequence[Visit], first: float, last: float) -> int:
    """How many came in that time."""
    return sum(first <= visit.at < last for visit in visits)


def utilisation(visits: list[Visit], limit: int, period: float, flushed: float) -> float:
    """While enough calls wait: from one period after the first call on, without the period after the counters were lost."""
    judged = spans(visits, limit, period, flushed)
    seconds = sum(last - first for first, last in judged)
    calls = sum(between(visits, first, last) for first, last in judged)
    return calls * period / (limit * seconds) if seconds > 0 else 0.0


def spans(visits: list[Visit], limit: int, period: float, flushed: float) -> list[Span]:
    """The seconds of which utilisation is judged."""
    blind = flushed + period + min(2, 0.1 + 0.03 * period) + 0.5
    found = [(visits[0].at + period, flushed), (blind + period, visits[-2 * limit].at)]
    return [(first, last) for first, last in found if first < last]


def waited(judged: list[Span], waits: list[Span]) -> float:
    """The share of these seconds in which some call was held back: in the others there was none to make."""
    seconds, until = 0.0, float("-inf")
    for first, last in sorted(waits):
        seconds += sum(max(0.0, min(last, end) - max(first, until, begin)) for begin, end in judged)
        until = max(until, last)
    whole = sum(last - first for first, last in judged)
    return seconds / whole if whole else 0.0


def held_back(phase: str) -> list[Span]:
    """From when to when each of its steps was."""
    with connection.cursor() as cursor:
        cursor.execute(HELD_BACK, [phase])
        return [(float(first), float(last)) for first, last in cursor.fetchall()]


def p95(numbers: list[float]) -> float:
    return round(sorted(numbers)[math.ceil(0.95 * len(numbers)) - 1], 3) if numbers else 0.0


def given_up(phase: str) -> int:
    return int(_asked(GAVE_UP, phase))


def longest_cancel(phase: str, agent: str) -> float:
    """Seconds from asked to ended, of its runs."""
    return _asked(LONGEST_CANCEL, phase, agent)


def _asked(statement: str, *about: str) -> float:
    with connection.cursor() as cursor:
        cursor.execute(statement, about)
        return float(cursor.fetchone()[0] or 0)
