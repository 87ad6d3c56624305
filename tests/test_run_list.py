"""The list of runs: what each filter lets through, its counts, the views that people keep of it, and its files."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.db import connection
from django.db.models import BooleanField
from django.db.models.expressions import RawSQL
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from runs import commands, executor, listing
from runs.listing import RunFilters
from runs.models import Budget, Run, RunView, search

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def runs() -> dict[str, Run]:
    """An old cheap one that ended, and a new dear one that waits for a person."""
    old = commands.start("counting", {"text": "number one"}, by="operator")
    executor.advance(old.pk, owner="test")
    new = commands.start("paying", {"text": "number two"}, by="admin")
    executor.advance(new.pk, owner="test")
    Run.objects.filter(pk=old.pk).update(created_at=NOON, finished_at=NOON + timedelta(seconds=90), agent_version="old")
    Run.objects.filter(pk=new.pk).update(created_at=NOON + timedelta(days=1))
    for run, money in ((old, "0.25"), (new, "3")):
        Budget.objects.update_or_create(scope=f"run:{run.pk}", unit="money", defaults={"used": money})
    assert search.fill() == 2
    return {"one": Run.objects.get(pk=old.pk), "two": Run.objects.get(pk=new.pk)}


def test_a_text_follows_its_run_and_what_is_known_is_not_read_again() -> None:
    run = commands.start("counting", {"text": "number one"}, by="operator")
    assert (search.fill(), search.fill()) == (1, 0)
    executor.advance(run.pk, owner="test")
    assert (search.fill(), search.fill()) == (1, 0)
    run.refresh_from_db()
    found = search.SearchText.objects.get(pk=run.pk)
    assert json.dumps(run.output, ensure_ascii=False).lower()[2:6] in found.text
    assert found.ended_at == run.finished_at
    Run.objects.filter(pk=run.pk).update(output={"said": "Something Else"}, finished_at=run.finished_at + timedelta(seconds=1))
    assert (search.fill(), search.fill()) == (1, 0)
    assert "something else" in search.SearchText.objects.get(pk=run.pk).text
    failed = {"error": {"message": "The kiln Overheated"}, "finished_at": run.finished_at + timedelta(seconds=2)}
    Run.objects.filter(pk=run.pk).update(**failed)
    assert search.fill() == 1
    assert "the kiln overheated" in search.SearchText.objects.get(pk=run.pk).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "one two"),
        ("agent=paying", "two"),
        ("version=old", "one"),
        ("status=succeeded", "one"),
        ("waits=person", "two"),
        ("waits=nonsense", "one two"),
        ("by=admin", "two"),
        ("since=2026-11-21", "two"),
        ("until=2026-11-20", "one"),
        ("since=nonsense", "one two"),
        ("longer=90", "one"),
        ("longer=91", ""),
        ("shorter=90", "one"),
        ("shorter=89.5", ""),
        ("longer=-1", "one two"),
        ("longer=999999999999", ""),
        ("dearer=3", "two"),
        ("dearer=0.25", "one two"),
        ("cheaper=0.25", "one"),
        ("dearer=%C2%B2", "one two"),
        ("text=NUMBER+tw", "two"),
        ("text=%25", ""),
        ("text=agent&status=succeeded", ""),
        ("agent=paying&status=succeeded", ""),
        ("parent=7", ""),
        ("original=99999999999999999999", "one two"),
    ],
)
def test_each_filter_lets_through_what_it_says(runs: dict[str, Run], query: str, found: str) -> None:
    rows = set(RunFilters.read(QueryDict(query)).runs().values_list("pk", flat=True))
    assert {name for name, run in runs.items() if run.pk in rows} == set(found.split())


def test_many_of_a_cost_are_found_as_few_are(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_NAMED", 0)
    assert list(RunFilters.read(QueryDict("dearer=0.3")).runs()) == [runs["two"]]


def test_the_text_of_an_output_is_found_once_there_is_one(runs: dict[str, Run]) -> None:
    Run.objects.filter(pk=runs["two"].pk).update(output={"reply": "Dear Ms Zimmermann"}, finished_at=timezone.now())
    search.fill()
    assert list(RunFilters.read(QueryDict("text=zimmer")).runs()) == [runs["two"]]


def test_what_is_on_stands_above_the_list_and_can_be_taken_away(runs: dict[str, Run], signed_in: Any) -> None:
    page = signed_in().get("/runs/?agent=paying&longer=5&children=show").text
    assert "Took at least 5 s" in page
    assert 'href="/runs/?longer=5&amp;children=show"' in page
    assert "More filters (1)" in page


def test_many_are_counted_to_an_end(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(listing.Count(RunFilters())) == "2"
    monkeypatch.setattr(listing, "MOST_COUNTED", 1)
    assert str(listing.Count(RunFilters())) == "1+"


def test_what_takes_too_long_to_count_is_as_many_as_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.slow() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(20) IS NOT NULL'"
        )
        commands.start("counting", {"text": "one"}, by="operator")
        slow = Run.objects.annotate(slow=RawSQL("pg_temp.slow()", [], output_field=BooleanField())).filter(slow=True)
        monkeypatch.setattr(RunFilters, "runs", lambda filters: slow)
        assert str(listing.Count(RunFilters(agent="counting"), 51)) == "51+"
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


def test_a_text_in_no_index_is_looked_for_among_the_newest(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    filters = RunFilters.read(QueryDict("text=nu"))
    assert filters.runs().count() == 2
    monkeypatch.setattr(listing, "SHORT_REACH", 1)
    assert list(filters.runs()) == [runs["two"]]
    assert [chip.word for chip in filters.chips()] == ["“nu” in the newest 1"]
    assert RunFilters.read(QueryDict("text=num")).runs().count() == 2


def test_a_view_is_kept_shared_with_a_group_and_only_its_owners_to_change(people: dict[str, User], signed_in: Any) -> None:
    group = Group.objects.create(name="Fraud")
    people["operator"].groups.add(group)
    people["reviewer"].groups.add(group)
    client, other = signed_in(), signed_in("reviewer")
    kept = client.post("/runs/views/?status=failed&agent=paying", {"name": "Failed payments", "group": group.pk})
    assert kept.headers["Location"] == "/runs/?agent=paying&status=failed"
    assert client.post("/runs/views/?status=failed", {"name": "Failed payments"}).status_code == 422
    view = RunView.objects.get()
    assert 'aria-current="page"' in client.get(view.get_absolute_url()).text
    assert "shared by operator" in other.get("/runs/").text
    assert "Failed payments" not in signed_in("admin").get("/runs/").text
    assert other.post(reverse("delete_run_view", args=[view.pk])).status_code == 404
    client.get(reverse("delete_run_view", args=[view.pk]))
    assert RunView.objects.exists()
    client.post(reverse("delete_run_view", args=[view.pk]))
    assert not RunView.objects.exists()


def test_what_is_filtered_is_a_file_without_formulas(runs: dict[str, Run], signed_in: Any) -> None:
    Run.objects.filter(pk=runs["one"].pk).update(input_text="=HYPERLINK(1)")
    client = signed_in()
    (line,) = csv.DictReader(io.StringIO(read(client, "/runs/export.csv?status=succeeded").removeprefix("\ufeff")))
    assert (line["summary"], line["seconds"], line["version"]) == ("'=HYPERLINK(1)", "90.0", "old")
    records = json.loads(read(client, "/runs/export.json"))
    assert [one["run"] for one in records] == [runs["two"].pk, runs["one"].pk]
    assert client.get("/runs/export.xlsx").status_code == 404


def read(client: Client, path: str) -> str:
    response: Any = client.get(path)

    async def whole() -> bytes:
        return b"".join([piece async for piece in response.streaming_content])

    return async_to_sync(whole)().decode()
