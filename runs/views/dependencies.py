"""The systems outside: how each does now, what waits for it, who changed what, and the buttons that steer it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from runs import access, dependencies
from runs.models import Dependency, held, versions
from runs.models.dependency import CHANGEABLE
from runs.reliability import breaker, slots, store, terms, waits
from runs.reliability.reading import Reading, readings
from runs.requests import Refused
from runs.templatetags.shown import Look

RUNS_SHOWN = 20
HOLDERS_SHOWN = 20
CHANGES_SHOWN = 12
MINUTES_SHOWN = 8
CHART_HEIGHT = 40
AWAY = "Redis cannot be reached, which keeps breakers, limits and slots: what is shown here is only what PostgreSQL has."
STATES = {
    "closed": Look("Closed", "circle-check", "green"),
    "open": Look("Open", "circle-x", "red"),
    "half-open": Look("Half-open", "circle-dashed", "amber"),
    "ramp": Look("Closed, recovering", "trending-up", "blue"),
    "off": Look("Switched off", "ban", "neutral"),
    "unknown": Look("Not known", "circle-question-mark", "neutral"),
}
SAID = {  # what an admin may change, in words
    "enabled": "Switched on",
    "connect_timeout_seconds": "Seconds to connect",
    "read_timeout_seconds": "Seconds to read",
    "attempt_timeout_seconds": "Seconds for a call in all",
    "limit_requests": "Requests per period",
    "limit_period_seconds": "Seconds of the period",
    "limit_tokens_per_minute": "Tokens a minute",
    "concurrency": "Calls at once",
    "breaker_failure_ratio": "Share of failures at which the breaker opens",
    "breaker_minimum_calls": "Fewest calls on which the breaker opens",
    "breaker_window_seconds": "Seconds in which the breaker counts calls",
    "breaker_open_seconds": "Seconds until an open breaker lets one call try",
    "retry_attempts": "Attempts of a step",
    "retry_first_wait_seconds": "Seconds of the longest first wait",
    "retry_longest_wait_seconds": "Seconds of the longest wait",
    "retry_total_seconds": "Seconds after which no attempt begins",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of the chart; heights of its calls and of those that failed, which stand at its foot."""

    minute: breaker.Minute
    x: int
    calls: float
    failures: float

    @property
    def top(self) -> float:
        return CHART_HEIGHT - self.calls

    @property
    def failures_top(self) -> float:
        return CHART_HEIGHT - self.failures


@dataclass(slots=True)
class Present:
    """A dependency as it is now. `reading` is None while Redis is away."""

    row: Dependency
    held: int
    reading: Reading | None = None

    @property
    def look(self) -> breaker.Look | None:
        return self.reading.look if self.reading else None

    @property
    def minutes(self) -> list[breaker.Minute]:
        return self.reading.minutes if self.reading else []

    @property
    def holders(self) -> list[tuple[int | None, str, slots.Holder]]:
        """With the run and the step of each."""
        held_by = self.reading.holders if self.reading else ()
        return [(*waits.step_of(one.name), one) for one in held_by[:HOLDERS_SHOWN]]

    @property
    def more_holders(self) -> int:
        return self.reading.slots_held - len(self.holders) if self.reading else 0

    @property
    def state(self) -> Look:
        """By word and shape."""
        if not self.row.enabled:
            return STATES["off"]
        if self.look is None:
            return STATES["unknown"]
        return STATES["ramp" if self.look.state == "closed" and self.look.ramp else self.look.state]

    @property
    def is_calm(self) -> bool:
        """Nothing about it needs to be looked at."""
        return self.state is STATES["closed"] and not self.held

    @property
    def version(self) -> str:
        """Of what may be done about it."""
        return f"{self.row.version}-{self.held}"

    @property
    def latest(self) -> breaker.Minute | None:
        """The newest minute with calls."""
        return next((minute for minute in reversed(self.minutes) if minute.calls), None)

    @property
    def last_minutes(self) -> list[breaker.Minute]:
        """The newest with calls, or with calls that were held back."""
        return [minute for minute in reversed(self.minutes) if minute.calls or minute.held_back][:MINUTES_SHOWN]

    @property
    def bars(self) -> list[Bar]:
        scale = CHART_HEIGHT / (self.most_calls or 1)
        return [
            Bar(one, 5 * x, round(one.calls * scale, 1), round(one.failures * scale, 1)) for x, one in enumerate(self.minutes)
        ]

    @property
    def most_calls(self) -> int:
        return max((minute.calls for minute in self.minutes), default=0)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed: of the breaker, or of what is wanted."""

    at: datetime
    by: str
    what: list[str]


@require_GET
@access.permits(access.may_look)
def dependency_list(request: HttpRequest) -> HttpResponse:
    """`?part=now` answers with the table alone, for the page that is open."""
    rows = present()
    away = "" if not rows or rows[0].reading else AWAY
    template = "dependencies/_table.html" if request.GET.get("part") == "now" else "dependencies/list.html"
    return render(request, template, {"rows": rows, "away": away})


@require_GET
@access.permits(access.may_look)
def dependency(request: HttpRequest, name: str) -> HttpResponse:
    """`?part=now` answers with what changes by itself, `?part=actions` with what may be done, unless that is `shown` already."""
    row = _row(name)
    may: dict[str, Any] = {
        "may_control": access.may_control(request.user),
        "may_switch": access.may_switch(request.user),
        "most_sent": dependencies.MOST_SENT,
    }
    if request.GET.get("part") == "actions":
        now = Present(row, held.behind(name).count())
        if request.GET.get("shown") == now.version:
            return HttpResponse(status=204)
        return render(request, "dependencies/_actions.html", may | {"now": now})
    waiting = list(held.behind(name).order_by("pk")[:RUNS_SHOWN])
    said = held.said(waiting)
    shown = may | {
        "now": Present(row, held.behind(name).count(), _readings(row).get(name)),
        "waiting": [(run, said.get(run.pk, {})) for run in waiting],
        "changes": _changes(row),
    }
    shown["more_waiting"] = shown["now"].held - len(waiting)
    shown["away"] = "" if shown["now"].reading else AWAY
    return render(request, "dependencies/_now.html" if request.GET.get("part") == "now" else "dependencies/one.html", shown)


# --- what a person does -----------------------------------------------------------------------------------------------

UNSAID = "Nothing was done: the form did not say what is wanted. Use the buttons of this page."


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def force_breaker(request: HttpRequest, name: str) -> HttpResponse:
    """Open or close it, with a reason."""
    states: dict[str, Literal["open", "closed"]] = {"open": "open", "closed": "closed"}
    state, reason = states.get(request.POST.get("state", "")), request.POST.get("reason", "")

    def act(by: str) -> str:
        if state is None:
            raise Refused(UNSAID)
        dependencies.force(name, state, by=by, reason=reason)
        return f"The breaker of {name} is {state} now."

    return _acted(request, name, act)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_switch)
def switch_dependency(request: HttpRequest, name: str) -> HttpResponse:
    """Switch it off, or on again."""
    wanted = request.POST.get("enabled")
    enabled = wanted == "on"

    def act(by: str) -> str:
        if wanted not in ("on", "off"):
            raise Refused(UNSAID)
        dependencies.configure(name, by=by, enabled=enabled)
        then = "runs that waited for it go on" if enabled else "runs that need it wait"
        return f"{name} is switched {'on' if enabled else 'off'}: {then}."

    return _acted(request, name, act)


@require_http_methods(["GET", "POST"])
@access.permits(access.may_control)
def send_to_inbox(request: HttpRequest, name: str) -> HttpResponse:
    """Have people decide about what waits for it; as many as the page showed."""
    shown = request.POST.get("count", "")
    most = int(shown) if shown.isascii() and shown.isdigit() and len(shown) < 7 else 0

    def act(by: str) -> str:
        sent = dependencies.send_to_inbox(name, by=by, reason=request.POST.get("reason", ""), most=most)
        if not sent:
            raise Refused(f"Nothing waits for {name} any more.")
        return f"{sent} {'run is' if sent == 1 else 'runs are'} in the inbox now."

    return _acted(request, name, act)


def _acted(request: HttpRequest, name: str, act: Callable[[str], str]) -> HttpResponse:
    row = _row(name)
    if request.method == "GET":
        messages.info(request, access.ONLY_OPENED)
        return redirect("dependency", row.name)
    if row._state.adding:  # nobody has called it yet
        terms.see()
    try:
        messages.success(request, act(request.user.get_username()))
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("dependency", row.name)


# --- what is shown ----------------------------------------------------------------------------------------------------


def present() -> list[Present]:
    """All of them as they are now, by name."""
    counts, found = held.counts(), terms.rows()
    read = _readings(*found)
    return [Present(row, counts.get(row.name, 0), read.get(row.name)) for row in found]


def _readings(*rows: Dependency) -> dict[str, Reading]:
    """Nothing while Redis is away."""
    try:
        return readings({row.name: terms.read(row).limits for row in rows})
    except store.Unavailable:
        return {}


def _row(name: str) -> Dependency:
    if (found := terms.row(name)) is None:
        raise Http404(f"There is no dependency {name}.")
    return found


def _changes(row: Dependency) -> list[Change]:
    """Of the breaker and of what is wanted, the newest first."""
    if row._state.adding:
        return []
    told = row.changes.exclude(new="half-open").exclude(old="half-open", new="open")  # an outage has one try after the other
    breakers = [Change(one.at, one.by, [f"breaker {one.old} → {one.new}: {one.why}"]) for one in told[:CHANGES_SHOWN]]
    wanted = [
        Change(one.pgh_created_at, one.pgh_data["changed_by"], what)
        for one in versions.versions(row, most=CHANGES_SHOWN)
        if (what := [f"{SAID[name]}: {before} → {after}" for name, before, after in versions.changes(one, CHANGEABLE)])
    ]
    return sorted([*breakers, *wanted], key=lambda change: change.at, reverse=True)[:CHANGES_SHOWN]
