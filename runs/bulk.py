"""Many runs cancelled or retried together: each by the command that its own button uses, each once, with what came of it."""

from dataclasses import dataclass
from itertools import count

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.dispatch import receiver
from django.utils import timezone
from django.utils.functional import cached_property

from runs import access, commands, dispatch, keeper, live, pen, sdk, sealed, signals
from runs.engine.canonical import clean
from runs.listing import RunFilters
from runs.models import BulkAction, BulkActionItem, Run, RunStatus
from runs.models.run import OPEN, RunQuerySet

logger = structlog.get_logger()
MOST = 10_000  # at once
SHOWN = 50  # of them in the preview
NAMED = 100  # of those that are left out, for each reason
AT_ONCE = 20  # while the browser waits; more are carried out by a job process
ASKED_EACH = 50  # after so many, whether its actor still may
JOB = "runs.bulk.carry"
SALT = "runs.bulk"
Kind, Outcome = BulkAction.Kind, BulkActionItem.Outcome

CANCELLABLE = Q(status__in=OPEN, cancel_requested=False)
RETRIABLE = Q(status__in=(RunStatus.FAILED, RunStatus.CANCELLED), parent=None)
IS_BEING_CANCELLED = "Is being cancelled already."
OF_A_PARENT = "Was started by another run, which may have gone on without it: retry these from their own pages."
NOT_INSTALLED = "Its agent is not installed here, so nobody could carry it on."
NO_MORE = "{} may not cancel or retry runs any more."


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why some of the runs are not acted on, how many, and the first of them."""

    why: str
    count: int
    runs: list[int]

    @property
    def beyond(self) -> int:
        return self.count - len(self.runs)


@dataclass
class Preview:
    """What would be done to which runs, and to which it would not. `has_more`: not all that fit were taken."""

    kind: str
    actor: User
    chosen: list[int]
    left_out: list[LeftOut]
    has_more: bool = False
    query: str = ""

    @cached_property
    def runs(self) -> list[Run]:
        """The first of them."""
        return list(Run.objects.filter(pk__in=self.chosen[:SHOWN]).with_child_count().order_by("-created_at", "-id"))

    @property
    def beyond(self) -> int:
        return len(self.chosen) - len(self.runs)

    @property
    def not_all_looked_at(self) -> bool:
        """More are left out than were counted."""
        return sum(one.count for one in self.left_out) == MOST

    def sealed(self) -> str:
        return sealed.seal(self.chosen, by=self.actor.pk, salt=SALT, kind=self.kind, query=self.query)


def preview(kind: str, wanted: RunFilters | list[int], actor: User) -> Preview:
    """Of those that were ticked, or of the newest that the filters let through."""
    if isinstance(wanted, RunFilters):
        return _preview(kind, wanted.runs(), actor, query=wanted.query)
    return _preview(kind, Run.objects.filter(pk__in=wanted), actor)


def _preview(kind: str, runs: RunQuerySet, actor: User, query: str = "") -> Preview:
    newest = runs.order_by("-created_at", "-id")
    fit = CANCELLABLE if kind == Kind.CANCEL else RETRIABLE & Q(agent__in=list(sdk.AGENTS))
    found = list(newest.filter(fit).values_list("pk", flat=True)[: MOST + 1])
    others = newest.exclude(fit).values_list("pk", "status", "parent_id")[:MOST]
    left_out: dict[str, list[int]] = {}
    for pk, status, parent in others:
        left_out.setdefault(_why_not(kind, status, parent), []).append(pk)
    named = [LeftOut(why, len(pks), pks[:NAMED]) for why, pks in left_out.items()]
    return Preview(kind, actor, found[:MOST], named, len(found) > MOST, query)


def _why_not(kind: str, status: str, parent: int | None) -> str:
    word = RunStatus(status).label.lower()
    if kind == Kind.CANCEL:
        return IS_BEING_CANCELLED if status in OPEN else f"Has ended already ({word}): there is nothing to cancel."
    if status in (RunStatus.FAILED, RunStatus.CANCELLED):
        return OF_A_PARENT if parent else NOT_INSTALLED
    return f"Neither failed nor cancelled ({word}): there is nothing to retry."


# --- what a person confirms ---------------------------------------------------------------------------------------


def begin(seen: sealed.Seen, *, actor: User, reason: str = "") -> BulkAction:
    """Record what is to be done to the runs of the preview, and have it carried out. What was sent twice is begun once."""
    now = timezone.now()
    told = {"kind": seen.more["kind"], "query": seen.more["query"], "reason": reason}
    told |= {"actor": actor, "previewed_at": seen.at, "begun_at": now, "asked_at": now}
    with transaction.atomic():
        bulk, new = BulkAction.objects.get_or_create(pk=seen.id, defaults=told)
        if new:
            BulkActionItem.objects.bulk_create((BulkActionItem(bulk=bulk, run=pk) for pk in seen.shown), batch_size=2000)
    if new:
        _have_carried(bulk)
    return bulk


def stop(bulk: BulkAction, *, by: str) -> None:
    """Nothing more is begun; what is in hand at this moment is finished."""
    if BulkAction.objects.filter(pk=bulk.pk, stopped_at=None).update(stopped_at=timezone.now(), stopped_by=by):
        logger.info("bulk_stopped", bulk=str(bulk.pk), by=by)


def may_go_on(bulk: BulkAction) -> bool:
    """False where nobody goes on by themselves and the runs were seen so long ago that they are to be looked at again."""
    return not (bulk.stopped_at or bulk.is_given_up) or bulk.previewed_at > timezone.now() - sealed.GOOD_FOR


def go_on(bulk: BulkAction) -> None:
    """With what is left: it was stopped, or whoever carried it out has ended."""
    left = BulkAction.objects.filter(Exists(BulkActionItem.objects.filter(bulk=OuterRef("pk"), outcome="")), pk=bulk.pk)
    if left.update(stopped_at=None, stopped_by="", asked_at=timezone.now()):
        logger.info("bulk_gone_on_with", bulk=str(bulk.pk), by=str(bulk.actor), stopped_by=bulk.stopped_by)
        _have_carried(bulk)


def preview_left(bulk: BulkAction) -> Preview:
    """Of those of its runs that nobody has come to, for whoever began it."""
    return preview(bulk.kind, list(bulk.items.filter(outcome="").values_list("run", flat=True)), bulk.actor)


def _have_carried(bulk: BulkAction) -> None:
    """At once where it is soon done, else in a job process."""
    if bulk.left > AT_ONCE:
        dispatch.ask(JOB, str(bulk.pk))
    else:
        carry(str(bulk.pk))


@receiver(signals.swept)
def take_up(**kwargs: object) -> None:
    """Have a job process go on with each that is left lying."""
    for bulk in BulkAction.objects.left_lying():
        dispatch.ask(JOB, str(bulk.pk))


# --- carried out --------------------------------------------------------------------------------------------------


def carry(bulk_id: str) -> None:
    """Do what is left of it, each in a transaction of its own. Two who carry the same take different runs."""
    after = 0
    for number in count():
        if number % ASKED_EACH == 0:  # its actor may have lost the right meanwhile
            bulk = BulkAction.objects.select_related("actor").get(pk=bulk_id)
            may = access.may_control(bulk.actor)
        taken = _carry_next(bulk, after, may=may)
        if taken is None:
            break
        after = taken
        if keeper.hand_over.is_set():
            dispatch.ask(JOB, bulk_id)
            break
    live.flush()


def _carry_next(bulk: BulkAction, after: int, *, may: bool) -> int | None:
    """What came of a run is written in the transaction that did it, so none is done twice. None: no more is to be done."""
    waiting = BulkActionItem.objects.filter(bulk=bulk, bulk__stopped_at=None, outcome="", pk__gt=after).order_by("pk")
    with pen.certain():
        item = waiting.select_for_update(of=("self",), skip_locked=True).first()
        if item is None:
            return None
        item.outcome, item.said = _done(bulk, item.run) if may else (Outcome.REFUSED, NO_MORE.format(bulk.actor))
        item.at = timezone.now()
        item.save(update_fields=["outcome", "said", "at"])
    return item.pk


def _done(bulk: BulkAction, run_id: int) -> tuple[str, str]:
    """What one run came to must not hold up the others."""
    try:
        with transaction.atomic():
            if bulk.kind == Kind.CANCEL:
                commands.cancel(run_id, by=bulk.actor.get_username(), reason=bulk.reason)
            else:
                commands.retry(run_id, by=bulk.actor.get_username())
    except commands.Refused as refused:
        return Outcome.REFUSED, str(refused)
    except Run.DoesNotExist:
        return Outcome.REFUSED, "The run is not there any more."
    except Exception as error:
        if not connection.is_usable():  # the database is away, not this run
            raise
        logger.exception("bulk_item_failed", run=run_id, bulk=str(bulk.pk))
        return Outcome.FAILED, clean(f"It could not be done: {type(error).__name__}: {error}", 500)
    return Outcome.DONE, ""


dispatch.OFFERED[JOB] = carry
