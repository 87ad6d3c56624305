"""Who is asked: the groups of reviewers, and the routes that lead reviews to them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from reviews.models import Claim, Decision, Review, ReviewQuerySet, Risk, Route
from runs import access, commands, sdk

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
    """Everybody who may decide, and may see about what."""
    sees = User.objects.with_perm("runs.view_payload", backend=BACKEND).order_by().values("pk")
    return User.objects.with_perm("reviews.decide_review", backend=BACKEND).filter(pk__in=sees).order_by("username")


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


def of(user: User) -> list[int]:
    """The groups that this person is in."""
    return list(user.groups.values_list("pk", flat=True))


def offered(reviews: ReviewQuerySet, user: User, mine: list[int] | None = None) -> ReviewQuerySet:
    """Those of the reviews that are not snoozed and not another's or another group's. `mine`: of(user), where it is known."""
    mine = of(user) if mine is None else mine
    theirs = Q(group=None) | Q(group__in=mine) | Q(second_group__in=mine, escalated_at__isnull=False)
    reviews = reviews.open().filter(Q(snoozed_until=None) | Q(snoozed_until__lte=Now()))
    return reviews.filter(Q(assignee=user) | Q(theirs, assignee=None))


def asked(reviews: ReviewQuerySet, user: User, own_rules: Q | None = None, mine: list[int] | None = None) -> ReviewQuerySet:
    """Those of them that this person may decide: none that needs other eyes.

    `own_rules`: by_own_rules, and `mine`: of(user), where these are known.
    """
    reviews = offered(reviews, user, mine)
    if not access.may_see_payloads(user):
        reviews = reviews.filter(run__in=access.revealed(user))
    given = Decision.objects.filter(review=OuterRef("pk"), actor=user, revoked_at=None)
    own = Q(approvals__gt=1) | Q(risk=Risk.HIGH)
    reviews = reviews.exclude(own, run__started_by=user.get_username()).filter(~Exists(given))
    return reviews.exclude(by_own_rules(user.get_username()) if own_rules is None else own_rules)


def by_own_rules(name: str) -> Q:
    """Which open reviews need two others, because this person wrote the rule that asks: few rules, however many reviews."""
    agents = commands.configured_by(name) & sdk.AGENTS.keys()
    if not agents:
        return NONE
    for_two = Review.objects.open().filter(approvals__gt=1, agent__in=agents).order_by()
    named = for_two.exclude(rule="").values("agent", "worker", "rule", "run__config_version").annotate(one=Min("run_id"))
    unnamed = for_two.filter(rule="").values("agent", "worker", "rule", "run__config_version", one=F("run_id")).distinct()
    own = NONE
    for found in (*named, *unnamed):
        rule: dict[str, Any] = dict(found)
        run_id, worker = rule.pop("one"), rule["worker"]
        if name in commands.authors(run_id, worker):
            own |= Q(approvals__gt=1, **(rule if rule["rule"] else {"run": run_id, "worker": worker}))
    return own


NONE = Q(pk__in=[])


def unclaimed(reviews: ReviewQuerySet, *, by_others_than: User | None = None) -> ReviewQuerySet:
    """Those that nobody has claimed; or nobody else."""
    held = Claim.objects.filter(review=OuterRef("pk"), until__gt=Now())
    return reviews.filter(~Exists(held.exclude(reviewer=by_others_than) if by_others_than else held))
