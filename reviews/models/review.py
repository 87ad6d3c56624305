"""The question put to a person: one step that waits for somebody."""

from typing import TYPE_CHECKING, Self

import pgtrigger
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from runs import sdk
from runs.models import Run, content

if TYPE_CHECKING:
    from reviews.models.claim import Claim
    from reviews.models.decision import Decision


class Cause(models.TextChoices):
    GATED = "gated", "Gated"
    LOW_CONFIDENCE = "low_confidence", "Low confidence"
    FAILED = "failed", "Failed"
    QUESTION = "question", "Question"
    CODE_CHANGED = "code_changed", "Code changed"
    OUTCOME_UNKNOWN = "outcome_unknown", "Outcome unknown"
    BUDGET = "budget", "Budget"
    SAMPLE = "sample", "Quality sample"


class Risk(models.IntegerChoices):
    """How much depends on the decision; the highest come first in the inbox."""

    LOW = 0, "Low"
    NORMAL = 1, "Normal"
    HIGH = 2, "High"


class ReviewQuerySet(models.QuerySet["Review"]):
    """Named questions about reviews."""

    def open(self) -> Self:
        return self.filter(state=Review.State.OPEN)

    def in_turn(self) -> Self:
        """The order of the inbox: what is riskier first, of that what is urgent, then the oldest."""
        return self.order_by("-risk", "-urgent", "opened_at", "pk")

    def after(self, review: "Review") -> Self:
        """Those whose turn is later than this one's."""
        later = Q(opened_at__gt=review.opened_at) | Q(opened_at=review.opened_at, pk__gt=review.pk)
        as_risky = Q(urgent__lt=review.urgent) | Q(later, urgent=review.urgent)
        return self.filter(Q(risk__lt=review.risk) | Q(as_risky, risk=review.risk))

    def with_people(self) -> Self:
        """With what a row of the inbox shows, in the same query."""
        return self.select_related("run", "claim__reviewer", "group", "second_group", "assignee").annotate(read_at=Now())


# By the database, so that no way of opening a review can forget it. Cut, because a proposal may be of megabytes; of an
# input that is large only the sentence is taken.
FILL_SEARCH_TEXT = """
  INSERT INTO reviews_searchtext (review_id, text)
  SELECT NEW.id, lower(left(concat_ws(' ', NEW.title, left(NEW.why, 1000), left(step.error ->> 'message', 1000), run.input_text,
    NEW.proposal::text, given.words), 4000))
  FROM runs_run AS run LEFT JOIN runs_step AS step ON step.run_id = run.id AND step.position = NEW.position,
    LATERAL (SELECT string_agg(value #>> '{}', ' ') AS words FROM jsonb_path_query(
      CASE WHEN pg_column_size(run.input) < 4000 THEN run.input END, 'strict $.**') AS value
      WHERE jsonb_typeof(value) IN ('string', 'number')) AS given
  WHERE run.id = NEW.run_id
  ON CONFLICT (review_id) DO UPDATE SET text = excluded.text;
  RETURN NULL;"""


class Review(models.Model):
    """One step that waits for a person. `fingerprint` binds a decision to exactly what was shown."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        DECIDED = "decided", "Decided"
        CANCELLED = "cancelled", "Cancelled"
        EXPIRED = "expired", "Expired"

    class Ending(models.TextChoices):
        """What came of a review that nobody decided."""

        APPROVED = "approve", "Nobody decided in time, so the clock approved it, as its policy says"
        SKIPPED = "skip", "Nobody decided in time, so the step was skipped, as its policy says"
        NO_ANSWER = "expire", "Nobody decided in time, and the run went on without an answer"
        CODE_CHANGED = "code_changed", "The code changed, so this question no longer stands: another asks how the run goes on"
        RUN_ENDED = "run_ended", "The run was cancelled or has ended, so nobody need answer any more"

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="reviews")
    agent = models.SlugField(max_length=80, db_index=False, default="", help_text="Of the run, for filters.")
    position = models.PositiveIntegerField()
    step_name = content.ContentChar(max_length=120)
    worker = models.CharField(max_length=120)
    title = content.Title(max_length=200)
    cause = models.CharField(max_length=20, choices=Cause)
    subject = models.CharField(max_length=10, help_text="What is decided about: the step's input or its output.")
    proposal = content.ContentJSON(null=True)
    schema = content.ContentJSON()
    allowed = models.JSONField(help_text="The decisions that this step allows.")
    why = content.ContentText()
    confidence = models.FloatField(null=True)
    threshold = models.FloatField(null=True)
    fingerprint = models.CharField(max_length=64)
    same = models.CharField(
        max_length=64, default="", help_text="Equal for identical questions: worker, subject, input, proposal."
    )
    effect = models.CharField(max_length=12, default="none", help_text="Of the step: none, idempotent or once.")
    risk = models.PositiveSmallIntegerField(choices=Risk, default=Risk.NORMAL)
    rule = models.CharField(max_length=200, default="", help_text="The policy that sent it here, with its version.")
    approvals = models.PositiveSmallIntegerField(default=1, help_text="How many different people must approve it.")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    ending = models.CharField(max_length=20, choices=Ending, default="", help_text="What came of it where nobody decided.")
    # -------- who should look at it, and by when
    group = models.ForeignKey(Group, on_delete=models.PROTECT, null=True, related_name="reviews")
    second_group = models.ForeignKey(Group, on_delete=models.PROTECT, null=True, related_name="+")
    assignee = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    snoozed_until = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True, help_text="When nobody has decided by then, `default` happens.")
    escalate_at = models.DateTimeField(null=True, help_text="When nobody has decided by then, the second group is asked too.")
    escalated_at = models.DateTimeField(null=True)
    tell_at = models.DateTimeField(null=True, help_text="When people are told: as it is new, at 50 and 90 % of its time.")
    urgent = models.BooleanField(default=False, help_text="Half of its time has passed: it comes before its like.")
    default = models.CharField(max_length=20, default="", help_text="The policy's word for what happens at `due_at`.")

    objects = ReviewQuerySet.as_manager()

    class Meta:
        permissions = [("decide_review", "May decide reviews")]
        constraints = [
            # a step asks one question at a time
            models.UniqueConstraint(
                fields=["run", "position"], condition=Q(state="open") & ~Q(cause="sample"), name="review_open_once"
            ),
        ]
        indexes = [
            # the inbox
            models.Index(fields=["-risk", "-urgent", "opened_at", "id"], condition=Q(state="open"), name="review_in_turn"),
            models.Index(fields=["agent", "cause"], condition=Q(state="open"), name="review_of_agent"),  # caps against floods
            models.Index(fields=["agent"], name="review_by_agent"),  # history of an agent that decides little
            models.Index(fields=["same"], condition=Q(state="open"), name="review_same"),  # identical questions
            models.Index(fields=["escalate_at"], condition=Q(state="open", escalated_at=None), name="review_escalates"),
            models.Index(fields=["tell_at"], condition=Q(state="open", tell_at__isnull=False), name="review_tells"),  # sweeper
            models.Index(fields=["assignee"], condition=Q(state="open", assignee__isnull=False), name="review_assigned"),  # mine
            models.Index(fields=["run", "position"], name="review_of_step"),  # run page
            models.Index(fields=["worker", "cause", "-closed_at"], condition=Q(state="decided"), name="review_alike"),  # alike
        ]
        triggers = [
            pgtrigger.Trigger(
                name="fill_search_text",
                when=pgtrigger.After,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf("title", "proposal", "why"),  # type: ignore[no-untyped-call]
                func=FILL_SEARCH_TEXT,
            ),
        ]

    def __str__(self) -> str:
        return f"Review {self.pk}: {self.title}"

    def get_absolute_url(self) -> str:
        return reverse("review", args=[self.pk])

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN

    @property
    def is_high_risk(self) -> bool:
        """As it was asked, or as the code declares that would carry it out now; what a sample is of was carried out long ago."""
        if self.risk == Risk.HIGH or not self.is_open or self.cause == Cause.SAMPLE:
            return self.risk == Risk.HIGH
        worker = sdk.find_worker(self.worker)
        return worker is not None and sdk.risk(worker) == "high"

    @property
    def why_closed(self) -> str:
        """A sentence for one that nobody decided; of one that was closed before endings were kept, what its state says."""
        before = {self.State.EXPIRED: self.Ending.NO_ANSWER, self.State.CANCELLED: self.Ending.RUN_ENDED}
        ending = self.ending or before.get(self.State(self.state))
        return str(self.Ending(ending).label) if ending else ""

    @property
    def is_snoozed(self) -> bool:
        """By the database's clock where it was read along (with_people)."""
        return bool(self.snoozed_until and self.snoozed_until > (getattr(self, "read_at", None) or timezone.now()))

    def held(self) -> "Claim | None":
        """The claim that is in force, by the database's clock; without a question where it was read along (with_people)."""
        if read_at := getattr(self, "read_at", None):
            claim = getattr(self, "claim", None)
            return claim if claim and claim.until > read_at else None
        from reviews.models.claim import Claim

        return Claim.objects.filter(review=self, until__gt=Now()).select_related("reviewer").first()

    @property
    def decision(self) -> "Decision | None":
        """The one that counts: final, and not taken back."""
        return self.decisions.filter(final=True, revoked_at=None).select_related("actor").first()
