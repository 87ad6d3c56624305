"""Which group is asked: by its route, a second one when half of the time has passed, nobody who may not decide any more."""

import re
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import ProtectedError
from django.db.models.functions import Now
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from redis.exceptions import RedisError

from reviews import assignments, claims, decisions, delivery, groups, history, notices, sweep
from reviews.eligibility import NotYours
from reviews.listing import Filters, listing
from reviews.models import Claim, Notice, NoticeSettings, Review, ReviewEvent, Route
from runs import commands, sdk, sweeper
from runs.models import AgentConfig, Run, Step
from tests.reviewing import MINUTES, at_once, fresh, group_of, holder, kinds, opened, signed_in

pytestmark = pytest.mark.django_db


def test_the_most_precise_route_counts(people: dict[str, User]) -> None:
    lines = {("", ""): "any", ("", "gated"): "cause", ("paying", ""): "agent", ("paying", "gated"): "both"}
    made = {place: group_of(name) for place, name in lines.items()}

    def asked() -> str:
        found = groups.route("paying", "gated").group_id
        return Group.objects.get(pk=found).name if found else "everybody"

    assert asked() == "everybody"
    for place in (("", ""), ("", "gated"), ("paying", ""), ("paying", "gated")):
        Route.objects.create(agent=place[0], cause=place[1], group=made[place])
        assert asked() == lines[place]
    Route.objects.create(agent="guessing", cause="gated", group=group_of("elsewhere"))
    assert asked() == "both"


def test_a_review_goes_to_the_group_of_its_route_and_only_that_group_decides(people: dict[str, User]) -> None:
    desk = group_of("Card desk", people["reviewer"])
    Route.objects.create(agent="paying", group=desk)
    review = opened()
    assert (review.group, review.escalate_at) == (desk, None)
    for act in (
        lambda: claims.take_over(review.pk, people["reviewer2"], "mine"),
        lambda: assignments.reassign(review.pk, people["reviewer2"], by=people["reviewer2"], note="mine"),
        lambda: assignments.snooze(review.pk, timezone.now() + MINUTES[9], by=people["reviewer2"]),
    ):
        with pytest.raises(NotYours, match="for the group Card desk"):
            act()
    said = signed_in(people["reviewer2"]).post(reverse("claim_review", args=[review.pk]), follow=True).text
    assert "This review is for the group Card desk" in said
    offered = [name for name in ("claim_review", "reassign_review", "snooze_review") if reverse(name, args=[review.pk]) in said]
    assert offered == [], "nothing that would be refused"
    assert holder(review) == ""
    assignments.reassign(review.pk, people["reviewer2"], by=people["reviewer"], note="Yours.")
    assert claims.claim(review.pk, people["reviewer2"])


def test_an_admin_makes_groups_and_routes_and_gives_away_no_permissions(people: dict[str, User]) -> None:
    client = signed_in(people["admin"])
    assert client.post("/admin/auth/group/add/", {"name": "Card desk", "permissions": ["1"]}).status_code == 302
    desk = Group.objects.get(name="Card desk")
    assert not desk.permissions.exists()
    assert "Card desk: nobody in it may decide</option>" in client.get("/admin/reviews/route/add/").text
    desk.user_set.add(people["outsider"])
    made = client.post("/admin/reviews/route/add/", {"agent": "paying", "cause": "gated", "group": desk.pk}, follow=True)
    assert "Nobody in the group Card desk may decide, so its reviews wait until an admin decides them." in made.text
    assert "Card desk: nobody in it may decide" in client.get("/admin/reviews/route/").text
    desk.user_set.add(people["reviewer"])
    assert "nobody in it" not in client.get("/admin/reviews/route/").text + client.get("/admin/reviews/route/add/").text
    again = client.post("/admin/reviews/route/add/", {"agent": "paying", "cause": "gated", "group": desk.pk})
    assert "There is a route for these already." in again.text
    same = client.post("/admin/reviews/route/add/", {"agent": "", "cause": "", "group": desk.pk, "second_group": desk.pk})
    assert "The second group is the first" in same.text
    role = Group.objects.get(name="Reviewer")
    assert client.post(f"/admin/auth/group/{role.pk}/change/", {"name": "Nobody"}).status_code == 403
    refused = client.post("/admin/reviews/route/add/", {"agent": "", "cause": "", "group": role.pk})
    assert "Select a valid choice" in refused.text
    assert str(Route.objects.get()) == "paying, Gated: Card desk"


def test_an_admin_chooses_the_agent_of_a_route_among_those_that_are_known(client: Client, people: dict[str, User]) -> None:
    client.force_login(people["admin"])
    desk = group_of("Card desk", people["reviewer"])
    gone = Route.objects.create(agent="long-gone", group=desk)
    AgentConfig.objects.create(slug="of-a-row", threshold=0.5)
    html = client.get("/admin/reviews/route/add/").text
    for slug, title in (("", "Every agent"), ("paying", sdk.AGENTS["paying"].title), ("of-a-row", "of-a-row")):
        assert re.search(rf'<option value="{slug}"[^>]*>{title}</option>', html)
    assert "long-gone" not in html
    misspelt = client.post("/admin/reviews/route/add/", {"agent": "payin", "cause": "", "group": desk.pk})
    assert "Select a valid choice" in misspelt.text
    address = f"/admin/reviews/route/{gone.pk}/change/"
    assert '<option value="long-gone" selected>long-gone</option>' in client.get(address).text
    assert client.post(address, {"agent": "long-gone", "cause": "gated", "group": desk.pk}).status_code == 302
    assert str(Route.objects.get()) == "long-gone, Gated: Card desk"


def test_of_reviews_for_a_group_in_which_nobody_may_decide_the_admins_are_told(people: dict[str, User]) -> None:
    Route.objects.create(group=group_of("Card desk", people["outsider"]))
    review = opened()
    notices.tell_due()
    assert [str(one.user) for one in Notice.objects.filter(review=review)] == ["admin"]
    group_of("Card desk", people["reviewer"])
    review = opened()
    notices.tell_due()
    assert [str(one.user) for one in Notice.objects.filter(review=review)] == ["reviewer"]


def test_a_group_that_is_asked_is_not_deleted_under_its_reviews(people: dict[str, User]) -> None:
    desk, review = group_of("Card desk", people["reviewer"]), opened()
    for name in ("group", "second_group"):
        Review.objects.update(**{"group": None, "second_group": None} | {name: desk})
        with pytest.raises(ProtectedError):
            desk.delete()
        assert getattr(fresh(review), name) == desk


def test_a_review_from_before_the_inbox_says_what_its_step_does_and_is_told_about(people: dict[str, User]) -> None:
    new, old, twin, unknown, closed = (opened() for _ in range(5))
    asked = list(Review.objects.order_by("pk").values("effect", "risk", "tell_at"))
    old_ones = Review.objects.exclude(pk=new.pk)
    old_ones.update(effect="none", risk=1, tell_at=None, same="")
    Review.objects.filter(pk=new.pk).update(risk=1, tell_at=None)
    Review.objects.filter(pk=unknown.pk).update(cause="outcome_unknown")
    Review.objects.filter(pk=closed.pk).update(state="decided")
    Step.objects.filter(run__in=[old.run_id, new.run_id]).update(effect="once")
    migration = import_module("reviews.migrations.0015_groups_stay")
    migration.fill(apps, SimpleNamespace(connection=connection))
    for review in (new, old, twin, unknown, closed):
        review.refresh_from_db()
    assert [(one.effect, one.risk) for one in (new, old, unknown, closed)] == [
        (asked[0]["effect"], 1),
        ("once", 2),
        (asked[3]["effect"], 2),
        ("none", 1),
    ]
    assert [one.tell_at for one in (new, old, closed)] == [None, old.opened_at, None]
    assert twin.risk == asked[2]["risk"]


# --- what comes due, and what is kept ---------------------------------------------------------------------------------


def test_half_of_the_time_has_passed_so_a_second_group_is_asked_too(people: dict[str, User]) -> None:
    first, second = group_of("First", people["reviewer"]), group_of("Second", people["reviewer2"])
    Route.objects.create(group=first, second_group=second)
    review = opened("patient")
    assert review.due_at is not None
    assert review.escalate_at == review.opened_at + (review.due_at - review.opened_at) / 2
    me = people["reviewer2"]
    mine = groups.asked(Review.objects.all(), me)
    notices.escalate_due()
    assert (mine.count(), kinds(review)) == (0, [])
    claims.claim(review.pk, people["reviewer"])
    Review.objects.update(escalate_at=Now() - MINUTES[1], snoozed_until=Now() + MINUTES[9])
    notices.escalate_due()
    assert kinds(review) == ["claimed"], "somebody is at it"
    Claim.objects.all().delete()
    notices.escalate_due()
    notices.escalate_due()
    assert (mine.count(), kinds(review)) == (1, ["claimed", "escalated"])
    assert not fresh(review).is_snoozed
    assert [one.kind for one in Notice.objects.filter(user=me)] == ["escalated"]
    assert claims.next_one(Review.objects.open().in_turn(), me) == review.pk


def test_what_half_of_its_time_has_passed_for_comes_before_its_like(people: dict[str, User]) -> None:
    risky, timed, old = opened("paying"), opened("patient"), opened("guessing")
    now = timezone.now()
    Review.objects.filter(pk=old.pk).update(opened_at=now - MINUTES[90])
    Review.objects.filter(pk=timed.pk).update(opened_at=now - MINUTES[40], due_at=now + MINUTES[20], tell_at=now - MINUTES[10])
    for order in ([risky, old, timed], [risky, timed, old]):
        rows = listing(QueryDict()).rows
        assert [row.review for row in rows] == order == list(Review.objects.in_turn())
        assert [row.turn for row in rows] == sorted(row.turn for row in rows)
        second = rows[1].review
        assert [row.review for row in listing(QueryDict(f"after={second.pk}")).rows] == [order[2]]
        assert list(Review.objects.after(second)) == [order[2]]
        assert Filters(viewer=people["reviewer"]).next(risky) == second
        notices.tell_due()


def test_after_a_decision_comes_what_is_for_me_and_free_or_nothing(people: dict[str, User]) -> None:
    me, other = people["reviewer"], people["reviewer2"]
    first, theirs, given, held, snoozed, mine = (opened("guessing") for _ in range(6))
    own = opened("patient")
    Review.objects.filter(pk=theirs.pk).update(group=group_of("Cards", other))
    Review.objects.filter(pk=given.pk).update(assignee=other)
    Review.objects.filter(pk=snoozed.pk).update(snoozed_until=Now() + MINUTES[9])
    Review.objects.filter(pk=own.pk).update(approvals=2)
    Run.objects.filter(pk=own.run_id).update(started_by=me.username)
    claims.claim(held.pk, other)
    claims.claim(mine.pk, me)
    assert (Filters(viewer=me).next(first), Filters(viewer=other).next(first)) == (mine, theirs)
    assert (Filters(viewer=me).next(mine), Filters(viewer=me, agent="patient").next(mine)) == (first, None)


def test_sweepers_at_one_moment_escalate_once(transactional_db: None, people: dict[str, User]) -> None:
    Route.objects.create(group=group_of("First"), second_group=group_of("Second", people["reviewer2"]))
    review = opened("patient")
    Review.objects.update(escalate_at=Now() - MINUTES[1])
    at_once(*[notices.escalate_due] * 4)
    assert kinds(review) == ["escalated"]
    assert Notice.objects.filter(kind="escalated").count() == 1


def test_while_redis_is_away_and_a_run_is_due_reviews_are_escalated_as_ever(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    Route.objects.create(group=group_of("First"), second_group=group_of("Second", people["reviewer2"]))
    review = opened("patient")
    Review.objects.update(escalate_at=Now() - MINUTES[1])
    commands.start("paying", {"text": "hello", "number": 3}, by="operator")
    with monkeypatch.context() as away:
        away.setitem(settings.RQ_QUEUES["default"], "URL", "redis://127.0.0.1:1/0")
        with pytest.raises(RedisError):
            sweeper.sweep()
    assert kinds(review) == ["escalated"]


def test_the_sweeper_asks_one_question_where_nothing_is_due(
    people: dict[str, User], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    opened()
    sweep.sweep()
    with django_assert_num_queries(1):
        sweep.sweep()


@pytest.mark.parametrize("removed", ["role", "disabled"])
def test_whoever_was_removed_holds_nothing_any_more(people: dict[str, User], removed: str) -> None:
    """H8: whichever way it was done, for the sweeper asks the database who may decide."""
    claimed, assigned, others = opened(), opened(), opened()
    gone = people["reviewer2"]
    client = signed_in(gone)
    claims.claim(claimed.pk, gone)
    claims.claim(others.pk, people["reviewer"])
    assignments.reassign(assigned.pk, gone, by=people["reviewer"], note="Yours.")
    sweep.sweep()
    assert (holder(claimed), fresh(assigned).assignee) == ("reviewer2", gone)
    gone.groups.clear() if removed == "role" else User.objects.filter(pk=gone.pk).update(is_active=False)
    act = client.post(reverse("decide_review", args=[claimed.pk]), {"decision": "approve", "seen": claimed.fingerprint})
    assert act.status_code == (403 if removed == "role" else 302)
    assert fresh(claimed).is_open
    sweep.sweep()
    assert (holder(claimed), holder(others), fresh(assigned).assignee) == ("", "reviewer", None)
    said = [f"{line.did}: {line.note}" for line in history.lines(claimed)]
    assert said[-1] == "The claim of reviewer2 was taken back: may no longer decide reviews"


def test_whoever_was_removed_gets_no_mail_that_has_waited(people: dict[str, User]) -> None:
    User.objects.update(email="somebody@example.com")
    NoticeSettings.objects.create(user=people["reviewer2"], mail=True, digest_minutes=0)
    opened()
    notices.tell_due()
    people["reviewer2"].groups.clear()
    assert delivery.deliver() == 0
    assert Notice.objects.get(user=people["reviewer2"]).delivery == "dropped"


def test_the_history_tells_everything_in_order_and_cannot_be_changed(people: dict[str, User]) -> None:
    review = opened()
    claims.claim(review.pk, people["reviewer"])
    claims.release(review.pk, people["reviewer"])
    decisions.decide(review.pk, actor=people["reviewer"], kind="reject", seen=review.fingerprint, reason="<b>Too dear</b>")
    told = [(line.who, line.did) for line in history.lines(fresh(review))]
    assert told == [
        ("", "It was opened"),
        ("reviewer", "claimed it"),
        ("reviewer", "gave it back"),
        ("reviewer", "decided “Rejected”"),
    ]
    html = signed_in(people["reviewer2"]).get(review.get_absolute_url()).text
    assert "gave it back" in html
    assert "<b>Too dear</b>" not in html
    changes = {"update": lambda: ReviewEvent.objects.update(note="else"), "delete": lambda: ReviewEvent.objects.all().delete()}
    for what, change in changes.items():
        with pytest.raises(DatabaseError, match=f"Cannot {what} rows from reviews_reviewevent"), transaction.atomic():
            change()
