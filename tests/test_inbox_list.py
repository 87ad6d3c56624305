"""The list of the inbox: what is in it, in which order, how it is filtered, and what changed since it was shown."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from reviews import claims, decisions, listing, presence
from reviews.filters import Filters
from reviews.models import Decision, Review
from runs import commands, executor, sdk
from tests import agents
from tests.reviewing import signed_in
from tests.test_inbox import HOSTILE, client, opened

pytestmark = pytest.mark.django_db


def made(title: str, **more: Any) -> Review:
    """A row that no run stands behind any more: enough to be listed."""
    first = Review.objects.order_by("pk").first() or opened("guessing", "the message")
    position = Review.objects.order_by("-pk").values_list("pk", flat=True)[0] + 100
    values = {field.name: getattr(first, field.name) for field in Review._meta.concrete_fields if not field.primary_key}
    values |= {"title": title, "position": position, "proposal": {"colour": "red"}, "risk": 1, "opened_at": timezone.now()}
    return Review.objects.create(**values | more)


def titles(query: str, viewer: User) -> list[str]:
    return [row.review.title for row in listing.listing(QueryDict(query), viewer).rows]


def rows_of(html: str) -> dict[int, bool]:
    """Number of each row of an answer -> whether it is gone."""
    parts = html.split('data-row="')[1:]
    return {int(part.split('"')[0]): "data-gone" in part.split(">")[0] for part in parts}


@pytest.fixture
def people_at_work(people: dict[str, User]) -> dict[str, User]:
    """`reviewer` is in the group "Payments"; with one review for each tab."""
    group = Group.objects.create(name="Payments")
    people["reviewer"].groups.add(group)
    opened("guessing", "the message")
    Review.objects.update(title="plain")
    now = timezone.now()
    made("mine", assignee=people["reviewer"])
    made("of another", assignee=people["reviewer2"])
    made("of my group", group=group)
    made("escalated to us", second_group=group, escalated_at=now)
    made("not yet to us", second_group=group)
    made("late", due_at=now - timedelta(minutes=1))
    made("asleep", snoozed_until=now + timedelta(hours=1), group=group, assignee=people["reviewer"])
    made("awake again", snoozed_until=now - timedelta(hours=1))
    claims.claim(made("claimed by me").pk, people["reviewer"])
    claims.claim(made("claimed by another").pk, people["reviewer2"])
    return people


def test_a_row_names_whom_a_review_is_for_and_once_it_is_escalated_both_groups(people: dict[str, User]) -> None:
    first, second = (Group.objects.create(name=name) for name in ("Payments", "Seniors"))
    made("for one", group=first, second_group=second)
    made("for both", group=first, second_group=second, escalated_at=timezone.now())
    rows = listing.listing(QueryDict("group=payments"), people["reviewer"]).rows
    assert {row.review.title: row.line.group for row in rows} == {"for one": "Payments", "for both": "Payments and Seniors"}


# --- what is in it --------------------------------------------------------------------------------------------------


def test_an_empty_inbox_says_that_nobody_is_needed(client: Client) -> None:
    page = client.get(reverse("inbox")).content.decode()
    assert "Nobody is needed" in page
    assert '<div class="card-header" hidden>' in page, "and counts nothing"


def test_what_is_riskier_comes_first_then_what_is_older_and_nothing_that_is_closed(
    client: Client, people: dict[str, User]
) -> None:
    now = timezone.now()
    made("new and risky", risk=2)
    made("old", opened_at=now - timedelta(days=1))
    made("old and harmless", opened_at=now - timedelta(days=2), risk=0)
    made("decided", state="decided")
    assert titles("", people["reviewer"]) == ["new and risky", "old", "Guess", "old and harmless"]
    html = client.get(reverse("inbox")).content.decode()
    assert 'data-count="all" data-number="4"' in html
    assert "decided</strong>" not in html


@pytest.mark.parametrize(
    ("tab", "seen"),
    [
        ("mine", {"mine", "claimed by me"}),
        ("groups", {"of my group", "escalated to us"}),
        ("unassigned", {"plain", "of my group", "escalated to us", "not yet to us", "late", "awake again"}),
        ("overdue", {"late"}),
        ("snoozed", {"asleep"}),
    ],
)
def test_each_tab_holds_what_it_says_and_counts_it(people_at_work: dict[str, User], tab: str, seen: set[str]) -> None:
    reviewer = people_at_work["reviewer"]
    assert set(titles(f"tab={tab}", reviewer)) == seen
    counts = listing.listing(QueryDict(""), reviewer).counts
    assert counts[listing.Tab(tab)] == len(seen)
    assert counts[listing.Tab.ALL] == 10
    assert "asleep" not in titles("", reviewer)


def test_nobody_in_particular_has_nothing_of_their_own(people_at_work: dict[str, User]) -> None:
    assert [Filters.read(QueryDict(f"tab={tab}")).reviews().count() for tab in ("mine", "groups")] == [0, 0]


def test_when_all_are_snoozed_the_page_says_so_and_leads_to_them(client: Client) -> None:
    opened("guessing")
    Review.objects.update(snoozed_until=timezone.now() + timedelta(hours=1))
    html = client.get(reverse("inbox")).content.decode()
    assert "All of them are snoozed" in html
    assert "?tab=snoozed" in html


def test_closed_ones_which_may_be_very_many_are_counted_to_a_limit_and_not_for_each_tab(client: Client) -> None:
    opened("guessing")
    Review.objects.update(state="decided")
    for query in ("state=decided", "state=any&tab=unassigned", "by=reviewer", "state=any&whole=1"):
        with CaptureQueriesContext(connection) as asked:
            for page in ("inbox", "review_list", "review_rows"):
                client.get(f"{reverse(page)}?{query}")
        counted = [one["sql"] for one in asked.captured_queries if "COUNT(" in one["sql"] and "'open'" not in one["sql"]]
        assert len(counted) >= 2
        assert all(f"LIMIT {listing.MOST_COUNTED + 1}" in sql for sql in counted), counted


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["cause=gated", "agent=paying", "text=FIRST", "text=%22ledger%22", "step=pAY", "risk=2", "by=reviewer2", "state=expired",
     "group=payments", "text=first&cause=nonsense&risk=9&run=x&tab=no&state=%00", "text=ünd"],
)  # fmt: skip
def test_filters_narrow_the_list(people: dict[str, User], query: str) -> None:
    wanted, other = opened("paying", "first order ÜND more"), opened("guessing", "second order")
    if "by=" in query:
        seen = {"seen": wanted.fingerprint, "reason": "It is in order."}
        decisions.decide(other.pk, actor=people["admin"], kind="approve", seen=other.fingerprint)
        said = {"review": other, "actor": people["reviewer2"], "kind": "approve", "decided_at": timezone.now()}
        Decision.objects.create(**said, final=False)
        Decision.objects.create(**said, revoked_at=timezone.now())
        decisions.decide(wanted.pk, actor=people["reviewer2"], kind="reject", **seen)
    if "state=expired" in query:
        Review.objects.filter(pk=wanted.pk).update(state="expired")
    if "group=" in query:
        Review.objects.filter(pk=wanted.pk).update(group=Group.objects.create(name="Payments"))
    assert [row.review.pk for row in listing.listing(QueryDict(query), people["reviewer"]).rows] == [wanted.pk]


@pytest.mark.parametrize("text", ["100%", "a_b", "back\\slash", "it's", '"quoted"'])
def test_what_means_something_to_the_database_is_searched_as_it_is(people: dict[str, User], text: str) -> None:
    opened("guessing", f"holds {text} in it")
    opened("guessing", "holds 1000 and axb")
    assert len(titles(f"text={text.replace('%', '%25')}", people["reviewer"])) == 1


def test_a_search_finds_what_a_changed_proposal_says(people: dict[str, User]) -> None:
    review = made("changed")
    Review.objects.filter(pk=review.pk).update(proposal={"colour": "violet"})
    assert titles("text=violet", people["reviewer"]) == ["changed"]


def test_what_is_on_is_named_and_each_can_be_taken_away(client: Client) -> None:
    opened("paying", "first order")
    html = client.get(f"{reverse('inbox')}?cause=gated&risk=2&text=order&tab=unassigned").content.decode()
    for without in ("tab=unassigned&amp;risk=2&amp;text=order", "tab=unassigned&amp;cause=gated&amp;text=order"):
        assert f'href="/reviews/?{without}"' in html
    assert "More filters (1)" in html


def test_filters_that_fit_nothing_say_so_and_can_be_cleared(client: Client) -> None:
    opened("paying")
    html = client.get(f"{reverse('inbox')}?text=%00absent").content.decode()
    assert "Nothing fits these filters" in html
    assert "Clear filters" in html


def test_what_comes_from_outside_is_shown_as_text_in_a_row(client: Client) -> None:
    opened("asking", HOSTILE)
    html = client.get(f"{reverse('inbox')}?text={HOSTILE}&by={HOSTILE}&state=any").content.decode()
    html += client.get(reverse("inbox")).content.decode()
    assert "<script>document" not in html
    assert "<img src=x" not in html


# --- pages, folds, queries ------------------------------------------------------------------------------------------


def test_a_full_inbox_is_nine_queries_and_comes_in_pages(
    client: Client,
    people_at_work: dict[str, User],
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr("reviews.listing.ROWS", 4)
    everything = [review.title for review in Filters.read(QueryDict("")).reviews()]
    shown: list[str] = []
    query = ""
    for _ in range(3):
        with django_assert_max_num_queries(9):
            client.get(f"{reverse('inbox')}?{query}")
        page = listing.listing(QueryDict(query), people_at_work["reviewer"])
        shown += [row.review.title for row in page.rows]
        query = page.later_query
    assert shown == everything
    assert page.later is None
    with django_assert_max_num_queries(9):
        client.get(reverse("review_rows"), {"ids": ",".join(map(str, Review.objects.values_list("pk", flat=True))), "whole": "1"})


@pytest.mark.parametrize("after", ["x", "-1", "9" * 40, "123456"])
def test_a_cursor_that_names_no_review_shows_the_beginning(people: dict[str, User], after: str) -> None:
    opened("paying", "first order")
    assert titles(f"after={after}", people["reviewer"]) == ["Pay"]


def test_many_alike_of_one_run_are_one_row_that_leads_to_all_of_them(client: Client, people: dict[str, User]) -> None:
    reviewer, flood = people["reviewer"], [made("Refund") for _ in range(5)]
    made("Other"), made("Other"), made("Other")
    assert sorted(titles("", reviewer)) == ["Guess", "Other", "Other", "Other", "Refund"]
    html = client.get(reverse("inbox")).content.decode()
    assert f"Show all 5 alike of run {flood[0].run_id}" in html
    (row,) = [row for row in listing.listing(QueryDict(""), reviewer).rows if row.is_folded]
    assert row.review.pk == flood[0].pk
    assert titles(row.alike_query, reviewer) == ["Refund"] * 5
    there = listing.listing(QueryDict("tab=unassigned"), reviewer).rows[0]
    assert there.alike_query.startswith("tab=unassigned&"), "what it leads to is no more than it counts"
    assert listing.listing(QueryDict(""), reviewer).count == 9, "counted are reviews, not rows"


def test_many_alike_of_a_paused_agent_are_one_row_but_what_is_of_high_risk(client: Client, people: dict[str, User]) -> None:
    reviewer = people["reviewer"]
    flood = [opened("guessing", f"message {number}") for number in range(5)]
    other, risky = made("Other"), made("Guess", risk=2, run_id=flood[1].run_id)
    assert len(titles("", reviewer)) == 7, "the agent may ask more"
    commands.configure("guessing", by="admin", reviews_per_agent=5)
    executor.advance(commands.start("guessing", {"text": "one more", "number": 1}, by="operator").pk, owner="test")
    first, row, last = listing.listing(QueryDict(""), reviewer).rows
    assert [one.review.pk for one in (first, row, last)] == [risky.pk, flood[0].pk, other.pk]
    assert (row.alike, listing.listing(QueryDict(""), reviewer).count) == (5, 7)
    html = client.get(reverse("inbox")).content.decode()
    assert "Show all 5 alike of Guessing" in html
    assert f'formaction="{reverse("bulk_preview")}?{row.alike_query.replace("&", "&amp;")}"' in html
    assert titles(row.alike_query, reviewer) == ["Guess"] * 6
    html = client.post(f"{reverse('bulk_preview')}?{row.alike_query}", {"all": "yes"}).content.decode()
    assert "Decide 5 of 6 reviews together" in html
    assert rows_of(client.get(reverse("review_rows"), {"ids": f"{flood[0].pk},{flood[3].pk}"}).content.decode()) == {
        flood[0].pk: False,
        flood[3].pk: True,
    }


def test_who_else_looks_at_a_review_stands_in_its_row(client: Client, people: dict[str, User]) -> None:
    review = opened("guessing")
    presence.beat(review.pk, people["reviewer"])
    assert "is looking" not in client.get(reverse("inbox")).content.decode()
    presence.beat(review.pk, people["reviewer2"])
    assert 'reviewer2</span><span class="visually-hidden"> is looking' in client.get(reverse("inbox")).content.decode()
    for name, other in (("reviewer", "reviewer2"), ("reviewer2", "reviewer")):
        row = signed_in(people[name]).get(reverse("review_rows"), {"ids": review.pk}).content.decode()
        assert f'{other}</span><span class="visually-hidden"> is looking' in row
        assert f'{name}</span><span class="visually-hidden"> is looking' not in row


def test_a_paused_agent_is_named_above_its_reviews(client: Client) -> None:
    commands.configure("guessing", by="admin", reviews_per_agent=1)
    opened("guessing", "the only one")
    assert "is paused" not in client.get(reverse("inbox")).content.decode()
    executor.advance(commands.start("guessing", {"text": "one more", "number": 1}, by="operator").pk, owner="test")
    assert "Guessing is paused" in client.get(reverse("inbox")).content.decode()


# --- what changed since it was shown --------------------------------------------------------------------------------


def test_rows_are_told_apart_by_whether_they_still_fit(client: Client, people: dict[str, User]) -> None:
    stays, leaves, other = made("stays"), made("leaves"), made("other", cause="failed")
    leaves.state = "decided"
    leaves.save()
    ids = f"{stays.pk},{leaves.pk},{other.pk},999999,nonsense"
    html = client.get(reverse("review_rows"), {"ids": ids, "cause": "low_confidence"}).content.decode()
    assert rows_of(html) == {stays.pk: False, leaves.pk: True, other.pk: True}
    assert "<html" not in html


def test_a_row_that_changed_is_found_by_its_number_and_nothing_is_counted_until_that_is_asked(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    stays, leaves = made("stays"), made("leaves")
    with django_assert_num_queries(4) as asked:  # session, person, permissions, rows
        html = client.get(reverse("review_rows"), {"ids": f"{stays.pk}"}).content.decode()
    assert not [one for one in asked if "FILTER" in one["sql"]]
    assert "data-number" not in html
    Review.objects.filter(pk=leaves.pk).update(state="decided")
    with django_assert_num_queries(4):  # the same, and the counts in the place of rows
        html = client.get(reverse("review_rows"), {"counts": "1", "cause": "low_confidence"}).content.decode()
    assert 'data-count="all" data-number="2"' in html
    assert rows_of(html) == {}


def test_a_page_of_fifty_rows_reads_nothing_row_by_row(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    """Nor what no row shows: schemas and inputs may be large."""
    made("one")
    with django_assert_num_queries(5) as asked:  # session, person, permissions, rows, counts
        client.get(reverse("review_list"))
    assert not [one for one in asked if '"reviews_review"."schema"' in one["sql"] or '"runs_run"."input",' in one["sql"]]
    for number in range(49):
        made(f"number {number}", risk=number % 3, due_at=timezone.now())
    with django_assert_num_queries(5):
        assert len(rows_of(client.get(reverse("review_list")).content.decode())) == 50


def test_whoever_missed_something_gets_every_row_of_the_page_too(client: Client) -> None:
    shown, unheard = made("shown"), made("not heard of")
    shown.state = "cancelled"
    shown.save()
    html = client.get(reverse("review_rows"), {"ids": str(shown.pk), "whole": "1"}).content.decode()
    assert rows_of(html)[shown.pk]
    assert not rows_of(html)[unheard.pk]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (6000, "1 h 40 min left"),
        (59, "under 1 min left"),
        (-200, "3 min overdue"),
        (90_000, "1 d 1 h left"),
        (0, "under 1 min overdue"),
    ],
)
def test_time_that_is_left_is_said_in_words(seconds: int, words: str) -> None:
    assert listing.time_left(seconds) == words


def test_how_old_a_review_is_is_said_in_few_letters() -> None:
    said = {0: "now", 59: "now", 60: "1 min", 3599: "59 min", 3600: "1 h", 86_399: "23 h", 200_000: "2 d"}
    assert {seconds: listing.age(seconds) for seconds in said} == said


def test_a_row_says_what_is_asked_in_words_and_of_what_failed_why(people: dict[str, User]) -> None:
    opened("guessing", "a pear")
    made("Guess", cause="failed", proposal=None, why="ValueError: the bank\n said no")
    said = {row.review.cause: row.act for row in listing.listing(QueryDict(""), people["reviewer"]).rows}
    assert said == {"low_confidence": "Colour: red, Amount: 6 · a pear", "failed": "ValueError: the bank said no · a pear"}


__all__ = ["client"]


@pytest.mark.parametrize("word", ["overheated", "OVERHEATED by 7", "lamp shade"])
def test_a_search_finds_the_error_and_the_values_that_the_page_shows(people: dict[str, User], word: str) -> None:
    agents.FAILURES["lamp shade"] = [sdk.GiveUp("the kiln overheated by 7 degrees")]
    failed, other = opened("stumbling", "lamp shade"), opened("guessing", "a vase")
    client = signed_in(people["reviewer"])
    assert "overheated by 7" in client.get(failed.get_absolute_url()).text
    assert titles(f"text={word}", people["reviewer"]) == [failed.title]
    seen = {"seen": failed.fingerprint, "reason": "It is too hot."}
    decisions.decide(failed.pk, actor=people["reviewer2"], kind="reject", **seen)
    decisions.decide(other.pk, actor=people["reviewer2"], kind="approve", seen=other.fingerprint)
    history = reverse("decisions")
    found = client.get(f"{history}?text={word}").text
    assert (f"/reviews/{failed.pk}/" in found, f"/reviews/{other.pk}/" in found) == (True, False)
    group = Group.objects.get(name="Reviewer")
    group.permissions.remove(*group.permissions.filter(codename="view_payload"))
    blind = signed_in(User.objects.get(pk=people["reviewer"].pk))
    for address in (reverse("inbox"), history):
        assert f"/reviews/{failed.pk}/" not in blind.get(f"{address}?state=any&text={word}").text
