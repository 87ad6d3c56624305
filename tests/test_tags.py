"""Tags of runs: what may be one, how a run comes to have them, and how it is found by them."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from runs import audit, commands, event_log, executor
from runs.engine.tags import LONGEST, MOST, SHAPE, checked
from runs.listing import RunFilters
from runs.models import Run
from tests.test_children import Errand, delegating, errands, started
from tests.test_run_list import read

pytestmark = pytest.mark.django_db
TEXT = {"text": "number one"}


# --- what may be one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", []),
        (" , ,", []),
        ("vip", ["vip"]),
        ("VIP, region:eu ,vip", ["region:eu", "vip"]),
        (["second-try", "release:1.4"], ["release:1.4", "second-try"]),
        (("b", "a", "b"), ["a", "b"]),
        ("x" * LONGEST, ["x" * LONGEST]),
    ],
)
def test_tags_are_in_order_and_each_once(said: Any, found: list[str]) -> None:
    assert checked(said) == found


@pytest.mark.parametrize(
    "wrong",
    [
        "é",
        "_",
        ":",
        "-",
        "two words",
        "a:b:c",
        ":eu",
        "region:",
        "-vip",
        "vip-",
        "a--b",
        "=1+1",
        "x" * 41,
        ["VIP"],
        [""],
        [7],
        ["a\n"],
    ],
)
def test_what_cannot_be_a_tag_is_said_with_the_rule(wrong: Any) -> None:
    with pytest.raises(ValueError, match="cannot be a tag: a tag is a word of small letters"):
        checked(wrong)


def test_there_is_room_for_ten() -> None:
    assert len(checked([f"tag-{number}" for number in range(MOST)])) == MOST
    with pytest.raises(ValueError, match="at most 10 tags; these are 11"):
        checked([f"tag-{number}" for number in range(MOST + 1)])


@given(st.lists(st.from_regex(SHAPE, fullmatch=True).filter(lambda one: len(one) <= LONGEST), max_size=MOST))
def test_what_was_checked_once_is_so_again(tags: list[str]) -> None:
    assert checked(checked(tags)) == checked(", ".join(tags)) == sorted(set(tags))


# --- how a run comes to have them ---------------------------------------------------------------------------------


def test_a_run_has_them_from_its_first_event_on() -> None:
    run = commands.start("counting", TEXT, by="operator", tags=["vip", "region:eu"])
    assert run.tags == ["region:eu", "vip"]
    assert event_log.facts(run.pk)[0].data["tags"] == ["region:eu", "vip"]
    executor.advance(run.pk, owner="test")
    assert audit.first_wrong(run.pk) == ""
    assert Run.objects.get(pk=run.pk).tags == event_log.state(run.pk).tags == ["region:eu", "vip"]


def test_an_event_of_a_run_without_tags_is_as_it_always_was() -> None:
    run = commands.start("counting", TEXT, by="operator")
    assert run.tags == []
    assert "tags" not in event_log.facts(run.pk)[0].data


def test_tags_that_the_row_lost_are_missed_and_come_back_from_the_events() -> None:
    run = commands.start("counting", TEXT, by="operator", tags="vip")
    Run.objects.filter(pk=run.pk).update(tags=[])
    assert "tags" in audit.first_wrong(run.pk)
    event_log.reproject(run.pk)
    assert Run.objects.get(pk=run.pk).tags == ["vip"]
    assert audit.first_wrong(run.pk) == ""


def test_what_is_no_tag_starts_nothing() -> None:
    with pytest.raises(commands.Refused, match="“Two words” cannot be a tag"):
        commands.start("counting", TEXT, by="operator", tags=["Two words"])
    assert not Run.objects.exists()


def test_tags_cost_no_statement() -> None:
    def asked(**more: Any) -> int:
        with CaptureQueriesContext(connection) as queries:
            commands.start("counting", TEXT, by="operator", **more)
        return len(queries)

    asked()  # makes the configuration
    assert asked(tags=["vip", "region:eu"]) == asked()


def test_children_have_the_tags_of_their_parent_unless_they_are_given_others() -> None:
    def supervise(run: Any) -> str:
        run.spawn("as_it_is", errands, Errand(text="first"))
        run.spawn("others", errands, Errand(text="first"), tags=["child"])
        run.spawn_many("none", errands, [Errand(text="first")], tags=[])
        return "done"

    started(supervise)
    run = commands.start(delegating.slug, TEXT, by="operator", tags="vip, region:eu")
    executor.advance(run.pk, owner="test")
    children = run.children.order_by("pk")
    assert [child.tags for child in children] == [["region:eu", "vip"], ["child"], []]
    assert [audit.first_wrong(child.pk) for child in children] == [""] * 3


def test_what_a_supervisor_gives_as_a_tag_and_is_none_fails_its_run_with_a_sentence() -> None:
    run = started(lambda run: run.spawn("child", errands, Errand(text="first"), tags=["Two words"]))
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["message"].startswith("“Two words” cannot be a tag: a tag is a word of small letters")
    assert not run.children.exists()


def test_a_fork_has_the_tags_of_its_original_unless_it_is_given_others() -> None:
    run = commands.start("counting", TEXT, by="operator", tags="vip")
    executor.advance(run.pk, owner="test")
    assert commands.fork(run.pk, step=1, by="operator").tags == ["vip"]
    assert commands.fork(run.pk, step=1, by="operator", tags=["again"]).tags == ["again"]
    assert commands.fork(run.pk, step=1, by="operator", tags=()).tags == []


def test_from_the_command_line() -> None:
    out = io.StringIO()
    call_command("run_agent", "counting", "--input", json.dumps(TEXT), "--tags", "vip, Region:eu", "--json", stdout=out)
    assert json.loads(out.getvalue())["tags"] == ["region:eu", "vip"]
    with pytest.raises(CommandError, match="--tags: “two words” cannot be a tag"):
        call_command("run_agent", "counting", "--input", json.dumps(TEXT), "--tags", "two words")
    assert Run.objects.count() == 1


# --- pages --------------------------------------------------------------------------------------------------------


def test_the_start_form_takes_tags_and_says_what_is_none(signed_in: Any) -> None:
    client, typed = signed_in(), {"value.text": "number one", "value.number": "3"}
    assert 'name="tags"' in client.get("/agents/counting/start/").text
    refused = client.post("/agents/counting/start/", typed | {"tags": "vip, <b>no</b>"})
    assert refused.status_code == 422
    assert "“&lt;b&gt;no&lt;/b&gt;” cannot be a tag" in refused.text
    assert 'value="vip, &lt;b&gt;no&lt;/b&gt;"' in refused.text
    assert not Run.objects.exists()
    assert client.post("/agents/counting/start/", typed | {"tags": "Vip, region:eu"}).status_code == 302
    assert Run.objects.get().tags == ["region:eu", "vip"]


def test_the_page_of_a_fork_begins_with_the_tags_of_the_original(signed_in: Any) -> None:
    run = commands.start("counting", TEXT, by="operator", tags="vip, region:eu")
    executor.advance(run.pk, owner="test")
    page = signed_in().get(f"/runs/{run.pk}/steps/1/fork/").text
    assert 'value="region:eu, vip"' in page
    sent = signed_in().post(f"/runs/{run.pk}/steps/1/fork/", {"config": "recorded", "tags": "again"})
    assert sent.status_code == 302
    assert Run.objects.latest("pk").tags == ["again"]
    assert signed_in().post(f"/runs/{run.pk}/steps/1/fork/", {"config": "recorded"}).status_code == 302
    assert Run.objects.latest("pk").tags == ["region:eu", "vip"], "where none are sent it has those of the original"
    assert signed_in().post(f"/runs/{run.pk}/steps/1/fork/", {"config": "recorded", "tags": ""}).status_code == 302
    assert Run.objects.latest("pk").tags == [], "they were taken out"


def test_a_run_shows_its_tags_on_its_page_in_the_list_and_in_files(signed_in: Any) -> None:
    client: Client = signed_in()
    run = commands.start("counting", TEXT, by="operator", tags=["vip", "region:eu", "third"])
    page = client.get(run.get_absolute_url()).text
    assert 'href="/runs/?tag=region%3Aeu&amp;children=show"' in page
    row = client.get("/runs/").text
    assert "region:eu · third +1" in row
    assert 'title="region:eu, third, vip"' in row
    assert json.loads(read(client, "/runs/export.json?tag=vip"))[0]["tags"] == run.tags


def test_the_longest_tag_stands_whole_on_its_page(signed_in: Any) -> None:
    run = commands.start("counting", TEXT, by="operator", tags=["x" * LONGEST])
    assert f"</span>{'x' * LONGEST}</a>" in signed_in().get(run.get_absolute_url()).text


# --- how it is found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=vip", "one two"),
        ("tag=VIP+,region:eu", "one"),
        ("tag=region:eu,late", ""),
        ("tag=nobody", ""),
        ("tag=,", "one two three"),
        ("tag=%00vip", "one two"),
        ("tag=two+words", ""),
        ("tag=vip&text=nothing", ""),
        ("tag=late&agent=counting", "two"),
    ],
)
def test_a_run_is_found_by_all_of_the_tags(query: str, found: str) -> None:
    given = {"one": "vip,region:eu", "two": "vip,late", "three": ""}
    runs = {commands.start("counting", TEXT, by="operator", tags=tags).pk: name for name, tags in given.items()}
    rows = RunFilters.read(QueryDict(query)).runs().values_list("pk", flat=True)
    assert {runs[pk] for pk in rows} == set(found.split())


def test_a_run_is_found_by_as_many_tags_as_it_may_have() -> None:
    tags = [f"{number}".rjust(LONGEST, "t") for number in range(MOST)]
    run = commands.start("counting", TEXT, by="operator", tags=tags)
    found = RunFilters.read(QueryDict(mutable=True) | {"tag": ", ".join(tags)})
    assert found.runs().get() == run
    assert found.tag == ", ".join(tags)


def test_the_filter_is_a_chip_and_keeps_what_was_typed(signed_in: Any) -> None:
    page = signed_in().get('/runs/?tag=vip,"><b>').text
    assert "Tagged vip, &quot;&gt;&lt;b&gt;" in page
    assert "More filters (1)" in page


def test_rare_tags_are_found_by_their_index_and_common_ones_in_the_order_of_the_list() -> None:
    first = commands.start("counting", TEXT, by="operator")
    with connection.cursor() as cursor:
        columns = ", ".join(one.column for one in Run._meta.fields if one.name not in ("id", "created_at", "tags"))
        cursor.execute(
            f"INSERT INTO runs_run (created_at, tags, {columns}) SELECT created_at + n * interval '1 second',"
            " CASE WHEN n %% 2000 = 0 THEN '{rare}' WHEN n %% 2 = 0 THEN '{common}' ELSE '{}' END::varchar[],"
            f" {columns} FROM runs_run, generate_series(1, 20000) AS n WHERE id = %s",
            [first.pk],
        )
        cursor.execute("ANALYZE runs_run")
    assert "run_tags" in plan("tag=rare")
    assert "run_top_newest" in plan("tag=common")


def plan(query: str) -> str:
    return RunFilters.read(QueryDict(query)).runs().order_by("-created_at", "-id")[:51].explain()
