"""What a person may do to a dependency: change what is wanted of it, open or close its breaker, have people decide instead."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from django.forms import model_to_dict

from runs import dispatch, escalations, event_log, requests, sdk
from runs.engine.canonical import clean
from runs.engine.events import Draft, Kind
from runs.engine.policy import Cause, Subject, policy_of
from runs.engine.state import RunState, StepState
from runs.models import BreakerChange, Dependency, Run, held
from runs.reliability import breaker, line, store, terms
from runs.requests import Refused

MOST_SENT = 500  # runs that one press of a button sends to people
MOST_WOKEN = 100  # runs of one dependency that one sweep wakes
TIDY_SECONDS = 60
MOST_FORGOTTEN = 5000  # changes of breakers, each time
KEPT_FOR, TRIES_KEPT_FOR = timedelta(days=90), timedelta(days=1)  # changes that calls brought about; those of people stay
SOON_SECONDS = 1.0  # who would wake by itself so soon is left alone


def configure(name: str, *, by: str, **changes: Any) -> Dependency:
    """Change what is wanted of it and raise its version; every process hears it within two seconds.

    What changes nothing makes no version. Raises Dependency.DoesNotExist, and django's ValidationError for a value that
    cannot be.
    """
    with transaction.atomic():
        found = Dependency.objects.select_for_update().get(name=name)
        before = model_to_dict(found)
        for field, value in changes.items():
            setattr(found, field, value)
        found.full_clean()
        if model_to_dict(found) != before:
            found.version, found.changed_by = found.version + 1, by
            found.save()
            transaction.on_commit(terms.forget)
    return found


def force(name: str, state: Literal["open", "closed"], *, by: str, reason: str, on_commit: bool = False) -> None:
    """Open its breaker until somebody closes it, or close it: from then on it goes by the calls again.

    `on_commit`: one that is opened within a transaction of the caller opens when others can see the row of it.
    Raises Refused without a reason, where it is so already, and while Redis, which keeps breakers, is away.
    """
    why = clean(reason.strip(), 300)
    if not why:
        raise Refused("Say why: those who find the breaker like this will want to know.")
    kept: BreakerChange | None = None
    try:
        with transaction.atomic():
            kept = _forced(name, state, by=by, why=why)
        if state == "open" and on_commit:
            transaction.on_commit(partial(_keep_open, kept), robust=True)
        elif state == "open":  # now that there is a row: where this comes to nothing, the sweeper does it
            _keep_open(kept)
    except store.Unavailable as error:
        what = "Nothing was changed" if kept is None else "It is recorded, and takes effect when Redis can be reached again"
        raise Refused(f"{what}: Redis keeps the breakers, and does not answer now.") from error


def _forced(name: str, state: Literal["open", "closed"], *, by: str, why: str) -> BreakerChange:
    """The row of it. One that is closed is closed at once: if the row is lost, the one that opened it opens it again."""
    found = Dependency.objects.select_for_update(no_key=True).get(name=name)
    look = breaker.look(name)
    is_held = any(change.dependency_id == found.pk for change in BreakerChange.objects.held_open())
    if is_held or _is_opened_by_hand(name) if state == "open" else look.state == "closed" and not is_held:
        raise Refused(f"The breaker of {name} is {state} already.")
    kept = BreakerChange.objects.create(dependency=found, old=look.state, new=state, why=why, by=by)
    if state == "closed":
        breaker.force(name, state, why, by)
    transaction.on_commit(terms.forget)
    return kept


# --- people instead of waiting --------------------------------------------------------------------------------------


def send_to_inbox(name: str, *, by: str, reason: str, most: int = MOST_SENT) -> int:
    """Have a person decide about each step that is held back from it, the oldest run first; how many were sent."""
    waiting = held.behind(name).order_by("pk").values_list("pk", flat=True)[: min(most, MOST_SENT)]
    return sum(_send(run_id, name, by=by, reason=clean(reason.strip(), 300)) for run_id in list(waiting))


def _send(run_id: int, name: str, *, by: str, reason: str) -> bool:
    """False where the run has moved on meanwhile, or its code no longer has the worker."""
    with event_log.locked(run_id) as log:
        step = line.held_step(log.state)
        said = held.said([Run.objects.get(pk=run_id)]).get(run_id, {})
        worker = sdk.find_worker(step.worker) if step else None
        if step is None or worker is None or said.get("dependency") != name or log.state.waiting_cause == "budget":
            return False
        why = f"{said['why']} {by} sent it to the inbox instead of waiting{f': {reason}' if reason else '.'}"
        terms = policy_of(log.state.config, step.worker)
        asked = escalations.question(worker, Cause.FAILED, Subject.OUTPUT, step=step, terms=terms, why=why)
        parked = _parked(log.state, step, escalations.until(asked))
        line.leave(log.run_id, log.state)
        log.append(Draft(Kind.STEP_ESCALATED, asked, step.position, actor=by), parked)
    return True


def _parked(state: RunState, step: StepState, deadline: datetime | None) -> Draft:
    """For the person, and for the times of its other steps."""
    asked = sorted({step.position} | {one.position for one in state.steps.values() if one.asked})
    times = [deadline, *(one.wake_at or one.deadline for one in state.steps.values() if one is not step)]
    earliest = min((time for time in times if time), default=None)
    until = {"wake_at": earliest.isoformat()} if earliest else {}
    return Draft(Kind.RUN_PARKED, {"cause": "person", "steps": asked} | until, step.position)


# --- going on afterwards ----------------------------------------------------------------------------------------------


def keep_open() -> None:
    """Open again what a person opened, and Redis has forgotten. Raises store.Unavailable."""
    for change in BreakerChange.objects.held_open():
        _keep_open(change)


def wake() -> int:
    """Wake runs that waited for what works again, was switched on again, or has other limits: how many were woken.

    In growing cohorts, so that what has just come back is not overrun. Raises store.Unavailable.
    """
    rows = Dependency.objects.in_bulk(field_name="name") if (reasons := held.reasons()) else {}
    return sum(_wake(rows[name], cause) for name, cause in reasons if name in rows)


def _keep_open(change: BreakerChange) -> None:
    name = change.dependency.name
    if _is_opened_by_hand(name):
        return
    with transaction.atomic():  # nobody opens or closes it by hand meanwhile
        Dependency.objects.select_for_update(no_key=True).get(pk=change.dependency_id)
        if change in BreakerChange.objects.held_open() and not _is_opened_by_hand(name):
            breaker.force(name, "open", change.why, change.by)


def _is_opened_by_hand(name: str) -> bool:
    """Whoever closed it is named by a closed one, too."""
    look = breaker.look(name)
    return look.state == "open" and bool(look.by)


def _wake(row: Dependency, cause: str) -> int:
    heard_at = row.changed_at + timedelta(seconds=2 * terms.FRESH_SECONDS)  # by every process
    since: datetime | None = heard_at
    limited = cause in ("limit", "slot")  # such waits end by themselves, unless an admin has changed the limit since
    if not limited:
        look = breaker.look(row.name)
        since = max(filter(None, [since, look.since])) if look.state == "closed" else None
    now = event_log.now()
    if since is None or since > now or not row.enabled:
        return 0
    cohort = min(2 ** min((now - since).total_seconds(), 30), MOST_WOKEN)
    waiting = held.behind(row.name, parked_before=heard_at if limited else None).filter(waiting_cause=cause)
    early = waiting.filter(wake_at__gt=now + timedelta(seconds=SOON_SECONDS)).order_by("pk").values_list("pk", flat=True)
    return sum(_wake_run(run_id) for run_id in list(early[: int(cohort)]))


def _wake_run(run_id: int) -> bool:
    with event_log.locked(run_id) as log:
        step = line.held_step(log.state)
        if step is None:
            return False
        log.append(Draft(Kind.RUN_WOKEN, {"reason": "What held it back is over."}, step.position))
        dispatch.enqueue(run_id, log.state.seq)
    return True


# --- now and then ---------------------------------------------------------------------------------------------------


def tidy() -> None:
    """Make the rows of what agents and adapters declare and nobody has used yet; forget what breakers did long ago."""
    if cache.add("agentops:dependencies", 1, timeout=TIDY_SECONDS):
        terms.see()
        requests.see()
        _forget()


def _forget() -> int:
    """During an outage there are two changes for each try."""
    now = event_log.now()
    tries = Q(new="half-open") | Q(old="half-open", new="open")
    old = Q(at__lt=now - KEPT_FOR) | (tries & Q(at__lt=now - TRIES_KEPT_FOR))
    found = BreakerChange.objects.filter(old, by="").order_by("pk").values_list("pk", flat=True)[:MOST_FORGOTTEN]
    return BreakerChange.objects.filter(pk__in=list(found)).delete()[0]
