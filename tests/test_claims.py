"""Whose a review is: routes, claims, taking over, reassigning, snoozing, who looks at it, and what is kept of all that."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import Error as DatabaseError
from django.db import connection, connections, transaction
from django.db.models import F, ProtectedError
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from redis.exceptions import RedisError

from reviews import assignments, claims, decisions, groups, history, notices, presence, sweep
from reviews.eligibility import NotYours
from reviews.models import Claim, Notice, NoticeSettings, Review, ReviewEvent, Route
from runs import commands, executor, sdk, sweeper
from runs.models import Step
from tests import agents
from tests.interleaved import behind
from tests.processes import eventually

pytestmark = pytest.mark.django_db
MINUTES = [timedelta(minutes=number) for number in range(100)]


@sdk.agent("patient", title="Patient", version="1")
def patient(run: sdk.Run, order: agents.Order) -> agents.Answer:
    return agents.Answer(said=run.step("ask", sdk.ask_human(agents.Choice, within=3600), question="Which?").colour)


def opened(slug: str = "paying", text: str = "hello") -> Review:
    run = commands.start(slug, {"text": text, "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


def fresh(review: Review) -> Review:
    return Review.objects.with_people().get(pk=review.pk)


def holder(review: Review) -> str:
    held = fresh(review).held()
    return str(held.reviewer) if held else ""


def kinds(review: Review) -> list[str]:
    return list(review.events.order_by("pk").values_list("kind", flat=True))


def group_of(name: str, *people: User) -> Group:
    group, _ = Group.objects.get_or_create(name=name)
    for person in people:
        person.groups.add(group)
    return group


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


# --- routes ---------------------------------------------------------------------------------------------------------


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
    assert holder(review) == ""
    assignments.reassign(review.pk, people["reviewer2"], by=people["reviewer"], note="Yours.")
    assert claims.claim(review.pk, people["reviewer2"])


def test_an_admin_makes_groups_and_routes_and_gives_away_no_permissions(people: dict[str, User]) -> None:
    client = signed_in(people["admin"])
    assert client.post("/admin/auth/group/add/", {"name": "Card desk", "permissions": ["1"]}).status_code == 302
    desk = Group.objects.get(name="Card desk")
    assert not desk.permissions.exists()
    assert client.post("/admin/reviews/route/add/", {"agent": "paying", "cause": "gated", "group": desk.pk}).status_code == 302
    again = client.post("/admin/reviews/route/add/", {"agent": "paying", "cause": "gated", "group": desk.pk})
    assert "There is a route for these already." in again.text
    same = client.post("/admin/reviews/route/add/", {"agent": "", "cause": "", "group": desk.pk, "second_group": desk.pk})
    assert "The second group is the first" in same.text
    role = Group.objects.get(name="Reviewer")
    assert client.post(f"/admin/auth/group/{role.pk}/change/", {"name": "Nobody"}).status_code == 403
    refused = client.post("/admin/reviews/route/add/", {"agent": "", "cause": "", "group": role.pk})
    assert "Select a valid choice" in refused.text
    assert str(Route.objects.get()) == "paying, Gated: Card desk"


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


# --- claims ---------------------------------------------------------------------------------------------------------


def test_a_claim_lasts_five_minutes_by_the_clock_of_the_database_and_says_so_once(people: dict[str, User]) -> None:
    review = opened()
    assert claims.claim(review.pk, people["reviewer"])
    assert claims.claim(review.pk, people["reviewer"])
    assert not claims.claim(review.pk, people["reviewer2"])
    assert kinds(review) == ["claimed"]
    assert Claim.objects.filter(until__gt=Now() + MINUTES[4], until__lte=Now() + MINUTES[5]).exists()
    Claim.objects.update(until=Now() - timedelta(seconds=1))
    assert holder(review) == ""
    assert claims.claim(review.pk, people["reviewer2"])
    assert holder(review) == "reviewer2"
    claims.release(review.pk, people["reviewer"])
    assert holder(review) == "reviewer2"
    claims.release(review.pk, people["reviewer2"])
    assert (holder(review), kinds(review)) == ("", ["claimed", "claimed", "released"])


def test_what_is_closed_cannot_be_claimed(people: dict[str, User]) -> None:
    review = opened()
    commands.cancel(review.run_id, by="operator")
    assert not claims.claim(review.pk, people["reviewer"])
    assert not Claim.objects.exists()


def test_an_open_page_keeps_its_claim_and_one_that_is_left_gives_it_up_soon(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    here = reverse("review_here", args=[review.pk])
    client.post(reverse("claim_review", args=[review.pk]))
    Claim.objects.update(until=Now() + MINUTES[1])
    assert client.post(here).status_code == 200
    assert Claim.objects.filter(until__gt=Now() + MINUTES[4]).exists()
    assert client.post(here, {"left": "yes"}).status_code == 204
    assert Claim.objects.filter(until__lte=Now() + claims.GRACE).exists()
    client.post(here)  # the page was only loaded again
    assert Claim.objects.filter(until__gt=Now() + MINUTES[4]).exists()
    Claim.objects.update(until=Now() - MINUTES[2])
    client.post(here)  # it comes back after an hour: to look is not to claim
    assert holder(review) == ""


def test_signing_out_lets_the_claims_go(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    client.post(reverse("claim_review", args=[review.pk]))
    client.post(reverse("account_logout"))
    assert Claim.objects.filter(until__lte=Now() + claims.GRACE).exists()


def test_taking_over_needs_a_note_and_the_former_holder_reads_it(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    claims.claim(review.pk, people["reviewer2"])
    address = reverse("take_over_review", args=[review.pk])
    assert "Why you take it over" in client.get(address).text
    empty = client.post(address, {"note": "  "})
    assert (empty.status_code, holder(review)) == (422, "reviewer2")
    assert client.post(address, {"note": "You are at lunch."}).status_code == 302
    assert holder(review) == "reviewer"
    told = Notice.objects.get(user=people["reviewer2"])
    assert (told.kind, told.review) == ("taken_over", review)
    assert (
        "took it over from reviewer2: “You are at lunch.”" in signed_in(people["reviewer2"]).get(review.get_absolute_url()).text
    )


def test_two_people_claim_at_one_moment_and_one_gets_it(transactional_db: None, people: dict[str, User]) -> None:
    review = opened()
    for _ in range(5):
        got = at_once(*[lambda name=name: claims.claim(review.pk, people[name]) for name in ("reviewer", "reviewer2", "admin")])
        assert sorted(got) == [False, False, True]
        Claim.objects.all().delete()


def test_who_gives_it_back_while_it_is_decided_is_in_nobodys_way(transactional_db: None, people: dict[str, User]) -> None:
    """The review is locked first by both: each would else wait for the other."""
    review = opened()
    claims.claim(review.pk, people["reviewer"])
    with behind(lambda: claims.release(review.pk, people["reviewer"])) as given_back:
        Review.objects.select_for_update().get(pk=review.pk)  # as decide() begins
        given_back.waits()
        Claim.objects.filter(review=review).delete()  # as decide() ends
    assert given_back.result is None
    assert (holder(review), kinds(review)) == ("", ["claimed"])


def at_once(*acts: Any) -> list[Any]:
    """What each returned, each in a thread with a connection of its own, all from one barrier."""
    barrier, results = threading.Barrier(len(acts)), [None] * len(acts)

    def carry_out(number: int, act: Any) -> None:
        try:
            barrier.wait(30)
            results[number] = act()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=carry_out, args=one) for one in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


# --- the next one ---------------------------------------------------------------------------------------------------


def many(number: int) -> None:
    """Copies of one open review, on runs of their own, in a few statements."""
    first = opened()
    run = first.run
    runs = [
        type(run)(**{field.attname: getattr(run, field.attname) for field in run._meta.fields} | {"id": None})
        for _ in range(number - 1)
    ]
    for one in runs:
        one.pk = None
    made = type(run).objects.bulk_create(runs)
    values = {
        field.attname: getattr(first, field.attname)
        for field in Review._meta.concrete_fields
        if field.attname not in ("id", "run_id")
    }
    Review.objects.bulk_create([Review(run_id=one.pk, **values) for one in made])


def test_twenty_reviewers_who_ask_for_the_next_one_get_none_twice(transactional_db: None, people: dict[str, User]) -> None:
    """H2: each with a connection of their own, until nothing is left."""
    many(200)
    reviewers = [User.objects.create(username=f"person{number}") for number in range(20)]
    role = Group.objects.get(name="Reviewer")
    for person in reviewers:
        person.groups.add(role)

    def all_i_get(person: User) -> list[int]:
        found = []
        while (one := claims.next_one(Review.objects.open().in_turn(), person)) is not None:
            found.append(one)
        return found

    got = [one for each in at_once(*[lambda person=person: all_i_get(person) for person in reviewers]) for one in each]
    assert len(got) == len(set(got)) == 200
    assert Claim.objects.filter(until__gt=Now()).count() == 200


def test_next_looks_again_where_all_that_is_free_is_locked_for_a_moment(transactional_db: None, people: dict[str, User]) -> None:
    """As the sweeper does while it tells people of new ones, and whoever decides: the lock is of another connection."""
    review, looked = opened(), list[str]()

    def next_one() -> int | None:
        def watch(execute: Any, sql: str, *args: Any) -> Any:
            looked.extend(["looked"] if "SKIP LOCKED" in sql else [])
            return execute(sql, *args)

        with connections["default"].execute_wrapper(watch):
            try:
                return claims.next_one(Review.objects.open().in_turn(), people["reviewer"])
            finally:
                connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Review.objects.select_for_update().get(pk=review.pk)
            asked = pool.submit(next_one)
            eventually(lambda: len(looked) > len(claims.WINDOWS) or asked.done())
        assert asked.result(30) == review.pk
    assert holder(review) == "reviewer"


def test_next_passes_over_what_is_not_for_me(
    people: dict[str, User], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    me, desk = people["reviewer"], group_of("Card desk", people["reviewer2"])
    elsewhere, claimed, snoozed, assigned, approved, own, mine = (opened(text=f"number {one}") for one in range(7))
    Review.objects.filter(pk=elsewhere.pk).update(group=desk)
    claims.claim(claimed.pk, people["reviewer2"])
    assignments.snooze(snoozed.pk, timezone.now() + MINUTES[9], by=me)
    assignments.reassign(assigned.pk, people["reviewer2"], by=me, note="Yours.")
    Review.objects.filter(pk__in=[approved.pk, own.pk]).update(approvals=2)
    decisions.decide(approved.pk, actor=me, kind="approve", seen=approved.fingerprint, reason="fine")
    type(own.run).objects.filter(pk=own.run_id).update(started_by="reviewer")
    client = signed_in(me)
    with django_assert_max_num_queries(30):
        answer = client.post(reverse("next_review"))
    assert answer["Location"] == f"/reviews/{mine.pk}/"
    assert holder(mine) == "reviewer"
    nothing = client.post(f"{reverse('next_review')}?cause=gated", follow=True)
    assert nothing.redirect_chain[-1][0] == "/reviews/?cause=gated"
    assert "Nothing waits for you here" in nothing.text


# --- reassign and snooze --------------------------------------------------------------------------------------------


def test_a_review_is_given_to_a_person_and_back_with_a_note(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    claims.claim(review.pk, people["reviewer"])
    address = reverse("reassign_review", args=[review.pk])
    assert client.post(address, {"person": people["reviewer2"].pk, "note": ""}).status_code == 422
    outsider = client.post(address, {"person": people["outsider"].pk, "note": "You."})
    assert "Select a valid choice" in outsider.text
    assert client.post(address, {"person": people["reviewer2"].pk, "note": "You know him."}).status_code == 302
    assert (fresh(review).assignee, holder(review)) == (people["reviewer2"], "")
    assert Notice.objects.get(user=people["reviewer2"]).kind == "assigned"
    back = signed_in(people["reviewer2"]).post(address, {"person": "nobody", "note": "I do not."})
    assert back.status_code == 302
    assert fresh(review).assignee is None
    again = client.post(address, {"person": "nobody", "note": "Once more."})
    assert "It is assigned to nobody. Choose a person." in again.text
    assert kinds(review) == ["claimed", "reassigned", "reassigned"]


def test_a_review_is_snoozed_until_a_time_by_the_clock_of_the_reviewer(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    NoticeSettings.objects.create(user=people["reviewer"], zone="Asia/Tokyo")
    address = reverse("snooze_review", args=[review.pk])
    day = (timezone.now() + timedelta(days=2)).strftime("%Y-%m-%d")
    assert client.post(address, {"until": f"{day}T09:00"}).status_code == 302
    assert fresh(review).snoozed_until == datetime.fromisoformat(f"{day}T00:00:00+00:00")
    assert "End the snooze" in client.get(review.get_absolute_url()).text
    client.post(reverse("wake_review", args=[review.pk]))
    assert fresh(review).snoozed_until is None
    assert client.post(address, {"later": "hour"}).status_code == 302
    assert fresh(review).is_snoozed
    assert kinds(review) == ["snoozed", "woken", "snoozed"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"until": "2020-01-01T09:00"}, "That time has passed"),
        ({"until": "2099-01-01T09:00"}, "It must be decided by"),
        ({"until": "tomorrow"}, "Write a date and a time"),
        ({"until": ""}, "This field is required"),
        ({"later": "monday", "until": ""}, "It must be decided by"),
    ],
)
def test_a_time_that_will_not_do_is_refused_beside_the_field(people: dict[str, User], sent: dict[str, str], said: str) -> None:
    review = opened()
    Review.objects.update(due_at=timezone.now() + MINUTES[20])
    answer = signed_in(people["reviewer"]).post(reverse("snooze_review", args=[review.pk]), sent)
    assert answer.status_code == 422
    assert said in answer.text
    assert sent.get("until", "") in answer.text
    assert fresh(review).snoozed_until is None


@pytest.mark.parametrize(("zone", "until"), [("America/New_York", "9999-12-31T23:59"), ("Asia/Tokyo", "0001-01-01T00:00")])
def test_a_snooze_has_an_end_that_every_page_can_read(people: dict[str, User], zone: str, until: str) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    NoticeSettings.objects.create(user=people["reviewer"], zone=zone)
    answer = client.post(reverse("snooze_review", args=[review.pk]), {"until": until})
    assert answer.status_code == 422
    assert "at most 90 days" in answer.text or "That time has passed" in answer.text
    assert client.get(review.get_absolute_url()).status_code == 200
    assert fresh(review).snoozed_until is None


@pytest.mark.parametrize(
    ("now", "zone", "offered"),
    [
        (
            "2026-03-04T10:00",
            "UTC",
            {"hour": "03-04 11:00", "afternoon": "03-04 16:00", "tomorrow": "03-05 09:00", "monday": "03-09 09:00"},
        ),
        ("2026-03-04T16:00", "UTC", {"hour": "03-04 17:00", "tomorrow": "03-05 09:00", "monday": "03-09 09:00"}),
        ("2026-03-08T10:00", "UTC", {"hour": "03-08 11:00", "afternoon": "03-08 16:00", "tomorrow": "03-09 09:00"}),
        (
            "2026-03-04T20:00",
            "Asia/Tokyo",
            {"hour": "03-04 21:00", "afternoon": "03-05 07:00", "tomorrow": "03-06 00:00", "monday": "03-09 00:00"},
        ),
        (
            "2026-03-28T12:00",
            "Europe/Berlin",
            {"hour": "03-28 13:00", "afternoon": "03-28 15:00", "tomorrow": "03-29 07:00", "monday": "03-30 07:00"},
        ),
    ],
)
def test_times_that_are_offered(now: str, zone: str, offered: dict[str, str]) -> None:
    found = assignments.later(NoticeSettings(zone=zone), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert {name: f"{at.astimezone(UTC):%m-%d %H:%M}" for name, _, at in found} == offered


def test_nothing_is_changed_of_what_is_closed(people: dict[str, User]) -> None:
    review = opened()
    commands.cancel(review.run_id, by="operator")
    client = signed_in(people["reviewer"])
    for name in ("take_over_review", "reassign_review", "snooze_review"):
        assert "no longer open" in client.get(reverse(name, args=[review.pk])).text
        sent = {"note": "x", "person": people["reviewer2"].pk, "later": "hour"}
        answer = client.post(reverse(name, args=[review.pk]), sent)
        assert (answer.status_code, "so nothing was changed" in answer.text) == (422, True)
    assert kinds(review) == []


# --- who looks at it ------------------------------------------------------------------------------------------------


def test_others_see_who_has_it_open_until_the_page_is_left_or_silent(
    people: dict[str, User], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    review, other = opened(), opened()
    me, them = signed_in(people["reviewer"]), signed_in(people["reviewer2"])
    here = reverse("review_here", args=[review.pk])
    them.post(here)
    assert "reviewer2 is looking" in me.post(here).text
    with django_assert_num_queries(1):
        assert presence.others([review.pk, other.pk], people["reviewer"]) == {review.pk: ["reviewer2"]}
    them.post(here, {"left": "yes"})
    assert me.post(here).text.strip() == ""
    them.post(here)
    since = presence.opened_at(review.pk, people["reviewer2"])
    review.presences.update(seen_at=F("seen_at") - presence.LIFE)
    assert presence.others([review.pk], people["reviewer"]) == {}
    them.post(here)
    assert presence.opened_at(review.pk, people["reviewer2"]) == since


def test_a_decision_knows_when_its_actor_first_had_it_open(people: dict[str, User]) -> None:
    review = opened()
    presence.beat(review.pk, people["reviewer"])
    decided = decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint, reason="fine")
    assert decided.opened_at == presence.opened_at(review.pk, people["reviewer"])


# --- escalation, and what is kept -------------------------------------------------------------------------------------


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
    for change in (lambda: ReviewEvent.objects.update(note="else"), lambda: ReviewEvent.objects.all().delete()):
        with pytest.raises(DatabaseError, match="append_only"), transaction.atomic():
            change()


__all__ = ["agents"]
