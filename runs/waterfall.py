"""Draws where the time of a run went: one axis, on which long idle stretches are folded, and a bar for each step."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from runs.engine.events import Kind
from runs.engine.phases import History, Line, Phase, Span

Stretch = tuple[datetime, datetime]

WORDS = {Phase.QUEUE: "in the queue", Phase.WAITING: "waiting", Phase.WORK: "at work", Phase.PERSON: "for a person"}

SHORTEST_FOLD = timedelta(seconds=10)  # idle time is folded where it is longer than this and than half of all work
FOLD_WIDTH = 8.0  # percent of the axis; all folds together take FOLDS_WIDTH at most
FOLDS_WIDTH = 40.0
LABEL_WIDTH = 10.0  # percent that a label needs
TICKS = 6
NICE = [
    *(timedelta(milliseconds=number) for number in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(timedelta(seconds=number) for number in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)),
    *(timedelta(hours=number) for number in (1, 2, 4, 6, 12, 24, 48, 120, 240, 480, 1200)),
]


class Piece(NamedTuple):
    """A stretch of time, and where it lies on the axis in percent."""

    start: datetime
    end: datetime
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Tick:
    """`milliseconds` after the start, or how long a fold is."""

    x: float
    milliseconds: float

    @property
    def left(self) -> str:
        return f"{self.x:.3f}%"

    @property
    def is_early(self) -> bool:
        """On a narrow page it would run into the words at the beginning of the axis."""
        return self.x < 33

    @property
    def is_late(self) -> bool:
        """On a narrow page it would run into the words at the end of the axis."""
        return self.x > 74


class Axis:
    """Time as percent of a width, from the start to the end."""

    def __init__(self, start: datetime, end: datetime, busy: Iterable[Stretch] = (), *, fold: bool = True) -> None:
        self.start, self.end = start, max(end, start + timedelta(milliseconds=1))
        merged = _merged(busy, start, self.end)
        idle = [gap for gap in _between(merged, start, self.end) if fold and _is_long(gap, merged)]
        self.pieces = _laid_out(start, self.end, idle)
        self._starts = [piece.start for piece in self.pieces]
        folded = set(idle)
        self.folds = [piece for piece in self.pieces if (piece.start, piece.end) in folded]

    def place(self, at: datetime) -> float:
        """Where a time lies; one before the start or after the end at that edge."""
        at = min(max(at, self.start), self.end)
        piece = self.pieces[bisect_right(self._starts, at) - 1]
        return piece.left + piece.width * ((at - piece.start) / (piece.end - piece.start))

    @property
    def took_ms(self) -> float:
        return _milliseconds(self.end - self.start)

    @property
    def folded(self) -> list[float]:
        """Milliseconds of each fold."""
        return [_milliseconds(fold.end - fold.start) for fold in self.folds]

    @property
    def folded_ms(self) -> float:
        return sum(self.folded)

    @property
    def bands(self) -> list["Rect"]:
        """The folds, as they lie behind every bar."""
        return [Rect("", fold.left, fold.width) for fold in self.folds]

    @property
    def labels(self) -> list[Tick]:
        """How long each fold is, as far as there is room for words."""
        told: list[Tick] = []
        for fold in self.folds:
            middle = fold.left + fold.width / 2
            if middle > (told[-1].x if told else 0) + LABEL_WIDTH and middle < 100 - LABEL_WIDTH:
                told.append(Tick(middle, _milliseconds(fold.end - fold.start)))
        return told

    @property
    def ticks(self) -> list[Tick]:
        """Round times after the start; none where time is folded, because they would not be evenly apart."""
        whole = self.end - self.start
        every = next((one for one in NICE if whole / one <= TICKS), NICE[-1])
        if self.folds:
            return []
        times = (every * number for number in range(1, int(whole / every) + 1))
        return [Tick(self.place(self.start + time), _milliseconds(time)) for time in times if time < whole * 0.92]


@dataclass(frozen=True, slots=True)
class Rect:
    """A stretch of a bar in percent. `attempt` and its `ending` are of work."""

    phase: str
    x: float
    width: float
    took_ms: float = 0.0
    attempt: int = 0
    ending: str = ""

    @property
    def left(self) -> str:
        return f"{self.x:.3f}%"

    @property
    def wide(self) -> str:
        return f"{self.width:.3f}%"

    @property
    def words(self) -> str:
        """What it is to whoever points at it."""
        if not self.attempt:
            return WORDS[Phase(self.phase)].capitalize()
        return f"Attempt {self.attempt}, {self.ending}" if self.ending else f"Attempt {self.attempt}"

    @property
    def look(self) -> str:
        return f"{self.phase} {self.ending}"


@dataclass(frozen=True, slots=True)
class Mark:
    look: str
    x: float
    word: str

    @property
    def left(self) -> str:
        return f"{self.x:.3f}%"


@dataclass(frozen=True, slots=True)
class Bar:
    rects: list[Rect]
    marks: list[Mark]


MARKS = {
    Kind.FALLBACK_TAKEN: ("fallback", "its fallback was taken"),
    Kind.STEP_DECIDED: ("decision", "a person decided"),
    Kind.DECISION_REVOKED: ("decision", "the decision was taken back"),
    Kind.STEP_EXPIRED: ("failed", "nobody decided in time"),
    Kind.ATTEMPT_FAILED: ("failed", "the attempt failed"),
    Kind.ATTEMPT_CRASHED: ("failed", "its process ended"),
}


class Reach(NamedTuple):
    """Whether the steps that are drawn are the first of their run, and the last: only then is its own time drawn beside them."""

    begins: bool = True
    ends: bool = True


def axis(told: History, now: datetime, *, fold: bool = True, nested: Iterable[Line] = (), reach: Reach = Reach()) -> Axis:
    """From the first to the last of what the history tells, and the lines within it; up to now, where something goes on."""
    of_run = told.run.whole(now)
    of_steps = [span for line in (*told.steps.values(), *nested) for span in line.whole(now)]
    spans, last = of_run + of_steps, told.state.last_at or now
    start = min((span.start for span in (spans if reach.begins or not of_steps else of_steps)), default=last)
    end = max((span.end for span in (spans if reach.ends or not of_steps else of_steps)), default=last)
    return Axis(start, end, [(span.start, span.end) for span in spans if span.phase == Phase.WORK], fold=fold)


def bar(line: Line, on: Axis, now: datetime) -> Bar:
    """What one line of the history looks like on the axis."""
    drawn = (fact for fact in line.marks if on.start <= fact.at <= on.end)
    marks = [Mark(look, on.place(fact.at), word) for fact in drawn for look, word in [MARKS[Kind(fact.kind)]]]
    return Bar([_rect(span, on) for span in line.whole(now) if span.start <= on.end and span.end >= on.start], marks)


def _rect(span: Span, on: Axis) -> Rect:
    left, right = on.place(span.start), on.place(span.end)
    attempt = span.attempt if span.phase == Phase.WORK else 0
    return Rect(str(span.phase), left, right - left, _milliseconds(span.took), attempt, str(span.ending))


def _milliseconds(time: timedelta) -> float:
    return time / timedelta(milliseconds=1)


def _merged(busy: Iterable[Stretch], start: datetime, end: datetime) -> list[Stretch]:
    """The stretches in order, those that touch as one."""
    found: list[Stretch] = []
    for left, right in sorted((max(left, start), min(right, end)) for left, right in busy if left <= end and right >= start):
        if found and left <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], right))
        else:
            found.append((left, right))
    return found


def _between(busy: Sequence[Stretch], start: datetime, end: datetime) -> list[Stretch]:
    edges = [(start, start), *busy, (end, end)]
    return [(before[1], after[0]) for before, after in pairwise(edges) if after[0] > before[1]]


def _is_long(gap: Stretch, busy: Sequence[Stretch]) -> bool:
    worked = sum((right - left for left, right in busy), timedelta())
    return gap[1] - gap[0] > max(SHORTEST_FOLD, worked / 2)


def _laid_out(start: datetime, end: datetime, folds: Sequence[Stretch]) -> list[Piece]:
    """Folds of one width each, and between them the rest in proportion."""
    plain, folded = _between(folds, start, end), set(folds)
    time = sum((right - left for left, right in plain), timedelta())
    fold_width = min(FOLD_WIDTH, FOLDS_WIDTH / len(folds)) if folds else 0.0
    if not plain:
        fold_width = 100 / len(folds)
    room, left, pieces = 100 - fold_width * len(folds), 0.0, list[Piece]()
    for stretch in sorted([*plain, *folds]):
        width = fold_width if stretch in folded else room * ((stretch[1] - stretch[0]) / time)
        pieces.append(Piece(*stretch, left, width))
        left += width
    return pieces
