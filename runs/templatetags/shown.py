"""How values look on a page: the word, shape and tone of a status, durations and shares, the controls of forms."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.forms import BoundField
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from lucide.templatetags.lucide import lucide

from runs import access, describe, sdk
from runs.models import open_reviews

register = template.Library()


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
    "partial": Look("Completed partially", "chart-pie", "amber"),
    "skipped": Look("Skipped", "skip-forward", "amber"),
    "failed": Look("Failed", "circle-x", "red"),
    "rejected": Look("Rejected", "ban", "red"),
    "expired": Look("Expired", "timer-off", "red"),
    "cancelled": Look("Cancelled", "circle-slash", "neutral"),
}
CAUSES = {
    "gated": Look("Gated", "shield-check", "purple"),
    "low_confidence": Look("Low confidence", "gauge", "amber"),
    "sample": Look("Quality sample", "flask-conical", "blue"),
    "failed": Look("Failed", "triangle-alert", "red"),
    "question": Look("Question", "message-circle-question-mark", "blue"),
    "code_changed": Look("Code changed", "git-compare-arrows", "amber"),
    "outcome_unknown": Look("Outcome unknown", "circle-question-mark", "red"),
    "budget": Look("Budget", "wallet", "amber"),
}
REVIEWS = {
    "open": Look("Open", "circle-pause", "amber"),
    "decided": Look("Decided", "circle-check", "green"),
    "cancelled": Look("Withdrawn", "circle-slash", "neutral"),
    "expired": Look("Expired", "timer-off", "neutral"),
}
PROCESSES = {
    "busy": Look("Busy", "circle-play", "blue"),
    "idle": Look("Idle", "circle-check", "green"),
    "silent": Look("Silent", "circle-x", "red"),
}


@register.filter
def status_look(status: str) -> Look:
    """Of a run or a step."""
    return STATUSES[status]


@register.filter
def agent_title(slug: str) -> str:
    """The agent's title, or its slug where it is not installed."""
    return sdk.AGENTS[slug].title if slug in sdk.AGENTS else slug


@register.filter
def is_installed(slug: str) -> bool:
    """Whether runs of this agent can go on here."""
    return slug in sdk.AGENTS


@register.inclusion_tag("runs/_paused.html", takes_context=True)
def paused_agents(context: template.Context, slug: str = "") -> dict[str, Any]:
    """A note for each agent, or this one, whose new runs wait because so many of its reviews are open."""
    return {"paused": open_reviews.paused(slug), "may_review": access.may_review(context["request"].user)}


@register.filter
def number_of(counts: dict[int, int], key: int) -> int:
    """What is counted under the key."""
    return counts.get(key, 0)


@register.filter
def cause_look(cause: str) -> Look:
    """Of the reason why a review was opened."""
    return CAUSES[cause]


DECISIONS = {
    "approve": "Approved",
    "edit": "Edited",
    "reject": "Rejected",
    "retry": "Sent back",
    "answer": "Answered",
    "happened": "Said to have happened",
    "not_happened": "Said not to have happened",
    "raise": "Limit raised",
    "finish": "Finished with what there is",
    "fork": "Forked",
    "cancel": "Run cancelled",
    "take_over": "Taken over",
    "send_back": "Sent back for changes",
    "skip": "Skipped",
}


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


@register.filter
def process_look(state: str) -> Look:
    """Of a job process; RQ has a few more states, for moments."""
    return PROCESSES.get(state, Look(state.capitalize(), "circle-dashed", "neutral"))


@register.simple_tag
@cache
def icon(name: str, size: int = 14, look: str = "") -> SafeString:
    """One of lucide, for words that stand beside it; made once, because a list shows each many times."""
    return SafeString(lucide(name, size=size, aria_hidden="true", **({"class": look} if look else {})))


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
    """Under 1 ms, 420 ms, 3.2 s, 2 min 5 s, 1 h 3 min, 2 d 4 h."""
    if milliseconds is None:
        return ""
    seconds = milliseconds / 1000
    if milliseconds < 1:
        return "under 1 ms"
    if seconds < 0.9995:
        return f"{milliseconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    large, small, unit, smaller = next(scale[1:] for scale in SCALES if whole < scale[0])
    return f"{whole // large} {unit} {whole % large // small} {smaller}"


@register.filter
def latency(seconds: float | None) -> str:
    """As above, of seconds."""
    return duration(None if seconds is None else seconds * 1000)


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


@register.filter
def ago(at: datetime | None) -> SafeString:
    """How long ago; the exact time in the title (time.js turns it to the reader's zone). Lists show it in every row."""
    if not at:
        return SafeString("")
    exact = timezone.localtime(at)
    element = '<time datetime="{}" title="{} UTC">{}</time>'
    return format_html(element, exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S}", naturaltime(at))


@register.filter
def counted(at: datetime | None) -> SafeString:
    """A time that is to come, as sentences say it; time.js makes it count: "in 12 seconds"."""
    if at is None:
        return format_html("{}", describe.when(at))
    exact = at.astimezone(UTC)
    element = '<time data-counts datetime="{}" title="{} UTC">{}</time>'
    return format_html(element, exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S}", describe.when(at))


@register.filter
def counting(sentence: SafeString, at: datetime | None) -> SafeString:
    """The same within a sentence, which is escaped already."""
    return mark_safe(sentence.replace(describe.when(at), counted(at), 1)) if at else sentence  # noqa: S308 - both are escaped


@register.simple_tag
def lasted(started: datetime | None, finished: datetime | None) -> str:
    """How long it took, or how long it has taken so far; "" before the start."""
    if started is None:
        return ""
    return duration(((finished or timezone.now()) - started).total_seconds() * 1000)
