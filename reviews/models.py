"""The question put to a person, who is at it, and the answer."""

from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from runs.models import Run


class Cause(models.TextChoices):
    GATED = "gated", "Gated"
    LOW_CONFIDENCE = "low_confidence", "Low confidence"
    FAILED = "failed", "Failed"
    QUESTION = "question", "Question"
    CODE_CHANGED = "code_changed", "Code changed"
    OUTCOME_UNKNOWN = "outcome_unknown", "Outcome unknown"
    BUDGET = "budget", "Budget"


class ReviewQuerySet(models.QuerySet["Review"]):
    """Named questions about reviews."""

    def open(self) -> Self:
        return self.filter(state=Review.State.OPEN)

    def oldest_first(self) -> Self:
        return self.order_by("opened_at", "pk")

    def after(self, review: "Review") -> Self:
        """Those opened later than this one."""
        return self.filter(Q(opened_at__gt=review.opened_at) | Q(opened_at=review.opened_at, pk__gt=review.pk))

    def with_people(self) -> Self:
        """With what a row of the inbox shows, in the same query."""
        return self.select_related("run", "claim__reviewer")

    def matching(self, *, cause: str = "", agent: str = "", text: str = "") -> Self:
        reviews = self.filter(cause=cause) if cause else self
        reviews = reviews.filter(run__agent=agent) if agent else reviews
        return reviews.filter(Q(title__icontains=text) | Q(run__input_text__icontains=text)) if text else reviews


class Review(models.Model):
    """One step that waits for a person. `fingerprint` binds a decision to exactly what was shown."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        DECIDED = "decided", "Decided"
        CANCELLED = "cancelled", "Cancelled"
        EXPIRED = "expired", "Expired"

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="reviews")
    position = models.PositiveIntegerField()
    step_name = models.CharField(max_length=120)
    worker = models.CharField(max_length=120)
    title = models.CharField(max_length=200)
    cause = models.CharField(max_length=20, choices=Cause)
    subject = models.CharField(max_length=10, help_text="What is decided about: the step's input or its output.")
    proposal = models.JSONField(null=True)
    schema = models.JSONField()
    allowed = models.JSONField(help_text="The decisions that this step allows.")
    why = models.TextField()
    confidence = models.FloatField(null=True)
    threshold = models.FloatField(null=True)
    fingerprint = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        permissions = [("decide_review", "May decide reviews")]
        constraints = [
            # a step asks one question at a time
            models.UniqueConstraint(fields=["run", "position"], condition=Q(state="open"), name="review_open_once"),
        ]
        indexes = [
            models.Index(fields=["opened_at", "id"], condition=Q(state="open"), name="review_inbox"),  # inbox, oldest first
            models.Index(fields=["run", "position"], name="review_of_step"),  # run page
        ]

    def __str__(self) -> str:
        return f"Review {self.pk}: {self.title}"

    def get_absolute_url(self) -> str:
        return reverse("review", args=[self.pk])

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN

    def held(self) -> "Claim | None":
        """The claim that is in force now."""
        claim = getattr(self, "claim", None)
        return claim if claim and claim.until > timezone.now() else None


class Claim(models.Model):
    """A reviewer's lease on a review: courtesy to the others; safety is in decide()."""

    review = models.OneToOneField(Review, on_delete=models.CASCADE, related_name="claim")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.reviewer} until {self.until:%H:%M:%S}"


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

    review = models.OneToOneField(Review, on_delete=models.PROTECT, related_name="decision")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    kind = models.CharField(max_length=20, choices=Kind)
    value = models.JSONField(null=True, help_text="The edited or answered value.")
    reason = models.TextField(blank=True, default="")
    seen_fingerprint = models.CharField(max_length=64)
    decided_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.get_kind_display()} by {self.actor}"
