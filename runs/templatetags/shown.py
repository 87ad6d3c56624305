"""How values look on a page: the word, shape and tone of a status, untrusted content as text, durations and shares."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.safestring import SafeString

register = template.Library()

FOLD_LETTERS = 700  # longer text is folded, with its length named
BRIEF_LETTERS = 300
MOST_COLUMNS, MOST_ROWS, CELL_LETTERS = 8, 200, 80  # of a list shown as a table
MOST_LETTERS = 50_000  # more than this would make the page itself unreadable; the raw event has it all


@dataclass(frozen=True, slots=True)
class Look:
    """Never colour alone: each has a word and a shape (an icon of lucide)."""

    word: str
    icon: str
    tone: str


STATUSES = {
    "queued": Look("Queued", "circle-dashed", "neutral"),
    "running": Look("Running", "circle-play", "blue"),
    "waiting": Look("Waiting", "circle-pause", "amber"),
    "retrying": Look("Retrying", "rotate-cw", "amber"),
    "succeeded": Look("Succeeded", "circle-check", "green"),
    "failed": Look("Failed", "circle-x", "red"),
    "rejected": Look("Rejected", "ban", "red"),
    "cancelled": Look("Cancelled", "circle-slash", "neutral"),
}
CAUSES = {
    "gated": Look("Gated", "shield-check", "purple"),
    "low_confidence": Look("Low confidence", "gauge", "amber"),
    "failed": Look("Failed", "triangle-alert", "red"),
    "question": Look("Question", "message-circle-question-mark", "blue"),
    "code_changed": Look("Code changed", "git-compare-arrows", "amber"),
}
REVIEWS = {
    "open": Look("Open", "circle-pause", "amber"),
    "decided": Look("Decided", "circle-check", "green"),
    "cancelled": Look("Withdrawn", "circle-slash", "neutral"),
}


@register.filter
def status_look(status: str) -> Look:
    """Of a run or a step."""
    return STATUSES[status]


@register.filter
def cause_look(cause: str) -> Look:
    """Of the reason why a review was opened."""
    return CAUSES[cause]


DECISIONS = {"approve": "Approved", "edit": "Edited", "reject": "Rejected", "retry": "Sent back", "answer": "Answered"}


@register.filter
def decided(decision: str) -> str:
    """A decision as a word in the past."""
    return DECISIONS[decision]


@register.filter
def by_confidence(alternatives: dict[str, float]) -> list[tuple[str, float]]:
    """The likeliest answers first, five at most."""
    return sorted(alternatives.items(), key=lambda pair: -pair[1])[:5]


@register.filter
def review_look(state: str) -> Look:
    return REVIEWS[state]


# --- content: what agents, workers and customers wrote -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """One value as plain text. `raw` is JSON, shown in a fixed-width font; `nothing` stands for an empty one."""

    name: str
    text: str
    raw: bool = False
    nothing: bool = False

    table: "Table | None" = None
    outline: str = ""  # what is in it, for when it is folded

    @property
    def folded(self) -> bool:
        return len(self.text) > FOLD_LETTERS

    @property
    def start(self) -> str:
        return self.text[: FOLD_LETTERS // 2]

    @property
    def shown(self) -> str:
        return self.text[:MOST_LETTERS]

    @property
    def cut(self) -> bool:
        return len(self.text) > MOST_LETTERS


@dataclass(frozen=True, slots=True)
class Table:
    """A list of alike flat objects: easier to read than JSON."""

    names: list[str]
    rows: list[list[Any]]


@register.filter
def pieces(value: Any) -> list[Piece]:
    """An object as its named fields, anything else as one nameless piece."""
    if isinstance(value, dict) and value:
        return [_piece(str(name), inner) for name, inner in value.items()]
    return [_piece("", value)]


def _piece(name: str, value: Any) -> Piece:
    if isinstance(value, str) and value:
        return Piece(name, value)
    if value is None or value == "":
        return Piece(name, "nothing" if value is None else "empty text", nothing=True)
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return Piece(name, text, raw=isinstance(value, dict | list), table=_table(value), outline=_outline(value))


def _outline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value)} fields: {', '.join(map(str, value))}"[:BRIEF_LETTERS]
    return f"{len(value):,} entries" if isinstance(value, list) else ""


def _table(value: Any) -> Table | None:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return None
    names, rows = list(value[0]), [list(row.values()) for row in value]
    alike = all(list(row) == names for row in value) and 0 < len(names) <= MOST_COLUMNS and len(rows) <= MOST_ROWS
    return Table(names, rows) if alike and all(_fits(cell) for row in rows for cell in row) else None


def _fits(cell: Any) -> bool:
    return not isinstance(cell, dict | list) and len(str(cell)) <= CELL_LETTERS


@register.filter
def brief(value: Any) -> str:
    """A value in one line, for a step that is not opened."""
    if isinstance(value, dict):
        short = (f"{name}: {inner}" for name, inner in value.items() if isinstance(inner, str | int | float) and inner != "")
        return ", ".join(short)[:BRIEF_LETTERS]
    return "" if value is None else str(value)[:BRIEF_LETTERS]


@register.filter
def as_json(value: Any) -> Piece:
    """The value as indented JSON."""
    return Piece("", json.dumps(value, indent=2, ensure_ascii=False, default=str), raw=True)


# --- numbers and times ----------------------------------------------------------------------------------------------


@register.filter
def share(value: float | None) -> str:
    """A number from 0 to 1 as the width of a bar of 100."""
    return "0" if value is None else f"{max(0.0, min(1.0, value)) * 100:.1f}"


@register.filter
def reaches(confidence: float | None, threshold: float | None) -> bool:
    """Whether a confidence is at least the threshold; none is under every threshold."""
    return confidence is not None and (threshold is None or confidence >= threshold)


@register.filter
def duration(milliseconds: float | None) -> str:
    """420 ms, 3.2 s, 2 min 5 s, 1 h 3 min, 2 d 4 h."""
    if milliseconds is None:
        return ""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    large, small, unit, smaller = next(scale[1:] for scale in SCALES if whole < scale[0])
    return f"{whole // large} {unit} {whole % large // small} {smaller}"


# below which number of seconds, in which two units (their seconds and their names)
SCALES = (
    (3_600, 60, 1, "min", "s"),
    (86_400, 3_600, 60, "h", "min"),
    (float("inf"), 86_400, 3_600, "d", "h"),
)


# --- forms ------------------------------------------------------------------------------------------------------------


@register.filter
def control(field: BoundField) -> SafeString:
    """The widget of a field of Django's or allauth's, with the classes of our look."""
    looks = {"checkbox": "form-check-input", "select": "form-select"}
    look = looks.get(getattr(field.field.widget, "input_type", ""), "form-control")
    return field.as_widget(attrs={"class": f"{look} is-invalid" if field.errors else look})


# --- times ------------------------------------------------------------------------------------------------------------


@register.simple_tag
def lasted(started: datetime | None, finished: datetime | None) -> str:
    """How long it took, or how long it has taken so far; "" before the start."""
    if started is None:
        return ""
    return duration(((finished or timezone.now()) - started).total_seconds() * 1000)
