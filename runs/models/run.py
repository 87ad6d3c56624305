"""One execution of an agent on one input, as its events left it, and the lease of who advances it now."""

from datetime import datetime
from typing import Any, Self

from django.apps import apps
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, JSONObject, Now
from django.urls import reverse

from runs.models import content


class RunStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    WAITING = "waiting", "Waiting"
    RETRYING = "retrying", "Retrying"
    SUCCEEDED = "succeeded", "Succeeded"
    PARTIAL = "partial", "Completed partially"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


COMPLETED = (RunStatus.SUCCEEDED, RunStatus.PARTIAL)  # with an output
ENDED = (*COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
OPEN = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.RETRYING)
HELD_BACK = ("limit", "slot", "breaker", "switched_off", "budget")  # causes of a wait for a dependency
REVEALS_SHOWN = 10
ADVANCEABLE = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.RETRYING)


def in_order(counts: dict[str, int]) -> dict[str, int]:
    """Numbers of runs by status, in the order in which every page names them."""
    return {status: counts[status] for status in RunStatus.values if status in counts}


# one look by primary key for each run that it waits for, up to the first that is open; Django has no words for it
NONE_OPEN = RawSQL(
    """NOT EXISTS (SELECT FROM unnest(runs_run.waiting_runs) AS waited(id)
    WHERE (SELECT child.status FROM runs_run AS child WHERE child.id = waited.id)
      NOT IN ('succeeded', 'partial', 'failed', 'cancelled'))""",
    [],
    output_field=models.BooleanField(),
)

# of those that it waits for, how many are open still
OPEN_AWAITED = RawSQL(
    """(SELECT count(*) FROM unnest(runs_run.waiting_runs) AS waited(id) JOIN runs_run AS child ON child.id = waited.id
    WHERE child.status IN ('queued', 'running', 'waiting', 'retrying'))""",
    [],
    output_field=models.IntegerField(),
)

# A fork that took over the step which started this run waits for it too, until it is cancelled itself. The step that it took
# over in place N is event N + 1 of its log, with the runs that were started as its output. Asked once for all open orphans.
A_FORK_NEEDS_IT = RawSQL(
    """runs_run.id IN (
    WITH RECURSIVE fork AS (
      SELECT id, status, forked_step FROM runs_run AS first WHERE first.forked_from_id IN (
        SELECT child.parent_id FROM runs_run AS child JOIN runs_run AS parent ON parent.id = child.parent_id
        WHERE child.status IN ('queued', 'running', 'waiting', 'retrying') AND parent.status = 'cancelled')
      UNION
      SELECT later.id, later.status, later.forked_step FROM runs_run AS later JOIN fork ON later.forked_from_id = fork.id
    ), started AS (
      SELECT coalesce(apart.body::jsonb, copied.data -> 'output') AS runs FROM fork
      JOIN runs_step AS step ON step.run_id = fork.id AND step.position < fork.forked_step AND starts_with(step.worker, 'spawn[')
      JOIN runs_event AS copied ON copied.run_id = fork.id AND copied.seq = step.position + 1 AND copied.kind = 'StepCopied'
      LEFT JOIN runs_payload AS apart ON apart.run_id = fork.id AND apart.hash = copied.data #>> '{large,output,hash}'
      WHERE fork.status <> 'cancelled')
    SELECT kept.id::bigint FROM started, jsonb_array_elements_text(
      CASE jsonb_typeof(started.runs) WHEN 'array' THEN started.runs ELSE jsonb_build_array(started.runs) END) AS kept(id)
    WHERE kept.id IS NOT NULL)""",
    [],
    output_field=models.BooleanField(),
)
# somebody wanted it to go on although its parent was cancelled
RETRIED_SINCE = RawSQL(
    """EXISTS (SELECT FROM runs_event AS event JOIN runs_run AS parent ON parent.id = runs_run.parent_id
    WHERE event.run_id = runs_run.id AND event.kind = 'RunRetried' AND event.at >= parent.finished_at)""",
    [],
    output_field=models.BooleanField(),
)


class RunQuerySet(models.QuerySet["Run"]):
    """Named questions about runs."""

    def ended(self) -> Self:
        return self.filter(status__in=ENDED)

    def top_level(self) -> Self:
        """Without the runs that other runs started."""
        return self.filter(parent__isnull=True)

    def tagged(self, tags: list[str]) -> Self:
        """With all of these; the first condition is that of the index."""
        return self.filter(~Q(tags=[]), tags__contains=tags)

    def with_child_count(self) -> Self:
        """Each with `child_count`: how many runs it has started. For a page of them."""
        children = RunQuerySet(self.model).filter(parent=OuterRef("pk")).order_by().values("parent").values_list(Count("pk"))
        return self.annotate(child_count=Coalesce(Subquery(children), 0))

    def in_hand_of(self, owner: str) -> Self:
        """What this process had in hand when it was lost, taken over since or not."""
        return self.filter(Q(lost_owner=owner) | Q(lease_owner=owner, status__in=OPEN))

    def due(self) -> Self:
        """Runs that a job process should advance now: nobody owns them, and what they waited for has come (event_log.TAKE)."""
        unowned = Q(lease_until__isnull=True) | Q(lease_until__lt=Now())
        advanceable = Q(Q(wake_at__isnull=True) | Q(wake_at__lte=Now()), status__in=ADVANCEABLE)
        woken = Q(status=RunStatus.WAITING, wake_at__lte=Now())
        joined = Q(status=RunStatus.WAITING, waiting_cause="children") & Q(NONE_OPEN)
        return self.filter(advanceable | woken | joined, unowned)

    def waking(self, since: datetime, until: datetime) -> Self:
        """Those whose time comes between the two, in its order."""
        waits = Q(status__in=ADVANCEABLE) | Q(status=RunStatus.WAITING)  # each from an index of its own
        return self.filter(waits, wake_at__gt=since, wake_at__lte=until).order_by("wake_at")

    def with_hold(self) -> Self:
        """With who holds each, in the same query."""
        said = JSONObject(by="by", reason="reason", at="at")
        open_ = apps.get_model("runs", "Hold").objects.filter(run=OuterRef("pk"), released_at=None)
        return self.annotate(held=Subquery(open_.values(said=said)[:1]))

    def with_reveals(self) -> Self:
        """With to whom its payloads were revealed, the newest first, in the same query."""
        said = JSONObject(by="by", reason="reason", at="at")
        made = apps.get_model("runs", "Reveal").objects.filter(run=OuterRef("pk")).order_by("-at", "-pk")
        return self.annotate(reveals_made=ArraySubquery(made.values(said=said)[:REVEALS_SHOWN]))

    def orphaned(self) -> Self:
        """Open runs whose parent was cancelled, and which nobody has cancelled, retried or taken over since."""
        with_parent = self.filter(status__in=OPEN, cancel_requested=False, parent__status=RunStatus.CANCELLED)
        return with_parent.exclude(Q(RETRIED_SINCE) | Q(A_FORK_NEEDS_IT))


class Run(models.Model):
    """Columns above the line are a projection of the run's events; those below coordinate processes."""

    agent = models.SlugField(max_length=80, db_index=False)  # the index by agent and time serves
    agent_version = models.CharField(max_length=40)
    config_version = models.IntegerField(default=1)
    input = content.ContentJSON(null=True)
    input_text = content.ContentText(default="", help_text="The input in one sentence, for lists and search.")
    tags = ArrayField(models.CharField(max_length=40), db_default=[], help_text="By which people find it again.")
    status = models.CharField(max_length=12, choices=RunStatus, default=RunStatus.QUEUED)
    waiting_cause = models.CharField(max_length=20, blank=True, default="")
    waiting_step = models.IntegerField(null=True)
    wake_at = models.DateTimeField(null=True)
    waiting_runs = ArrayField(models.BigIntegerField(), null=True, help_text="Those of its children that it waits for.")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="children", db_index=False)
    output = content.ContentJSON(null=True)
    error = content.Error(null=True)
    cancel_requested = models.BooleanField(default=False)
    step_count = models.IntegerField(default=0)
    started_by = models.CharField(max_length=150, blank=True, default="")
    forked_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="forks")
    forked_step = models.IntegerField(null=True, help_text="The first step that it executes itself.")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    last_seq = models.IntegerField(default=0)
    head_hash = models.CharField(max_length=64, default="")
    # -------- who advances it: the lease (by the database's clock) and the fence that each taking raises
    lease_owner = models.CharField(max_length=120, blank=True, default="")
    lease_until = models.DateTimeField(null=True)
    fence = models.IntegerField(default=0)
    lost_owner = models.CharField(max_length=120, blank=True, default="", help_text="From whom it was last taken over.")

    objects = RunQuerySet.as_manager()

    class Meta:
        permissions = [
            ("start_run", "May start runs"),
            ("control_run", "May cancel and retry runs"),
            ("hold_run", "May hold runs, so that retention keeps them"),
        ]
        # No CHECK on its columns, nor on those of steps and events, hence no PositiveIntegerField: PostgreSQL reads each anew for
        # every statement (docs/decisions/0012), and `manage.py verify` compares them with what the events fold to.
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="run_newest"),  # runs list with children, keyset pages
            # runs list and dashboard: a run may have thousands of children, which are all newer than itself
            models.Index(fields=["-created_at", "-id"], name="run_top_newest", condition=Q(parent__isnull=True)),
            models.Index(fields=["agent", "-created_at", "-id"], name="run_agent_newest"),  # runs list by agent
            models.Index(fields=["status", "-created_at", "-id"], name="run_status_newest"),  # runs list by status
            # runs list by the other filters: who started it, which version, how long it took, and why it waits
            models.Index(fields=["started_by", "-created_at", "-id"], name="run_by_newest"),
            models.Index(fields=["agent_version", "-created_at", "-id"], name="run_version_newest"),
            # and which tags it has: what has none is not in it, and costs it nothing
            GinIndex(fields=["tags"], name="run_tags", condition=~Q(tags=[])),
            # without a condition: PostgreSQL knows how the values of an expression lie only from an index of all rows
            models.Index(F("finished_at") - F("created_at"), name="run_took"),
            models.Index(fields=["waiting_cause", "-created_at", "-id"], name="run_waits_newest", condition=~Q(waiting_cause="")),
            # the sweeper's question, asked every second: small, because ended and parked runs are not in it
            models.Index(fields=["wake_at"], name="run_due", condition=Q(status__in=ADVANCEABLE)),
            models.Index(fields=["wake_at"], name="run_wakes", condition=Q(status="waiting", wake_at__isnull=False)),
            models.Index(fields=["id"], name="run_joins", condition=Q(status="waiting", waiting_cause="children")),
            # what a dependency holds back: asked by the sweeper every second
            models.Index(fields=["id"], name="run_held", condition=Q(status="waiting", waiting_cause__in=HELD_BACK)),
            # what waits for room among the open reviews: likewise
            models.Index(fields=["id"], name="run_no_room", condition=Q(status="waiting", waiting_cause="reviews")),
            # those that ended within some minutes: what the monitoring reads of them (runs/alerts)
            models.Index(fields=["finished_at"], name="run_ended", condition=Q(finished_at__isnull=False)),
            # what else a process had in hand that was lost
            models.Index(fields=["lost_owner"], name="run_lost_owner", condition=~Q(lost_owner="")),
            # its open children: asked at each child's end; and the children on its page
            models.Index(fields=["parent", "status"], name="run_children", condition=Q(parent__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"Run {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    @property
    def hold(self) -> dict[str, Any]:
        """Who keeps it from retention now, why and since when, as it was read along (with_hold); empty: nobody."""
        said = getattr(self, "held", None) or {}
        reason = {"reason": content.HIDDEN} if content.are_hidden() else {}
        return said | reason | {"at": datetime.fromisoformat(said["at"])} if said else {}

    @property
    def revealed(self) -> list[dict[str, Any]]:
        """To whom its payloads were lately revealed, when and why, as they were read along (with_reveals)."""
        made: list[dict[str, Any]] = getattr(self, "reveals_made", None) or []
        reason = {"reason": content.HIDDEN} if content.are_hidden() else {}
        return [one | reason | {"at": datetime.fromisoformat(one["at"])} for one in made]

    @property
    def ended(self) -> bool:
        return self.status in ENDED
