"""What a person answered to a review."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from reviews.models.review import Cause, Review
from runs.engine.comparison import Change, changes, number_of_changes
from runs.models.content import ContentJSON, ContentText


class Decision(models.Model):
    """What a person answered, when, and about what they saw."""

    class Kind(models.TextChoices):
        APPROVE = "approve", "Approved"
        EDIT = "edit", "Edited and approved"
        REJECT = "reject", "Rejected"
        RETRY = "retry", "Sent to retry"
        ANSWER = "answer", "Answered"
        HAPPENED = "happened", "It happened"
        NOT_HAPPENED = "not_happened", "It did not happen"
        FORK = "fork", "Forked"
        CANCEL = "cancel", "Run cancelled"
        RAISE = "raise", "Limit raised"
        FINISH = "finish", "Finished with what there is"
        TAKE_OVER = "take_over", "Taken over"
        SEND_BACK = "send_back", "Sent back for changes"
        SKIP = "skip", "Skipped"

    class Tag(models.TextChoices):
        """Why something was rejected, for counting."""

        WRONG_FACTS = "wrong_facts", "Wrong facts"
        NOT_ALLOWED = "not_allowed", "Not allowed"
        WRONG_AMOUNT = "wrong_amount", "Wrong amount"
        NOT_NEEDED = "not_needed", "Not needed"
        UNCLEAR = "unclear", "Unclear"
        OTHER = "other", "Other"

    OF_A_SAMPLE = {Kind.APPROVE: "It was right", Kind.EDIT: "Corrected", Kind.REJECT: "It was wrong"}
    CHANGES = (Kind.EDIT, Kind.APPROVE)  # an approval of what another edited carries its value
    CARRIES_VALUE = (Kind.EDIT, Kind.ANSWER, Kind.HAPPENED, Kind.TAKE_OVER)

    is_repeated = False  # as decide() returns it: the same had been decided already
    review = models.ForeignKey(Review, on_delete=models.PROTECT, related_name="decisions")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    kind = models.CharField(max_length=20, choices=Kind)
    value = ContentJSON(null=True, help_text="The edited or answered value.")
    reason = ContentText(blank=True, default="")
    tag = models.CharField(max_length=40, choices=Tag, blank=True, default="", help_text="The reason's class, for counting.")
    seen_fingerprint = models.CharField(max_length=64)
    decided_at = models.DateTimeField()
    opened_at = models.DateTimeField(null=True, help_text="When its actor first had the review open.")
    final = models.BooleanField(default=True, help_text="Not so: an approval that awaits those of others.")
    effective_at = models.DateTimeField(null=True, help_text="Until then it can be taken back.")
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    channel = models.CharField(max_length=12, default="page", help_text="page or bulk.")
    bulk = models.UUIDField(null=True, help_text="Equal for decisions that were taken together.")

    class Meta:
        constraints = [
            # two people may not both have the last word
            models.UniqueConstraint(fields=["review"], condition=Q(final=True, revoked_at=None), name="decision_final_once"),
            # four eyes are those of two people
            models.UniqueConstraint(fields=["review", "actor"], condition=Q(revoked_at=None), name="decision_once_by_each"),
        ]
        indexes = [
            models.Index(fields=["-decided_at", "-id"], name="decision_newest"),  # history
            models.Index(fields=["actor", "-decided_at", "-id"], name="decision_of_actor"),  # a reviewer's numbers
            models.Index(fields=["bulk"], condition=Q(bulk__isnull=False), name="decision_bulk"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} by {self.actor}"

    @property
    def can_be_taken_back(self) -> bool:
        """It is not carried out yet."""
        return self.revoked_at is None and self.effective_at is not None and self.effective_at > timezone.now()

    @property
    def changes(self) -> list[Change]:
        """How it differs from the proposal; an answer from the agent's draft, where it had one."""
        return changes(self.review.proposal, self.value) if self._may_differ else []

    @property
    def number_of_changes(self) -> int:
        """The same without comparing words, for lists."""
        return number_of_changes(self.review.proposal, self.value) if self._may_differ else 0

    @property
    def _may_differ(self) -> bool:
        has_draft = self.review.cause == Cause.QUESTION and self.review.proposal is not None
        return self.value is not None and (self.kind in self.CHANGES or has_draft)

    def get_kind_display(self) -> str:  # type: ignore[no-redef]  # Django leaves ours alone
        """A sample was not held up, so nothing was approved or rejected."""
        kind = self.Kind(self.kind)
        return self.OF_A_SAMPLE.get(kind, kind.label) if self.review.cause == Cause.SAMPLE else str(kind.label)
