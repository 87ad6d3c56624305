"""What follows from a decision about a budget, wakes the runs that it held back, and says what was spent."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings

from runs import dispatch, event_log
from runs.engine.budget import COUNTED, DAILY, DAY, Question, day_scope, run_scope, shown
from runs.engine.events import Draft, Kind
from runs.engine.state import Status
from runs.models import AgentConfig, Budget, Step, held
from runs.reliability import budget as reserved
from runs.reliability.budget import ASKING_SECONDS

MOST_WOKEN = 100  # runs of one budget that one sweep wakes
NOBODY = {"asked_run": None, "asked_step": None, "asked_at": None}
OPEN = {"closed_by": "", "closed_at": None}


# --- a person decides -----------------------------------------------------------------------------------------------


def decided(asked: Question, decision: str, value: str | None, *, run_id: int, by: str) -> None:
    """In the transaction of the decision. A limit of the run's own log has no row: the decision says it all."""
    rows = Budget.objects.filter(scope=asked["scope"], unit=asked["unit"])
    if decision == "raise" and value is not None:
        rows.filter(limit__lt=Decimal(value)).update(limit=Decimal(value))
        rows.update(**NOBODY, **OPEN)
        return
    closed = {"closed_by": by or "agentops", "closed_at": event_log.now()}
    rows.update(**NOBODY, **closed)
    if asked["scope"].startswith(DAY):  # this run alone finishes; the others wait for the next day
        Budget.objects.filter(scope=run_scope(run_id)).update(**closed)
        Budget.objects.update_or_create(
            scope=run_scope(run_id), unit="seconds", defaults=closed
        )  # also where no model was called


def retried(run_id: int) -> None:
    """The run goes on, so that it may ask again."""
    Budget.objects.filter(scope=run_scope(run_id)).update(**OPEN)


def configured(config: AgentConfig, changed: set[str]) -> None:
    """An admin has changed limits of the agent's day: they hold from now on. Those of a run hold for runs that begin."""
    reserved.forget()
    for unit in DAILY:
        if f"day_{unit}" in changed:
            today = Budget.objects.filter(scope=day_scope(config.slug, event_log.now()), unit=unit)
            today.update(limit=getattr(config, f"day_{unit}"), **OPEN)


# --- going on afterwards ----------------------------------------------------------------------------------------------


def wake() -> int:
    """Wake runs whose budget has room for them now, or is closed, and one of those about which nobody asks any more."""
    waiting = held.behind_budgets()
    found = Budget.objects.in_bulk(waiting)
    return sum(_wake(found[pk], runs) for pk, runs in waiting.items() if pk in found)


def _wake(row: Budget, runs: list[tuple[int, Decimal]]) -> int:
    if row.closed_by and row.scope.startswith(DAY):
        fitting = _fitting(row, runs)
    elif row.closed_by:
        fitting = [run_id for run_id, _ in runs]
    else:
        fitting = _fitting(row, runs) or ([] if _is_asked(row) else [runs[0][0]])
    return sum(_wake_run(run_id) for run_id in fitting[:MOST_WOKEN])


def _fitting(row: Budget, runs: list[tuple[int, Decimal]]) -> list[int]:
    """As many as have room together."""
    if row.limit is None:
        return [run_id for run_id, _ in runs]
    room, fitting = row.limit - row.used - row.reserved, []
    for run_id, needs in runs:
        if needs <= room:
            room -= needs
            fitting.append(run_id)
    return fitting


def _is_asked(row: Budget) -> bool:
    if row.asked_at is None or row.asked_step is None:
        return False
    asks = Step.objects.filter(run=row.asked_run, position=row.asked_step, status=Status.WAITING, cause="budget")
    return (event_log.now() - row.asked_at).total_seconds() < ASKING_SECONDS or asks.exists()


def _wake_run(run_id: int) -> bool:
    with event_log.locked(run_id) as log:
        state = log.state
        step = state.steps.get(state.waiting_step or 0)
        is_held = state.status == Status.WAITING and state.waiting_cause == "budget"
        if not (is_held and step and step.status == Status.RETRYING):
            return False
        log.append(Draft(Kind.RUN_WOKEN, {"reason": "Its budget was decided about, or has room again."}, step.position))
        dispatch.enqueue(run_id, log.state.seq)
    return True


# --- what pages say ---------------------------------------------------------------------------------------------------


def spent_by_run(run_id: int) -> list[str]:
    """ "0.42 of 2.00 USD", "12,300 of 50,000 tokens", "7 of 20 calls"; nothing where no model was called."""
    return _spent(run_scope(run_id))


def spent_today(slug: str, now: datetime | None = None) -> list[str]:
    """The same of all runs of an agent together, since midnight UTC."""
    return _spent(day_scope(slug, now or event_log.now()))


def _spent(scope: str) -> list[str]:
    rows = {row.unit: row for row in Budget.objects.filter(scope=scope)}
    calls, money, seconds = (rows.get(unit) for unit in ("calls", "money", "seconds"))
    worked = [_line(seconds)] if seconds and (seconds.used or seconds.reserved) else []
    if calls is None or not (calls.used or calls.reserved):
        return worked
    lines = [_line(rows[unit]) for unit in COUNTED if unit in rows]
    if money and not money.used:
        lines[0] += " (price unknown)"
    return lines + worked


def _line(row: Budget) -> str:
    used, work = shown(row.unit, row.used, settings.CURRENCY), " of work" if row.unit == "seconds" else ""
    if row.limit is None:
        return used + work
    return f"{used.partition(' ')[0]} of {shown(row.unit, row.limit, settings.CURRENCY)}{work}"
