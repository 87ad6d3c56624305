"""What a rule means for a series, the rules that ship, and how one is changed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError

from runs import clock, sdk
from runs.alerts import readings
from runs.alerts.measures import MEASURES, MINUTE, Measure
from runs.engine import anomaly
from runs.engine.anomaly import Hours, Kind, Outcome, Side, Terms, Verdict
from runs.models import AlertChannel, AlertRule, Round, versions
from runs.models.alert import EACH
from runs.reliability import terms as outside

PREVIEW = timedelta(days=7)
BASELINE = timedelta(days=28)
DAY = timedelta(days=1)
LATE_SECONDS = 180  # of a round, which there is every minute
LONGER_THAN_HOURS = "A window of a day is longer than these hours: choose a shorter one, or leave both times empty."
NONE_WITHIN = "No window lies within these hours, so nothing would ever be judged: choose longer hours or a shorter window."
DAYS = datetime(2026, 1, 14, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)  # Wednesdays, in winter and in summer
BUILT_IN: tuple[dict[str, Any], ...] = (
    {"built_in": "reviews-late", "name": "A review is overdue", "measure": "reviews_late"},
    {"built_in": "sweeper", "name": "The sweeper is missing", "measure": "sweeper", "side": "below", "limit": 1,
     "breaches": 2, "of": 3},
    {"built_in": "job-processes", "name": "No job process is alive", "measure": "job_processes", "side": "below", "limit": 1,
     "breaches": 2, "of": 3},
    {"built_in": "redis", "name": "Redis does not answer", "measure": "redis", "side": "below", "limit": 1,
     "breaches": 2, "of": 3},
    {"built_in": "monitoring", "name": "A part of the monitoring fails", "measure": "failed_parts", "breaches": 2, "of": 3},
    {"built_in": "queue", "name": "The queue grows", "measure": "queue", "kind": "change", "limit": 100, "least_value": 200,
     "back": 10, "breaches": 3, "of": 5},
    {"built_in": "breaker", "name": "A breaker is open", "measure": "breaker_open", "subject": EACH, "breaches": 2, "of": 3},
    {"built_in": "failures", "name": "Unusually many runs of an agent fail", "measure": "failure_rate", "subject": EACH,
     "kind": "anomaly", "limit": 6, "least_value": 0.2, "least_count": 10},
    {"built_in": "cost", "name": "Runs of an agent are unusually expensive", "measure": "cost", "subject": EACH,
     "kind": "anomaly", "limit": 6, "least_count": 10},
    {"built_in": "quarantine", "name": "A step ended its process", "measure": "quarantined"},
    {"built_in": "verification", "name": "A verification failed", "measure": "broken_logs"},
    {"built_in": "retention", "name": "Retention did not come to its end", "measure": "retention_missed"},
    {"built_in": "database", "name": "The database is large", "measure": "database_bytes", "limit": 50e9},
)  # fmt: skip


def unwatched(kept: Round | None) -> str:
    """Why nobody can rely on what the alerts say: "" while rounds end in time."""
    if kept is None or kept.ended_at is None:
        return "no round of the alert rules has ended yet"
    late = (clock.now() - kept.ended_at).total_seconds()
    return "" if late < LATE_SECONDS else f"the alert rules were last judged {late / 60:.0f} minutes ago"


def ensure_built_in() -> None:
    """Those that are not there yet: what an admin made of the others stays."""
    known = set(AlertRule.objects.exclude(built_in=None).values_list("built_in", flat=True))
    missing = [AlertRule(**terms) for terms in BUILT_IN if terms["built_in"] not in known]
    AlertRule.objects.bulk_create(missing, ignore_conflicts=True)


def configure(pk: int | None = None, *, by: str, **changes: Any) -> AlertRule:
    """Make a rule, or change one and raise its version. What changes nothing makes no version.

    Raises AlertRule.DoesNotExist, and django's ValidationError, which names the field.
    """
    return versions.configure(AlertRule, pk, by=by, changes=changes, check=check)


def check(row: AlertRule) -> None:
    """What the code must know of it. Raises ValidationError."""
    measure = MEASURES.get(row.measure)
    if measure is None:
        raise ValidationError({"measure": "There is no such measure."})
    if row.subject and not measure.of:
        raise ValidationError({"subject": f"{measure.title} is of everything together: leave this empty."})
    if not row.subject and measure.of == "dependency":
        raise ValidationError({"subject": "Choose each dependency by itself, or one."})
    if row.subject not in ("", EACH) and row.subject not in _subjects(measure):
        raise ValidationError({"subject": f"{measure.title} is not read of this. Choose {A[measure.of]}."})
    if row.kind == Kind.ABSENCE and not measure.adds_up:
        raise ValidationError({"kind": "Only what is counted, as runs that ended, can stay at zero."})
    if row.kind == Kind.THRESHOLD and measure.unit == "share" and row.limit is not None and row.limit > 1:
        raise ValidationError({"limit": f"{measure.title} is from 0 to 1: for {row.limit:g} % write {row.limit / 100:g}."})
    if row.hours_from is not None:
        row.clean_fields()
        if window_of(row, measure) >= DAY:
            raise ValidationError({"hours_from": LONGER_THAN_HOURS})
        if not _is_ever_judged(row):
            raise ValidationError({"hours_from": NONE_WITHIN})
    _check_act(row, measure)
    unknown = set(row.channels) - set(AlertChannel.objects.filter(pk__in=row.channels).values_list("pk", flat=True))
    if unknown:
        raise ValidationError({"channels": "One of these channels is gone. Choose anew."})


def _is_ever_judged(row: AlertRule) -> bool:
    """Some window of a day lies within its hours."""
    terms = terms_of(row)
    ends = (day + place * terms.window for day in DAYS for place in range(1, DAY // terms.window + 1))
    return terms.hours is None or any(terms.hours.cover(end, terms.window) for end in ends)


A = {"agent": "an agent", "dependency": "a dependency"}


def _subjects(measure: Measure) -> set[str]:
    return set(sdk.AGENTS) if measure.of == "agent" else {one.name for one in outside.rows()}


ON: Mapping[str, str] = {
    AlertRule.Act.PAUSE_AGENT: "agent",
    AlertRule.Act.LOWER_LIMIT: "dependency",
    AlertRule.Act.OPEN_BREAKER: "dependency",
}


def _check_act(row: AlertRule, measure: Measure) -> None:
    if not row.act:
        row.act_on, row.act_limit = "", None
    elif row.act in ON and not row.act_on and (measure.of != ON[row.act] or not row.subject):
        raise ValidationError({"act_on": f"Say which {ON[row.act]}: the alert is about none."})
    elif ON.get(row.act) == "agent" and row.act_on and row.act_on not in sdk.AGENTS:
        raise ValidationError({"act_on": f"There is no such agent. Known: {', '.join(sorted(sdk.AGENTS)) or 'none'}."})


# --- of a series ----------------------------------------------------------------------------------------------------


def window_of(row: AlertRule, measure: Measure) -> timedelta:
    """What is read each minute is judged each minute, unless it is compared with weeks."""
    by_the_minute = measure.is_gauge and row.kind != Kind.ANOMALY
    return MINUTE if by_the_minute else timedelta(minutes=row.window_minutes)


def terms_of(row: AlertRule) -> Terms:
    measure = MEASURES[row.measure]
    start, end = row.hours_from, row.hours_until
    limits_hours = row.weekdays_only or (start is not None and end is not None)
    hours = Hours(zone=row.zone, weekdays_only=row.weekdays_only)
    if start is not None and end is not None:
        hours = Hours(start, end, row.zone, row.weekdays_only)
    return Terms(
        Kind(row.kind), window_of(row, measure), Side(row.side), row.limit, row.least_value, row.least_count, row.back,
        int(BASELINE / window_of(row, measure)), row.breaches, row.of, hours if limits_hours else None,
    )  # fmt: skip


def verdicts(
    row: AlertRule, now: datetime, *, over: timedelta | None = None, only: str | None = None
) -> dict[str, list[Verdict]]:
    """Subject -> the newest windows that are over, judged: as many as the evaluation needs, or all that lie `over` so much time.

    Evaluation and preview ask here alone. `only`: of this one of its subjects.
    """
    measure, terms, kept = MEASURES[row.measure], terms_of(row), Round.objects.first()
    newest = terms.of if over is None else int(over / terms.window)
    before = {Kind.ANOMALY: terms.history, Kind.CHANGE: terms.back}.get(terms.kind, 0)
    found = readings.series(
        measure, subject=row.subject if only is None else only, until=_until(measure, terms, kept, now), window=terms.window,
        windows=newest + before, known_since=kept.read_since if kept else None,
    )  # fmt: skip
    return {subject: anomaly.judge(points, terms, newest=newest) for subject, points in found.items()}


def judged_then(row: AlertRule, subject: str, *, since: datetime, until: datetime) -> list[Verdict]:
    """A subject's windows between, each judged by the version of the rule that was in force at its end."""
    found = list[Verdict]()
    for then, begin, end in versions.in_force(row, since, until):
        if then.measure == row.measure:
            judged = verdicts(then, end, over=end - begin + terms_of(then).window, only=subject).get(subject, [])
            found += [one for one in judged if begin < one.point.at and (end == until or one.point.at <= end)]
    return found


def _until(measure: Measure, terms: Terms, kept: Round | None, now: datetime) -> datetime:
    """The end of the last window: one is judged when it is over, and windows lie where they lay when it was asked before."""
    if terms.window <= MINUTE:
        return readings.floor(now, MINUTE) + MINUTE  # what is there is read as a minute begins
    read_until = kept.read_until if kept and not measure.is_gauge else None
    return readings.floor(min(now, read_until or now), terms.window)


# --- as a sentence --------------------------------------------------------------------------------------------------


def sentence(row: AlertRule, verdict: Verdict) -> str:
    """What is wrong and how bad."""
    measure, score = MEASURES[row.measure], verdict.score or 0
    value, expected = measure.said(verdict.point.value), measure.said(verdict.expected)
    match Kind(row.kind):
        case Kind.ABSENCE:
            said = f"none in {_window(row)}"
        case Kind.THRESHOLD if measure.unit == "yes":
            said = value
        case Kind.THRESHOLD:
            said = f"{value}, {'over' if row.side == Side.ABOVE else 'under'} the limit of {expected}"
        case Kind.CHANGE:
            said = f"{value}, {'from none' if math.isinf(score) else f'{score:+,.0f} % from {expected}'}"
        case Kind.ANOMALY:
            said = f"{value}, where {expected} is usual (robust z-score {score:,.1f})"
    return f"{measure.title}: {said}"


def _window(row: AlertRule) -> str:
    return f"the last {row.get_window_minutes_display()}".replace("the last an ", "the last ").replace("the last a ", "the last ")


# --- what it would have done ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """One subject of a preview: what was judged, and when an alert would have been open."""

    subject: str
    verdicts: list[Verdict]
    openings: list[tuple[datetime, datetime | None]]

    @property
    def has_data(self) -> bool:
        return self.data_since is not None

    @property
    def data_since(self) -> datetime | None:
        """When the first window ended of which anything is known."""
        return next((one.point.at for one in self.verdicts if one.point.value is not None), None)

    @property
    def is_judged(self) -> bool:
        return any(one.outcome in (Outcome.BREACH, Outcome.CALM) for one in self.verdicts)


def preview(row: AlertRule, now: datetime) -> list[Tried]:
    """The last week, judged by the very functions of the evaluation."""
    terms = terms_of(row)
    judged = verdicts(row, now, over=PREVIEW)
    return [Tried(subject, one, list(anomaly.openings(one, terms))) for subject, one in judged.items()]


def preview_sentence(tried: list[Tried], row: AlertRule) -> str:
    """How often it would have fired, or why nobody can say."""
    if not any(one.has_data for one in tried):
        return "Nothing was read of this in the last week, so there is nothing to try it on."
    times = sum(len(one.openings) for one in tried)
    if not times and not any(one.is_judged for one in tried):
        return f"Nothing of the last week could be judged. {_needs(row)}"
    said = f"It would {'have fired' if times else 'not have fired'}{f' {_times(times)}' if times else ''} in the last week."
    since = min(at for one in tried if (at := one.data_since))
    week = tried[0].verdicts[-1].point.at - since + terms_of(row).window
    return said if week > PREVIEW / 2 else f"{said} Of that week only the last {_spell(week)} are known: nothing was read before."


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def _spell(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours > 48 else f"{hours:.0f} hours" if hours > 2 else f"{60 * hours:.0f} minutes"


def _needs(row: AlertRule) -> str:
    """What a window must have, so that it is judged."""
    terms = terms_of(row)
    found = [f"A window counts with {row.least_count:,} runs or more."] if row.least_count > 1 else []
    if terms.kind == Kind.ANOMALY:
        least = anomaly.least_history(terms.window)
        found.append(f"What is usual is known after {least} windows: {_spell(least * terms.window)}.")
    elif terms.kind == Kind.CHANGE:
        found.append("A change needs an earlier window that counts.")
    if terms.hours:
        found.append("Outside its hours nothing is judged.")
    return " ".join(found)
