"""The only writer and reader of events: checks the cursor and the fence, appends, projects and announces."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Substr

from runs import live, pen, signals
from runs.clock import looked_at_clock as looked_at_clock
from runs.clock import now as now
from runs.engine.canonical import INLINE_LETTERS, Large, dumps, normalise, put_back, set_apart
from runs.engine.events import GENESIS, Draft, Fact, Kind, write
from runs.engine.state import CHANGE_EVERY_STEP, RunState, StepState, apply, fold
from runs.models import Run, Step
from runs.models.event import Event, Payload
from runs.projections import Write, birth_of, run_columns, step_columns, write_of


class LeaseLost(Exception):
    """Another process advances this run now, or it has ended: this one may write nothing more."""


class CancelRequested(Exception):
    """Somebody asked to cancel the run since it was last read; nothing of this append was written."""


class DecisionRevoked(Exception):
    """A decision that this pass went on from was taken back at the last moment; nothing of this append was written."""


class RunLog:
    """The log of one run with the state it folds to. With a `fence`, it writes only while that lease is held."""

    def __init__(self, run_id: int, state: RunState, fence: int | None = None) -> None:
        self.run_id, self.state, self.fence = run_id, state, fence
        self.must_wait = False  # it has not begun, and as many reviews of its agent are open as may be
        self.relies_on: dict[int, datetime] = {}  # steps whose decision has become effective in this pass, and since when

    @classmethod
    def load(cls, run_id: int, *, fence: int | None = None) -> Self:
        """Read every event of the run and fold it."""
        return cls(run_id, fold(whole(run_id, facts(run_id))), fence)

    def append(self, *drafts: Draft, release: bool = False, may_wait: Callable[[], bool] = pen.never) -> None:
        """Write the drafts in one statement with their projections; `release` gives the lease back with it.

        While the database is away and `may_wait()`, it is tried again: what was written and not answered is not written twice.
        Raises LeaseLost when the lease is no longer held, CancelRequested or DecisionRevoked when somebody wrote that meanwhile.
        """
        while drafts and not self._try(drafts, release, may_wait):
            pen.patiently(self._catch_up, may_wait)

    def append_last(self, drafts_of: Callable[[RunState], Sequence[Draft]]) -> None:
        """Append what follows from the state as it is at that very moment, and give the lease back. Raises LeaseLost."""
        while not self._try(drafts_of(self.state), True, pen.never):
            with suppress(CancelRequested, DecisionRevoked):
                self._catch_up()

    def _try(self, drafts: Sequence[Draft], release: bool, may_wait: Callable[[], bool]) -> bool:
        before, kept = self.state, _before(self.state, drafts)
        self.state = before.copy()  # its steps are the same dict, in which `kept` can be put back
        try:
            written, asked = self._fold_in(drafts, before.seq, release)
            if not self._write_in_the_end(asked, written, may_wait):
                return _put_back(self, before, kept)
        except BaseException:
            _put_back(self, before, kept)
            raise
        return True

    def _write_in_the_end(self, asked: Write, written: list[Fact], may_wait: Callable[[], bool]) -> bool:
        """The very same events each time, so that those of an earlier try are found by the hash of the last."""
        tries = 0

        def write_() -> bool:
            nonlocal tries
            tries += 1
            return self._write(asked, written) or (tries > 1 and self._stands(written))

        return pen.patiently(write_, may_wait)

    def _stands(self, written: list[Fact]) -> bool:
        last = written[-1]
        stands = Event.objects.filter(run_id=self.run_id, seq=last.seq, hash=last.hash).exists()
        if stands:
            self._announce(written)
        return stands

    def _fold_in(self, drafts: Sequence[Draft], cursor: int, release: bool) -> tuple[list[Fact], Write]:
        """The drafts as facts in their place, folded into the state, and what is to be written."""
        state, apart = self.state, dict[str, str]()
        written: list[tuple[Fact, str]] = []
        for given in drafts:
            draft, text, values = _outlined_draft(given)
            apart |= values
            at = max(now(), state.last_at + datetime.resolution) if state.last_at else now()
            fact = write(draft, run_id=self.run_id, seq=state.seq + 1, at=at, prev_hash=state.head_hash or GENESIS, text=text)
            apply(state, fact)
            written.append((fact, text))
        return [fact for fact, _ in written], write_of(self.run_id, cursor, self.fence, state, written, apart, release=release)

    def _write(self, asked: Write, written: list[Fact]) -> bool:
        """One statement is a transaction of its own; only large values, and what reviews must be told of, need a longer one."""
        if not (asked.payloads or _concerns_reviews(written)):
            if done := pen.write(asked):
                self._announce(written)
            return done
        with transaction.atomic():
            if not pen.write(asked):
                return False
            pen.keep(asked)
            _tell_reviews(self.run_id, self.state, written)
            self._announce(written)
        return True

    def _announce(self, written: Sequence[Fact] = ()) -> None:
        run_id, seq, state = self.run_id, self.state.seq, self.state

        def announce() -> None:
            live.nudge(run_id, seq)
            if signals.written.receivers:
                signals.written.send_robust(sender=RunLog, run_id=run_id, state=state, facts=written)

        pen.after_commit(announce)

    def _catch_up(self) -> None:
        """Somebody else wrote: read it, and see whether this process may go on."""
        was_cancelled = self.state.cancel_requested
        self.state = fold(whole(self.run_id, facts(self.run_id)))
        held = Run.objects.filter(pk=self.run_id, fence=self.fence or 0, lease_until__isnull=False).exists()
        if not held or self.state.ended:
            raise LeaseLost(f"run {self.run_id} is advanced by another process, or has ended")
        if self.state.cancel_requested and not was_cancelled:
            raise CancelRequested
        if any(self.state.steps[position].effective_at != at for position, at in self.relies_on.items()):
            raise DecisionRevoked


def create(draft: Draft) -> RunLog:
    """Insert a run with its first event, RunRequested, in one transaction."""
    return create_all([draft])[0]


def create_all(drafts: Sequence[Draft]) -> list[RunLog]:
    """Insert a run for each of the drafts with its first event, in one transaction and one statement for each hundred or so."""
    with transaction.atomic(savepoint=False):
        at, numbers = now(), pen.execute(NUMBERS, {"count": len(drafts)})
        logs, asked = [], []
        for (run_id,), draft in zip(numbers, drafts, strict=True):
            outlined_, text, values = _outlined_draft(replace(draft, data=normalise(draft.data)))
            fact = write(outlined_, run_id=run_id, seq=1, at=at, prev_hash=GENESIS, text=text)
            logs.append(RunLog(run_id, fold([fact])))
            asked.append(birth_of(run_id, logs[-1].state, (fact, text), values))
        for first in range(0, len(asked), CREATED_TOGETHER):
            pen.create_together(asked[first : first + CREATED_TOGETHER])
        for log in logs:
            log._announce()
    return logs


NUMBERS = "SELECT nextval(pg_get_serial_sequence('runs_run', 'id')) FROM generate_series(1, %(count)s)"
CREATED_TOGETHER = 100


def _outlined_draft(draft: Draft) -> tuple[Draft, str, dict[str, str]]:
    """The draft, the canonical text of its data as it is chained, and its large values by their hash."""
    text = dumps(draft.data)
    if len(text) <= INLINE_LETTERS:
        return draft, text, {}
    stub, values = set_apart(draft.data)
    return replace(draft, data=draft.data | {"large": stub["large"]}), dumps(stub), values


@contextmanager
def locked(run_id: int, *, is_locked: bool = False) -> Iterator[RunLog]:
    """One transaction with the run's row locked: what is read stays true until the block has ended.

    `is_locked`: the transaction around it has locked the row already. Raises Run.DoesNotExist for an unknown run.
    """
    with pen.certain():
        if not is_locked and not pen.execute(LOCK, {"run_id": run_id}):
            raise Run.DoesNotExist(f"There is no run {run_id}.")
        yield RunLog.load(run_id)


LOCK = "SELECT id FROM runs_run WHERE id = %(run_id)s FOR UPDATE"


def reproject(run_id: int) -> None:
    """Make the rows of the run and its steps again from its events; what coordinates processes stays."""
    with locked(run_id) as log:
        Step.objects.filter(run_id=run_id).delete()
        Run.objects.filter(pk=run_id).update(**run_columns(log.state))
        Step.objects.bulk_create(Step(run_id=run_id, **step_columns(step)) for step in log.state.steps.values())


def state(run_id: int, *, until: int | None = None) -> RunState:
    """What the run was as of its event `until`, or is now: the fold of its events up to there."""
    return fold(whole(run_id, [fact for fact in facts(run_id) if until is None or fact.seq <= until]))


def rows(run_id: int, *, after: int = 0) -> QuerySet[Event]:
    """Events of the run beyond the cursor `after`, in order."""
    return Event.objects.filter(run_id=run_id, seq__gt=after).order_by("seq")


def facts(run_id: int, *, after: int = 0) -> list[Fact]:
    """The same as values, as they are chained: a large value of their data is None, and "large" says which it is."""
    found = pen.execute(FACTS, {"run_id": run_id, "after": after})
    return [_fact(*columns) for columns in found]


FACTS = """
SELECT seq, kind, data, step, actor, at, prev_hash, hash FROM runs_event
WHERE run_id = %(run_id)s AND seq > %(after)s ORDER BY seq
"""


def _fact(seq: int, kind: str, data: str, *others: Any) -> Fact:
    return Fact(seq, kind, json.loads(data), *others)


def whole(run_id: int, found: list[Fact]) -> list[Fact]:
    """The facts with their large values."""
    hashes = {one["hash"] for fact in found for one in fact.data.get("large", {}).values()}
    if not hashes:
        return found
    kept = Payload.objects.filter(run_id=run_id, hash__in=hashes).values_list("hash", "body")
    values = {hash_: json.loads(body) for hash_, body in kept}
    return [fact._replace(data=put_back(fact.data, values)) for fact in found]


def outlined(run_id: int, found: Iterable[Fact]) -> list[Fact]:
    """The facts for a page: where a large value is, a Large says how large."""
    return [_outlined(run_id, fact) for fact in found]


def _outlined(run_id: int, fact: Fact) -> Fact:
    large = {key: Large(run_id, one["hash"], one["bytes"]) for key, one in fact.data.get("large", {}).items()}
    return fact._replace(data=fact.data | large) if large else fact


def payload_slice(run_id: int, hash_: str, place: int, letters: int) -> str | None:
    """So many letters of the canonical JSON text of a large value, from this place (the first is 1); None without the value."""
    found = Payload.objects.filter(run_id=run_id, hash=hash_).annotate(part=Substr("body", place, letters))
    return found.values_list("part", flat=True).first()


def with_payloads(run_id: int, steps: Iterable[Step]) -> list[Step]:
    """The steps of one run, each with `input`, `output` and `proposal` as its events left them (a Large where one is large)."""
    found = list(steps)
    told = rows(run_id).filter(step__in=[step.position for step in found]).exclude(kind=Kind.ATTEMPT_STARTED)
    state = fold(outlined(run_id, (as_fact(row) for row in told)))
    for step in found:
        said = state.steps[step.position]
        step.input, step.output, step.proposal = said.input, said.output, said.proposal
    return found


def last_said(run_ids: Iterable[int], kind: Kind) -> dict[tuple[int, int], dict[str, Any]]:
    """What the last event of this kind says of each step of these runs: (run, step) -> its data."""
    found = Event.objects.filter(run_id__in=list(run_ids), kind=kind).order_by("run_id", "seq")
    return {(run, step or 0): data for run, step, data in found.values_list("run_id", "step", "data")}


def missing(run_id: int) -> list[dict[str, Any]]:
    """What a run was completed without: step, title and note of each."""
    found = rows(run_id).filter(kind=Kind.RUN_SUCCEEDED).values_list("data__missing", flat=True).last()
    return found or []


def as_fact(row: Event) -> Fact:
    return Fact(row.seq, row.kind, row.data, row.step, row.actor, row.at, row.prev_hash, row.hash)


# --- the lease: who advances a run ------------------------------------------------------------------------------

TAKE = """
WITH taken AS (
  UPDATE runs_run AS run
  SET lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8),
    fence = run.fence + 1, lost_owner = CASE before.lease_owner WHEN '' THEN run.lost_owner ELSE before.lease_owner END
  FROM (SELECT id, lease_owner FROM runs_run WHERE id = %(run_id)s FOR UPDATE) AS before
  WHERE run.id = before.id AND (run.lease_until IS NULL OR run.lease_until < clock_timestamp())
    AND CASE
      WHEN run.status IN ('queued', 'running', 'retrying') THEN run.wake_at IS NULL OR run.wake_at <= clock_timestamp()
      WHEN run.status <> 'waiting' THEN false
      WHEN run.waiting_cause = 'children' THEN NOT EXISTS (
        SELECT FROM unnest(run.waiting_runs) AS waited(id)
        WHERE (SELECT child.status FROM runs_run AS child WHERE child.id = waited.id)
          NOT IN ('succeeded', 'partial', 'failed', 'cancelled'))
      ELSE run.wake_at <= clock_timestamp() END
  RETURNING run.id, run.fence, before.lease_owner, run.last_seq, run.started_at IS NULL AND EXISTS (
    SELECT FROM runs_agentconfig AS config WHERE config.slug = run.agent AND config.reviews_per_agent IS NOT NULL AND EXISTS (
      SELECT FROM reviews_review AS review WHERE review.agent = run.agent AND review.state = 'open' AND review.cause <> 'sample'
      OFFSET config.reviews_per_agent - 1)) AS must_wait
)
SELECT taken.fence, taken.lease_owner, taken.last_seq, taken.must_wait,
  e.seq, e.kind, e.data, e.step, e.actor, e.at, e.prev_hash, e.hash
FROM taken JOIN runs_event AS e ON e.run_id = taken.id ORDER BY e.seq
"""
TAKE_FREE = TAKE.replace("FOR UPDATE)", "FOR UPDATE SKIP LOCKED)")
# A row that somebody else has locked is skipped: waiting for it could deadlock, and the next round finds it free.
RENEW_ALL = """
WITH mine AS (
  SELECT * FROM unnest(%(run_ids)s::bigint[], %(fences)s::int[]) AS mine(run_id, fence)
), free AS (
  SELECT run.id FROM runs_run AS run JOIN mine ON mine.run_id = run.id AND mine.fence = run.fence
  WHERE run.lease_until IS NOT NULL FOR NO KEY UPDATE OF run SKIP LOCKED
), renewed AS (
  UPDATE runs_run AS run SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s::float8)
  FROM free WHERE run.id = free.id RETURNING run.id
)
SELECT mine.run_id, mine.fence, run.fence = mine.fence AND run.lease_until IS NOT NULL, renewed.id IS NOT NULL,
  run.cancel_requested
FROM mine JOIN runs_run AS run ON run.id = mine.run_id LEFT JOIN renewed ON renewed.id = run.id
"""


class Lease(NamedTuple):
    """A lease as one look found it; it may be ours and not renewed, while its row is locked."""

    ours: bool
    renewed: bool
    cancel_requested: bool


def take(run_id: int, *, owner: str) -> tuple[RunLog, Draft] | None:
    """Take the lease of a run that is due and owned by nobody; None when there is nothing to do here.

    The draft says who took it: its owner writes it together with the first thing that happens.
    """
    values = {"owner": owner, "seconds": settings.LEASE_SECONDS, "run_id": run_id}
    if not (taken := pen.execute_with_pen(TAKE_FREE, values) or pen.execute(TAKE, values)):
        return None
    fence, lost_owner, last_seq, must_wait = taken[0][:4]
    found = [_fact(*columns[4:]) for columns in taken]
    if len(found) != last_seq:  # the statement waited for a writer, whose events it did not see
        found = facts(run_id)
    log = RunLog(run_id, fold(whole(run_id, found)), fence)
    log.must_wait = bool(must_wait)
    return None if log.state.ended else (log, _taking(log.state, owner, fence, lost_owner))


def renew_all(leases: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Lease]:
    """Extend these leases, each of a run and a fence, in one statement, and say of each how it is."""
    run_ids, fences = [run_id for run_id, _ in leases], [fence for _, fence in leases]
    found = pen.execute(RENEW_ALL, {"seconds": settings.LEASE_SECONDS, "run_ids": run_ids, "fences": fences})
    return {(run_id, fence): Lease(*how) for run_id, fence, *how in found}


def _taking(state: RunState, owner: str, fence: int, lost_owner: str) -> Draft:
    if lost_owner:
        return Draft(Kind.RUN_TAKEN_OVER, {"owner": owner, "fence": fence, "from": lost_owner})
    kind = Kind.RUN_RESUMED if state.started_at else Kind.RUN_STARTED
    return Draft(kind, {"owner": owner, "fence": fence})


# --- parts ------------------------------------------------------------------------------------------------------


def _before(state: RunState, drafts: Sequence[Draft]) -> dict[int, StepState | None]:
    """The steps as they are, of those that the drafts may change."""
    if any(draft.kind in CHANGE_EVERY_STEP for draft in drafts):
        return dict(state.steps)
    return {draft.step: state.steps.get(draft.step) for draft in drafts if draft.step}


def _put_back(log: RunLog, before: RunState, kept: dict[int, StepState | None]) -> Literal[False]:
    for position, step in kept.items():
        if step is None:
            before.steps.pop(position, None)
        else:
            before.steps[position] = step
    log.state = before
    return False


def _concerns_reviews(written: list[Fact]) -> bool:
    return any(fact.kind == Kind.STEP_ESCALATED or fact.kind in WITHDRAWING or fact.data.get("sampled") for fact in written)


WITHDRAWING = (Kind.RUN_CANCELLED, Kind.STEP_EXPIRED, Kind.STEP_WITHDRAWN)


def _tell_reviews(run_id: int, state: RunState, written: list[Fact]) -> None:
    for fact in written:
        if fact.kind == Kind.STEP_ESCALATED and fact.step is not None:
            signals.escalated.send(sender=RunLog, run_id=run_id, agent=state.agent, step=state.steps[fact.step], fact=fact)
        if fact.data.get("sampled") and fact.step is not None:
            signals.sampled.send(sender=RunLog, run_id=run_id, agent=state.agent, step=state.steps[fact.step], fact=fact)
        if fact.kind in WITHDRAWING:
            signals.withdrawn.send(sender=RunLog, run_id=run_id, fact=fact)
