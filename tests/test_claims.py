"""Who is at a review: claims, the next one, taking over, and who looks at it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from reviews import assignments, claims, decisions, presence
from reviews.models import Claim, Notice, Review
from runs import commands
from tests.interleaved import behind
from tests.processes import eventually
from tests.reviewing import MINUTES, at_once, group_of, holder, kinds, opened, signed_in

pytestmark = pytest.mark.django_db


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


def test_whoever_begins_to_edit_is_at_it_and_open_pages_hear_of_that(people: dict[str, User]) -> None:
    review, mine, theirs = opened("guessing"), signed_in(people["reviewer"]), signed_in(people["reviewer2"])
    draft, here = (reverse(name, args=[review.pk]) for name in ("draft_review", "review_here"))
    typed = {"decision": "edit", "value.colour": "green"}
    assert "Release" not in mine.post(here, {"holder": ""}).text
    assert mine.post(draft, typed).status_code == 204
    assert (holder(review), kinds(review)) == ("reviewer", ["claimed"])
    told = mine.post(here, {"holder": ""}).text
    assert 'id="claimed" hx-swap-oob="true"' in told
    assert "Release" in told
    assert "hx-swap-oob" not in mine.post(here, {"holder": people["reviewer"].pk}).text, "the page shows it already"
    assert "reviewer is at it" in theirs.post(here, {"holder": ""}).text
    theirs.post(draft, typed)
    assert holder(review) == "reviewer", "what somebody else is at is not taken from them"
    Claim.objects.all().delete()
    Review.objects.update(group=group_of("Card desk", people["reviewer2"]))
    mine.post(draft, typed)
    assert holder(review) == "", "it is not theirs to decide"
    assert theirs.post(draft, typed | {"value.amount": "9" * 200_001}).status_code == 413
    assert holder(review) == "reviewer2", "also of what is too long to be kept"


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


# --- the next one -----------------------------------------------------------------------------------------------------


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
    review, looked = opened(), list[int]()

    def next_one() -> int | None:
        def watch(execute: Any, sql: str, *args: Any) -> Any:
            looked.extend([connection.connection.info.backend_pid] if "SKIP LOCKED" in sql else [])
            return execute(sql, *args)

        with connection.execute_wrapper(watch):
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
    assert len(set(looked)) > 1, "while it pauses, others may have its connection"
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
    with django_assert_max_num_queries(12):
        answer = client.post(reverse("next_review"))
    assert answer["Location"] == f"/reviews/{mine.pk}/"
    assert holder(mine) == "reviewer"
    nothing = client.post(f"{reverse('next_review')}?cause=gated", follow=True)
    assert nothing.redirect_chain[-1][0] == "/reviews/?cause=gated"
    assert "Nothing waits for you here" in nothing.text


# --- who looks at it --------------------------------------------------------------------------------------------------


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
    since = review.presences.get(reviewer=people["reviewer2"]).since
    review.presences.update(seen_at=F("seen_at") - presence.LIFE)
    assert presence.others([review.pk], people["reviewer"]) == {}
    them.post(here)
    assert review.presences.get(reviewer=people["reviewer2"]).since == since


def test_a_decision_knows_when_its_actor_first_had_it_open(people: dict[str, User]) -> None:
    review = opened()
    presence.beat(review.pk, people["reviewer"])
    decided = decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint, reason="fine")
    assert decided.opened_at == review.presences.get().since
