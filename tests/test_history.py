"""The history of decisions, files of what is filtered, and views that are kept under a name."""

import csv
import io
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group, User
from django.db import connection
from django.http import QueryDict, StreamingHttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from reviews import decisions
from reviews.models import Decision, Review, SavedView
from reviews.past import Past
from runs.views import files
from tests.interleaved import behind
from tests.test_inbox import HOSTILE, client, opened

pytestmark = pytest.mark.django_db
BULK = uuid4()


def decided(people: dict[str, User], slug: str, text: str, kind: str, by: str, reason: str = "Because.") -> Decision:
    review = opened(slug, text)
    return decisions.decide(review.pk, actor=people[by], kind=kind, seen=review.fingerprint, reason=reason)


@pytest.fixture
def three(people: dict[str, User]) -> list[Decision]:
    """Two of yesterday and one of today."""
    found = [
        decided(people, "guessing", "first message", "approve", "reviewer2", reason=""),
        decided(people, "paying", "second message", "reject", "admin", reason="=Too dear\nby far"),
        decided(people, "guessing", "third message, Zürich", "reject", "reviewer2", reason=HOSTILE),
    ]
    Decision.objects.filter(pk__in=[found[0].pk, found[1].pk]).update(decided_at=timezone.now() - timedelta(days=1))
    return found


def read(response: StreamingHttpResponse) -> str:
    async def whole() -> bytes:
        return b"".join([piece async for piece in response])

    assert response.status_code == 200
    return async_to_sync(whole)().decode()


def table(client: Client, address: str) -> list[dict[str, str]]:
    text = read(client.get(address))  # type: ignore[arg-type]
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


# --- the history ----------------------------------------------------------------------------------------------------


def test_the_history_says_who_decided_what_when_and_why(client: Client, three: list[Decision]) -> None:
    html = client.get(reverse("decisions")).content.decode()
    assert html.index(three[2].review.get_absolute_url()) < html.index(three[0].review.get_absolute_url()), "the newest first"
    run = three[2].review.run
    assert f'<a href="/agents/guessing/">Guessing</a> · <a href="{run.get_absolute_url()}">run {run.pk}</a>' in html
    assert ["In bulk" in html, "to the proposal" in html] == [False, False]
    Decision.objects.filter(pk=three[0].pk).update(kind="edit", value={"colour": "green", "amount": 3}, bulk=BULK)
    html = client.get(reverse("decisions")).content.decode()
    assert ["2 changes to the proposal" in html, "<ins>" in html] == [True, False], "words are compared for who unfolds it"
    assert f'hx-get="{reverse("decisions")}?decision={three[0].pk}" hx-trigger="toggle' in html
    alone = client.get(reverse("decisions"), {"decision": three[0].pk}).content.decode()
    assert ["<ins>green</ins>" in alone, alone.count("<tr>"), f'id="changes-{three[0].pk}" open' in alone] == [True, 2, True]
    assert f'<a class="state tone-blue" href="{reverse("bulk_result", args=[BULK])}">In bulk</a>' in html
    for words in ("Approved", "Rejected", "reviewer2", "=Too dear", "first message"):
        assert words in html
    assert "<img src=x" not in html


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", [2, 1, 0]),
        ("by=reviewer2", [2, 0]),
        ("kind=approve", [0]),
        ("cause=gated", [1]),
        ("agent=guessing&kind=reject", [2]),
        ("step=PAY", [1]),
        ("text=ZÜRICH", [2]),
        ("since={today}", [2]),
        ("until={yesterday}", [1, 0]),
        ("since={yesterday}&until={yesterday}&by=admin", [1]),
        ("kind=nonsense&since=2026-13-99&until=tomorrow&by=%00", [2, 1, 0]),
        ("until=9999-12-31", [2, 1, 0]),
        ("text=nothing of the kind", []),
    ],
)
def test_the_history_is_filtered(three: list[Decision], query: str, seen: list[int]) -> None:
    days = {"today": f"{timezone.now():%Y-%m-%d}", "yesterday": f"{timezone.now() - timedelta(days=1):%Y-%m-%d}"}
    found = Past.read(QueryDict(query.format(**days))).decisions().order_by("-decided_at", "-pk")
    assert [decision.pk for decision in found] == [three[number].pk for number in seen]


def test_the_history_is_few_queries_and_says_when_nothing_fits(
    client: Client, three: list[Decision], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(7):
        client.get(reverse("decisions"))
    assert "No decision fits" in client.get(f"{reverse('decisions')}?text=absent").content.decode()
    Decision.objects.all().delete()
    assert "Nothing has been decided yet" in client.get(reverse("decisions")).content.decode()


# --- files ----------------------------------------------------------------------------------------------------------


def test_decisions_as_csv_are_what_is_filtered_with_every_formula_made_text(client: Client, three: list[Decision]) -> None:
    response = client.get(f"{reverse('export_decisions', args=['csv'])}?by=admin")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == f'attachment; filename="decisions-{timezone.now():%Y-%m-%d}.csv"'
    (line,) = table(client, f"{reverse('export_decisions', args=['csv'])}?by=admin")
    assert line["reason"] == "'=Too dear\nby far"
    assert (line["decided_by"], line["decision"], line["review"]) == ("admin", "reject", str(three[1].review_id))
    assert json.loads(line["proposal"]) == three[1].review.proposal


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "=cmd|' /C calc'!A0"])
def test_no_text_is_carried_out_by_a_spreadsheet(people: dict[str, User], client: Client, text: str) -> None:
    review = opened("guessing")
    Review.objects.filter(pk=review.pk).update(title=text, proposal=text)
    (line,) = table(client, reverse("export_reviews", args=["csv"]))
    assert line["step"] == f"'{text}"
    assert line["confidence"] == "0.3", "a number stays one"


def test_open_reviews_as_json_are_what_is_filtered_in_pieces(
    client: Client, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(files, "PIECE", 2)
    reviews = [opened("guessing", f"message {number} “ü”") for number in range(5)]
    opened("paying")
    with django_assert_max_num_queries(3 + 4):  # who asks; three pieces and the end
        records = json.loads(read(client.get(f"{reverse('export_reviews', args=['json'])}?agent=guessing")))  # type: ignore[arg-type]
    assert [record["review"] for record in records] == [review.pk for review in reversed(reviews)]
    assert records[0]["proposal"] == {"colour": "red", "amount": len("message 4 “ü”")}
    assert "“ü”" in records[0]["input"]


def test_a_slow_download_keeps_no_connection(transactional_db: None, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 1)
    reviews = [opened("guessing"), opened("paying")]
    response: Any = client.get(reverse("export_reviews", args=["csv"]))

    async def held() -> list[bool]:
        return [await sync_to_async(lambda: connection.connection is not None)() async for _ in response]

    assert async_to_sync(held)() == [False] * (1 + len(reviews))


def test_nothing_is_a_whole_file_too_and_an_unknown_form_is_not_found(client: Client) -> None:
    assert json.loads(read(client.get(reverse("export_reviews", args=["json"])))) == []  # type: ignore[arg-type]
    assert table(client, reverse("export_decisions", args=["csv"])) == []
    assert client.get("/reviews/export.xlsx").status_code == 404


# --- views ----------------------------------------------------------------------------------------------------------


def kept(client: Client, query: str, name: str, group: str = "") -> str:
    sent = {"name": name, "group": group}
    return client.post(f"{reverse('saved_views')}?{query}", sent, follow=True).content.decode()


def test_a_filter_is_kept_shared_renamed_and_deleted(client: Client, people: dict[str, User]) -> None:
    group, mate, stranger = Group.objects.create(name="Payments"), Client(), Client()
    people["reviewer"].groups.add(group)
    people["reviewer2"].groups.add(group)
    mate.force_login(people["reviewer2"])
    stranger.force_login(people["admin"])
    assert "Saved the view “Gated ones”." in kept(client, "cause=gated&nonsense=1", "Gated ones", str(group.pk))
    view = SavedView.objects.get()
    assert (view.query, view.owner) == ("cause=gated", people["reviewer"])
    inbox = [browser.get(reverse("inbox")).content.decode() for browser in (client, mate, stranger)]
    assert ["Gated ones" in html for html in inbox] == [True, True, False]
    for name in ("change_view", "delete_view"):
        assert mate.post(reverse(name, args=[view.pk]), {"name": "Mine now"}).status_code == 404
    client.post(reverse("change_view", args=[view.pk]), {"name": "Payments to check"})
    assert "Payments to check" not in mate.get(reverse("inbox")).content.decode(), "it is no longer shared"
    assert "Delete the view" in client.get(reverse("delete_view", args=[view.pk])).content.decode()
    assert SavedView.objects.count() == 1
    client.post(reverse("delete_view", args=[view.pk]))
    assert not SavedView.objects.exists()


@pytest.mark.parametrize(
    ("name", "group", "said"),
    [
        ("Gated ones", "", "You have a view of this name"),
        ("  ", "", "required"),
        ("x" * 61, "", "at most 60"),
        ("New", "other", "Choose a group that you are in."),
    ],
)
def test_a_view_that_cannot_be_kept_says_why_beside_its_field(client: Client, name: str, group: str, said: str) -> None:
    other = Group.objects.create(name="Not of this reviewer")
    kept(client, "cause=gated", "Gated ones")
    sent = {"name": name, "group": str(other.pk) if group else ""}
    answer = client.post(f"{reverse('saved_views')}?cause=gated", sent)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert SavedView.objects.count() == 1


def test_two_tabs_that_keep_one_name_at_one_moment(transactional_db: None, client: Client, people: dict[str, User]) -> None:
    other = SavedView.objects.create(owner=people["reviewer"], name="Another", query="cause=failed")
    for address in (f"{reverse('saved_views')}?cause=gated", reverse("change_view", args=[other.pk])):
        with behind(lambda address=address: client.post(address, {"name": "Gated ones", "group": ""})) as second:
            SavedView.objects.create(owner=people["reviewer"], name="Gated ones", query="cause=gated")
            second.waits()
        assert (second.result.status_code, "You have a view of this name" in second.result.content.decode()) == (422, True)
        SavedView.objects.get(name="Gated ones").delete()


def test_two_people_may_use_the_same_name_and_no_filter_is_no_view(client: Client, people: dict[str, User]) -> None:
    SavedView.objects.create(owner=people["admin"], name="Gated ones", query="cause=gated")
    kept(client, "cause=gated", "Gated ones")
    assert SavedView.objects.count() == 2
    assert "There is no filter to save" in kept(client, "", "Everything")


__all__ = ["client"]
