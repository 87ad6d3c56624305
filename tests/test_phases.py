"""How the time of a run is told apart, and how it is drawn: queue, waiting, work and person, on an axis with folds."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from runs import waterfall
from runs.engine.events import Fact, Kind
from runs.engine.phases import Phase, history

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = {"name": "one", "worker": "w", "title": "One", "fingerprint": "", "input": {}, "effect": "none", "attempt": 1}
ASKED = {"cause": "gated", "subject": "input", "proposal": {}, "why": ""}
DATA = {
    Kind.RUN_REQUESTED: {"agent": "a", "agent_version": "1", "input": {}, "config": {}, "summary": ""},
    Kind.STEP_STARTED: STEP,
    Kind.STEP_REQUESTED: STEP,
    Kind.ATTEMPT_STARTED: {"attempt": 2},
    Kind.STEP_SUCCEEDED: {"output": 1},
    Kind.STEP_ESCALATED: ASKED,
    Kind.STEP_DECIDED: {"decision": "approve", "reason": "", "value": {}},
    Kind.ATTEMPT_FAILED: {"attempt": 1, "error": {}, "wait_seconds": None},
    Kind.ATTEMPT_CRASHED: {"attempt": 1, "reason": "by signal 9"},
    Kind.FALLBACK_TAKEN: {"worker": "w2", "why": ""},
    Kind.RUN_PARKED: {"cause": "person"},
    Kind.RUN_CANCELLED: {"reason": ""},
}


def at(seconds):
    return START + timedelta(seconds=seconds)


def told(*events):
    """A history of (kind, second) or (kind, second, data); those of the run by their names, all others of step 1."""
    facts = []
    for seq, (kind, seconds, *data) in enumerate(events, start=1):
        step = None if kind.startswith("Run") else 1
        facts.append(Fact(seq, kind, DATA.get(kind, {}) | (data[0] if data else {}), step, "", at(seconds), "", ""))
    return history(facts)


def spans(line, now=None):
    found = line.whole(at(now)) if now is not None else line.spans
    return [(str(one.phase), (one.start - START).total_seconds(), (one.end - START).total_seconds()) for one in found]


PAUSED = {"wait_seconds": 600.0, "wake_at": at(604).isoformat()}
UNDO = {"effective_at": at(70).isoformat()}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(Kind.STEP_STARTED, 0), (Kind.STEP_SUCCEEDED, 3)], [("work", 0, 3)]),
        (
            [(Kind.STEP_STARTED, 0), (Kind.STEP_ESCALATED, 2, {"subject": "output"}), (Kind.STEP_DECIDED, 325)],
            [("work", 0, 2), ("person", 2, 325)],
        ),
        (
            [(Kind.STEP_REQUESTED, 0), (Kind.STEP_ESCALATED, 1), (Kind.STEP_DECIDED, 61, UNDO), (Kind.ATTEMPT_STARTED, 79)],
            [("queue", 0, 1), ("person", 1, 61), ("waiting", 61, 70), ("queue", 70, 79)],
        ),  # a gate: it can be taken back for 9 s, then it is in the queue
        (
            [(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_FAILED, 4, PAUSED), (Kind.ATTEMPT_STARTED, 610), (Kind.STEP_SUCCEEDED, 611)],
            [("work", 0, 4), ("waiting", 4, 604), ("queue", 604, 610), ("work", 610, 611)],
        ),
        (
            [(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_FAILED, 4, {"wait_seconds": 1.5}), (Kind.ATTEMPT_STARTED, 5.5)],
            [("work", 0, 4), ("waiting", 4, 5.5)],
        ),  # its process itself waited
        (
            [(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_FAILED, 4), (Kind.FALLBACK_TAKEN, 4), (Kind.ATTEMPT_STARTED, 4)],
            [("work", 0, 4)],
        ),
        (
            [(Kind.STEP_STARTED, 0), (Kind.STEP_DEFERRED, 2, {"wake_at": at(9).isoformat()}), (Kind.ATTEMPT_STARTED, 9)],
            [("waiting", 0, 2), ("waiting", 2, 9)],
        ),  # held back: no attempt
        (
            [(Kind.STEP_REQUESTED, 0), (Kind.STEP_PARKED, 0, {"cause": "timer", "wake_at": at(8).isoformat()}),
             (Kind.STEP_SUCCEEDED, 9)],
            [("waiting", 0, 8), ("queue", 8, 9)],
        ),
        ([(Kind.STEP_STARTED, 0), (Kind.RUN_CANCELLED, 5)], [("work", 0, 5)]),
    ],
)  # fmt: skip
def test_the_time_of_a_step_is_told_apart(events, expected):
    assert spans(told(*events).steps[1]) == expected


@pytest.mark.parametrize(
    ("events", "worked", "waited"),
    [
        ([(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_STARTED, 90), (Kind.STEP_SUCCEEDED, 91)], 1, 0),  # a process died
        ([(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_CRASHED, 9), (Kind.STEP_ESCALATED, 10)], 0, 0),  # nobody knows when it ended
        ([(Kind.STEP_STARTED, 0), (Kind.STEP_ESCALATED, 2)], 2, 0),  # nobody has answered yet
        ([(Kind.STEP_REQUESTED, 0), (Kind.STEP_ESCALATED, 1), (Kind.RUN_CANCELLED, 8)], 0, 7),  # withdrawn
        (
            [(Kind.STEP_STARTED, 0), (Kind.ATTEMPT_FAILED, 4, PAUSED), (Kind.ATTEMPT_STARTED, 604), (Kind.STEP_SUCCEEDED, 605)],
            5,
            0,
        ),
    ],
)
def test_what_was_lost_or_goes_on_counts_as_no_work(events, worked, waited):
    line = told(*events).steps[1]
    assert (line.total(Phase.WORK), line.total(Phase.PERSON)) == (timedelta(seconds=worked), timedelta(seconds=waited))


def test_each_attempt_is_a_span_with_its_number_and_how_it_ended():
    line = told((Kind.STEP_STARTED, 0), (Kind.ATTEMPT_FAILED, 4), (Kind.FALLBACK_TAKEN, 4), (Kind.ATTEMPT_STARTED, 4)).steps[1]
    assert [(one.attempt, one.ending, one.is_open) for one in line.whole(at(6))] == [(1, "failed", False), (2, "", True)]
    assert [mark.kind for mark in line.marks] == [Kind.ATTEMPT_FAILED, Kind.FALLBACK_TAKEN]


def test_the_run_itself_is_the_outermost_line():
    line = told(
        (Kind.RUN_REQUESTED, 0), (Kind.RUN_STARTED, 2), (Kind.STEP_REQUESTED, 2), (Kind.STEP_ESCALATED, 3), (Kind.RUN_PARKED, 3),
        (Kind.STEP_DECIDED, 60), (Kind.RUN_RESUMED, 61),
    ).run  # fmt: skip
    assert spans(line, 62) == [("queue", 0, 2), ("work", 2, 3), ("person", 3, 60), ("queue", 60, 61), ("work", 61, 62)]


def test_what_steps_outside_of_the_page_say_is_passed_over():
    facts = [
        Fact(41, Kind.RUN_PARKED, {"cause": "undo"}, 7, "", at(0), "", ""),
        Fact(42, Kind.STEP_SUCCEEDED, {}, 7, "", at(1), "", ""),
    ]
    assert history(facts).steps == {}


def test_an_axis_is_even_where_nothing_is_long_idle():
    axis = waterfall.Axis(at(0), at(10), [(at(0), at(4)), (at(6), at(10))])
    assert [axis.place(at(second)) for second in (-1, 0, 5, 10, 11)] == [0, 0, 50, 100, 100]
    assert not axis.folds
    assert [tick.milliseconds for tick in axis.ticks] == [2000, 4000, 6000, 8000]


def test_days_of_idling_are_folded_and_the_work_between_them_stays_readable():
    day, busy = 86_400, [(at(0), at(2)), (at(86_400), at(86_402)), (at(3 * 86_400), at(3 * 86_400 + 4))]
    axis = waterfall.Axis(at(0), at(3 * day + 4), busy)
    assert [round(fold.width) for fold in axis.folds] == [8, 8]
    widths = [axis.place(right) - axis.place(left) for left, right in busy]
    assert [round(width, 1) for width in widths] == [21.0, 21.0, 42.0]
    assert axis.folded_ms == (3 * day - 4) * 1000
    assert waterfall.Axis(at(0), at(3 * day + 4), busy, fold=False).folds == []


@pytest.mark.parametrize("count", [0, 1, 40, 400])
def test_an_axis_never_turns_back_and_fills_its_width(count):
    busy = [(at(100 * number), at(100 * number + 1)) for number in range(count)]
    axis = waterfall.Axis(at(0), at(100 * max(count, 1)), busy)
    places = [axis.place(at(second)) for second in range(0, 100 * max(count, 1) + 1, 5)]
    assert all(before <= after for before, after in pairwise(places))
    assert (places[0], round(places[-1], 6)) == (0, 100)
