"""Pictures over time, of everything or of one agent: how many runs ended and how, how long they took, what they cost."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone

from runs import sdk
from runs.alerts import trends
from runs.alerts.measures import MEASURES

USUAL, AT_FIRST = "24h", "3h"
OF_AGENTS = ["runs_ended", "failure_rate", "escalation_rate", "correction_rate", "duration", "duration_p95", "cost", "confidence"]
OF_ALL = [*OF_AGENTS, "reviews_open", "queue"]
PARTS_FRESH, MOST_FRESH, READING = 10, timedelta(minutes=10), timedelta(seconds=20)  # the same for everybody who looks
KEPT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart; `word` names it, `tone` colours it."""

    word: str
    tone: str
    values: list[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture over time. `kind`: bars for what is counted, lines for what is measured. `said`: what it shows, in words."""

    key: str
    title: str
    unit: str
    kind: str
    lines: tuple[Line, ...]
    said: str

    @property
    def is_empty(self) -> bool:
        return not any(value for line in self.lines for value in line.values)

    def drawn(self, begins: list[int]) -> str:
        """As charts.js reads it."""
        lines = [{"word": line.word, "tone": line.tone, "values": line.values} for line in self.lines]
        return json.dumps({"unit": self.unit, "kind": self.kind, "times": begins, "lines": lines})


def shown(request: HttpRequest, subject: str = "") -> dict[str, Any]:
    """The part of the dashboard or of an agent's page: only a choice of spans until one is chosen, or the open page asks."""
    key = request.GET.get("span", "")
    if not {"span", "part"} & request.GET.keys():
        return {"spans": trends.SPANS}
    key = key if key in trends.SPANS else _usual(subject)
    return {"trends": (found := _kept(key, subject)), "are_being_read": found is None, "spans": trends.SPANS, "span": key}


def _usual(subject: str) -> str:
    """A day, as soon as there is more to show than the last hours."""
    first = cache.get_or_set(f"trends:first:{subject}", lambda: trends.first_read(subject), 60)
    return AT_FIRST if first is None or first > timezone.now() - trends.SPANS[AT_FIRST].length else USUAL


def _kept(key: str, subject: str) -> dict[str, Any] | None:
    """As it was read by whoever looked before. Of many who look when it has grown old, or is gone, one reads it anew.

    None: there is nothing, and somebody is reading it.
    """
    span, place = trends.SPANS[key], f"trends:{key}:{subject}"
    fresh = min(span.part / PARTS_FRESH, MOST_FRESH)
    kept: tuple[datetime, dict[str, Any]] | None = cache.get(place)
    if kept and kept[0] > timezone.now() - fresh:
        return kept[1]
    if not cache.add(f"{place}:reading", 1, READING.total_seconds()):
        return kept[1] if kept else None
    found = _read(span, subject)
    cache.set(place, (timezone.now(), found), KEPT.total_seconds())
    return found


def _read(span: trends.Span, subject: str) -> dict[str, Any]:
    read = trends.read(OF_AGENTS if subject else OF_ALL, span, timezone.now(), subject=subject)
    begins = [int(at.timestamp()) for at in read.begins]
    charts = [chart for chart in (*_charts(read, subject), *_of_all(read)) if not chart.is_empty]
    drawn = [{"key": one.key, "title": one.title, "said": one.said, "data": one.drawn(begins)} for one in charts]
    agents = [] if subject else [_agent(read, slug) for slug in read.subjects("runs_ended")]
    return {"charts": drawn, "agents": agents}


def _charts(read: trends.Trends, subject: str) -> list[Chart]:
    ended, rate = read.values("runs_ended", subject), read.values("failure_rate", subject)
    asked, corrected = read.values("escalation_rate", subject), read.values("correction_rate", subject)
    duration, longest = read.values("duration", subject), read.values("duration_p95", subject)
    failed = [None if one is None else one * (share or 0.0) for one, share in zip(ended, rate, strict=True)]
    cost = read.whole("cost", subject, total=True) or 0.0
    return [
        Chart(
            "ended", "Runs that ended, a minute", "", "bars",
            (Line("ended", "blue", read.a_minute(ended)), Line("of those failed", "red", read.a_minute(failed))),
            f"{sum(filter(None, ended)):,.0f} runs ended, {sum(filter(None, failed)):,.0f} of them failed",
        ),
        Chart(
            "shares", "Share of runs", "%", "lines",
            (
                Line("failed", "red", _percent(rate)), Line("asked a person", "amber", _percent(asked)),
                Line("corrected", "purple", _percent(corrected)),
            ),
            f"{_said('failure_rate', read, subject)} failed, {_said('escalation_rate', read, subject)} asked a person, "
            f"{_said('correction_rate', read, subject)} were corrected",
        ),
        Chart(
            "duration", "Duration", "s", "lines", (Line("median", "blue", duration), Line("95th percentile", "amber", longest)),
            f"{_said('duration', read, subject)} is the median, from start to end, waits for people included",
        ),
        Chart(
            "cost", "Cost", settings.CURRENCY, "bars", (Line("cost", "purple", read.values("cost", subject, total=True)),),
            f"{cost:,.2f} {settings.CURRENCY} in all",
        ),
        Chart(
            "confidence", "Confidence of steps", "", "lines", (Line("mean", "green", read.values("confidence", subject)),),
            f"{_said('confidence', read, subject)} on average",
        ),
    ]  # fmt: skip


def _of_all(read: trends.Trends) -> list[Chart]:
    lines = (Line("open reviews", "amber", read.values("reviews_open")), Line("on the queue", "blue", read.values("queue")))
    said = f"on average {_mean('reviews_open', read)} open reviews and {_mean('queue', read)} jobs on the queue"
    return [Chart("waiting", "Open reviews, and jobs on the queue", "", "lines", lines, said)]


def _percent(values: list[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _said(measure: str, read: trends.Trends, subject: str = "") -> str:
    return MEASURES[measure].said(read.whole(measure, subject))


def _mean(measure: str, read: trends.Trends) -> str:
    return f"{read.whole(measure) or 0:.1f}"


def _agent(read: trends.Trends, slug: str) -> dict[str, Any]:
    ended = read.values("runs_ended", slug)
    most = max(filter(None, ended), default=0.0)
    heights = [round(20 * (value or 0.0) / most, 1) if most else 0.0 for value in ended]
    return {
        "slug": slug,
        "title": sdk.AGENTS[slug].title if slug in sdk.AGENTS else slug,
        "is_known": slug in sdk.AGENTS,
        "ended": read.whole("runs_ended", slug),
        "failed": _said("failure_rate", read, slug),
        "asked": _said("escalation_rate", read, slug),
        "corrected": _said("correction_rate", read, slug),
        "duration": _said("duration", read, slug),
        "longest": _said("duration_p95", read, slug),
        "cost": MEASURES["cost"].said(read.whole("cost", slug)) if read.whole("cost", slug) is not None else "",
        "bars": [(4 * place, 20 - height, height) for place, height in enumerate(heights) if height],
        "width": 4 * len(heights),
    }
