"""What stands beside the question of a review: how alike ones were decided, what its run has spent, who waits for it."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, DurationField, ExpressionWrapper, F, Q, Sum
from django.db.models.functions import Now

from reviews.models import Cause, Decision, Review
from runs import budgets
from runs.models import Run, Step

LOOKED_AT = 200  # of the newest decisions about alike reviews
EXAMPLES = 5
OTHERS = 50
VERBS = {
    Decision.Kind.APPROVE: "approved",
    Decision.Kind.EDIT: "edited",
    Decision.Kind.REJECT: "rejected",
    Decision.Kind.RETRY: "tried again",
    Decision.Kind.ANSWER: "answered",
    Decision.Kind.HAPPENED: "had happened",
    Decision.Kind.NOT_HAPPENED: "had not happened",
    Decision.Kind.FORK: "forked",
    Decision.Kind.CANCEL: "cancelled",
    Decision.Kind.RAISE: "raised",
    Decision.Kind.FINISH: "finished",
    Decision.Kind.TAKE_OVER: "taken over",
    Decision.Kind.SEND_BACK: "sent back",
    Decision.Kind.SKIP: "skipped",
}
OF_A_SAMPLE = {Decision.Kind.APPROVE: "found right", Decision.Kind.EDIT: "corrected", Decision.Kind.REJECT: "found wrong"}


@dataclass(frozen=True, slots=True)
class Precedents:
    """How the newest reviews of the same worker and cause were decided; the examples begin with identical questions."""

    counts: list[tuple[str, int]]
    examples: list[Decision]
    count: int
    identical: int

    @property
    def is_all(self) -> bool:
        return self.count < LOOKED_AT


def precedents(review: Review) -> Precedents:
    """In two queries, whatever there is. What can still be taken back is none yet."""
    alike = Decision.objects.filter(review__worker=review.worker, review__cause=review.cause, review__state=Review.State.DECIDED)
    certain = alike.filter(Q(effective_at=None) | Q(effective_at__lte=Now()), final=True, revoked_at=None)
    newest = certain.exclude(review=review).order_by("-review__closed_at")
    looked_at = list(newest.values_list("pk", "kind", "review__same")[:LOOKED_AT])
    same = [pk for pk, _, question in looked_at if question and question == review.same]
    others = [pk for pk, _, question in looked_at if not question or question != review.same]
    shown = [*same, *others][:EXAMPLES]
    read = ("kind", "reason", "decided_at", "actor__username", "review__same", "review__cause", "review__proposal")
    found = Decision.objects.select_related("actor", "review").only(*read).in_bulk(shown) if shown else {}
    verbs = VERBS | OF_A_SAMPLE if review.cause == Cause.SAMPLE else VERBS
    counts = Counter(verbs[Decision.Kind(kind)] for _, kind, _ in looked_at)
    return Precedents(counts.most_common(), [found[pk] for pk in shown if pk in found], len(looked_at), len(same))


@dataclass(frozen=True, slots=True)
class Spent:
    """Of a run so far: what its models used, and how long its steps worked."""

    models: list[str]
    worked_ms: float
    steps: int


def spent(run: Run) -> Spent:
    lasted = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    done = Step.objects.filter(run=run, cause="", finished_at__isnull=False).aggregate(worked=Sum(lasted), steps=Count("pk"))
    worked: timedelta = done["worked"] or timedelta()
    return Spent(budgets.spent_by_run(run.pk), worked.total_seconds() * 1000, done["steps"])


@dataclass(frozen=True, slots=True)
class Blocked:
    """What waits for this decision: the run that started this one, and the other questions of the same run."""

    parent: Run | None
    others: list[Review]
    place: int

    @property
    def of(self) -> int:
        return len(self.others) + 1


def blocked(review: Review) -> Blocked:
    others = Review.objects.open().filter(run=review.run_id).exclude(pk=review.pk).order_by("pk").only("pk", "title", "cause")
    found = list(others[:OTHERS])
    return Blocked(_parent(review.run), found, sum(other.pk < review.pk for other in found) + 1)


def _parent(run: Run) -> Run | None:
    """The run that waits for this one, or None."""
    parent = run.parent
    return parent if parent and run.pk in (parent.waiting_runs or []) else None
