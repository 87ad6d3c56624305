"""Who is asked: the groups of reviewers, and the routes that lead reviews to them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import Group, User
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from reviews.models import Claim, Decision, ReviewQuerySet, Risk, Route
from runs import access

BACKEND = "django.contrib.auth.backends.ModelBackend"  # the one that knows permissions


@dataclass(frozen=True, slots=True)
class Routed:
    """What a new review gets of the route that fits it."""

    group_id: int | None = None
    second_group_id: int | None = None


def route(agent: str, cause: str) -> Routed:
    """The most precise line counts: agent and cause, the agent, the cause, any. Without one everybody is asked."""
    fitting = Route.objects.filter(agent__in=("", agent), cause__in=("", cause))
    best = max(fitting, key=lambda line: (bool(line.agent), bool(line.cause)), default=None)
    return Routed(best.group_id, best.second_group_id) if best else Routed()


def escalates_at(routed: Routed, opened_at: datetime, due_at: datetime | None) -> datetime | None:
    """Half of the time, where there is an end and a second group."""
    return opened_at + (due_at - opened_at) / 2 if due_at and routed.second_group_id else None


def of_reviewers() -> QuerySet[Group]:
    """Those that say who is asked; the four roles say who may."""
    return Group.objects.exclude(name__in=access.GROUPS).order_by("name")


def deciders() -> QuerySet[User]:
    """Everybody who may decide."""
    return User.objects.with_perm("reviews.decide_review", backend=BACKEND).order_by("username")


def members(groups: Collection[int]) -> QuerySet[User]:
    """Who may decide and is in one of the groups."""
    return deciders().filter(groups__in=groups).distinct()


def told_of(groups: Collection[int]) -> QuerySet[User]:
    """Whom a review of these groups is for: where nobody in them may decide the admins, who may decide every review."""
    if not groups:
        return deciders()
    found = members(groups)
    return found if found.exists() else User.objects.with_perm("runs.change_agentconfig", backend=BACKEND).order_by("username")


def without_deciders() -> QuerySet[Group]:
    """Groups in which nobody may decide: what is routed to them waits until an admin looks."""
    asked = User.groups.through.objects.filter(group=OuterRef("pk"), user__in=deciders().order_by().values("pk"))
    return of_reviewers().filter(~Exists(asked))


def offered(reviews: ReviewQuerySet, user: User) -> ReviewQuerySet:
    """Those of the reviews that are not snoozed and not another's or another group's."""
    mine = list(user.groups.values_list("pk", flat=True))
    theirs = Q(group=None) | Q(group__in=mine) | Q(second_group__in=mine, escalated_at__isnull=False)
    reviews = reviews.open().filter(Q(snoozed_until=None) | Q(snoozed_until__lte=Now()))
    return reviews.filter(Q(assignee=user) | Q(theirs, assignee=None))


def asked(reviews: ReviewQuerySet, user: User) -> ReviewQuerySet:
    """Those of them that this person may decide: none that needs other eyes."""
    reviews = offered(reviews, user)
    given = Decision.objects.filter(review=OuterRef("pk"), actor=user, revoked_at=None)
    own = Q(approvals__gt=1) | Q(risk=Risk.HIGH)
    return reviews.exclude(own, run__started_by=user.get_username()).filter(~Exists(given))


def unclaimed(reviews: ReviewQuerySet, *, by_others_than: User | None = None) -> ReviewQuerySet:
    """Those that nobody has claimed; or nobody else."""
    held = Claim.objects.filter(review=OuterRef("pk"), until__gt=Now())
    return reviews.filter(~Exists(held.exclude(reviewer=by_others_than) if by_others_than else held))
