"""The pages of runs and agents and the dashboard: what they show in every state, to whom, and how much they ask the database."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.test import Client
from django.utils import timezone

from reviews.models import Cause, Review
from runs import commands, describe, executor, latest, sdk
from runs.engine.events import Fact, Kind
from runs.engine.policy import Cause as PolicyCause
from runs.models import AgentConfig, Run, RunStatus, StepStatus, search
from runs.templatetags import shown
from tests import agents

pytestmark = pytest.mark.django_db


def start(slug="counting", **given):
    return commands.start(slug, {"text": "a message"} | given, by="operator")


def carried(slug="counting", **given):
    run = start(slug, **given)
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


@async_to_sync
async def whole(streamed):
    return b"".join([part async for part in streamed.streaming_content]).decode()


def raw_events(client, run, **query):
    return json.loads(whole(client.get(f"/runs/{run.pk}/events/", query | {"format": "json"})))["events"]


# --- the list ------------------------------------------------------------------------------------------------------


def test_an_empty_list_says_what_to_do(signed_in):
    page = signed_in().get("/runs/").text
    assert "There is no run yet" in page
    assert 'href="/agents/"' in page


def test_filters_that_nothing_fits_say_so(signed_in):
    start()
    assert "No run fits these filters" in signed_in().get("/runs/", {"text": "giraffe"}).text


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, {"one", "two"}),
        ({"agent": "paying"}, {"two"}),
        ({"status": "waiting"}, {"two"}),
        ({"status": "succeeded"}, {"one"}),
        ({"text": "ON"}, {"one"}),
        ({"text": "%"}, set()),
        ({"text": "o\x00ne"}, {"one"}),
        ({"status": "no-such"}, set()),
    ],
)
def test_the_list_is_filtered_by_agent_status_and_text(signed_in, filters, found):
    carried("counting", text="number one")
    carried("paying", text="number two")
    search.fill()
    page = signed_in().get("/runs/", filters).text
    assert {word for word in ("one", "two") if f"number {word}" in page} == found


def test_the_list_asks_the_database_the_same_for_one_run_and_for_fifty(signed_in, django_assert_max_num_queries):
    client = signed_in()
    for _ in range(50):
        start()
    # session, person, permissions, runs, agents, views, what is done to many at this moment, open reviews of the navigation
    with django_assert_max_num_queries(9):
        assert client.get("/runs/").text.count("run-link-") == 50


def test_pages_of_the_list_miss_and_double_nothing_while_runs_arrive(signed_in):
    client, wanted = signed_in(), [start().pk for _ in range(120)]
    Run.objects.update(created_at=timezone.now())  # all at once: the id decides
    seen, url = [], "/runs/"
    while url:
        page = client.get(url).context["page"]
        seen += [run.pk for run in page.rows]
        start()
        url = page.older and f"/runs/{page.older}"
    assert seen == sorted(wanted, reverse=True)


def test_a_page_keeps_its_filters(signed_in):
    for _ in range(51):
        start()
    page = signed_in().get("/runs/", {"agent": "counting"}).context["page"]
    assert "agent=counting" in page.older


@pytest.mark.parametrize("cursor", ["nonsense", "WyJhIl0:1abc:def"])
def test_a_cursor_this_site_did_not_make_is_not_found(signed_in, cursor):
    assert signed_in().get("/runs/", {"cursor": cursor}).status_code == 404


def test_the_list_is_asked_for_again_as_a_fragment(signed_in):
    start()
    part = signed_in().get("/runs/", headers={"HX-Request": "true"}).text
    assert part.lstrip().startswith('<div class="card" id="run-list"')


# --- the page of a run -----------------------------------------------------------------------------------------------


def test_a_run_that_succeeded_shows_each_step_and_its_output(signed_in):
    run = carried(number=2)
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert 'id="step-1"' in page
    assert 'id="step-2"' in page
    assert "agents.count" in page
    assert f'data-after="{run.last_seq}"' in page
    assert "Retry from where it ended" not in page
    assert "Yes, cancel" not in page


def test_a_run_that_waits_says_why_and_links_to_its_review(signed_in):
    run = carried("paying")
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert "It waits for a person at step 1 (Pay): a person must approve it first." in page
    assert f'href="/reviews/{run.reviews.get().pk}/"' in page


def test_a_queued_run_says_that_it_waits_for_a_job_process(signed_in):
    assert "No job process is running: it waits until an engineer starts one." in signed_in().get(f"/runs/{start().pk}/").text


def test_a_run_that_retries_says_when(signed_in):
    agents.FAILURES["busy"] = [agents.TryLater("The bank is busy", retry_after=600)]
    run = carried("stumbling", text="busy")
    page = re.sub("</?time[^>]*>", "", signed_in().get(f"/runs/{run.pk}/").text)
    assert f"It tries step 1 (Stumble) again {describe.when(run.wake_at)}, which failed: " in page
    assert "The bank is busy" in page


def test_a_failed_run_says_why_and_can_be_retried(signed_in):
    run = carried("asking")
    review = run.reviews.get()
    commands.decide(run.pk, 1, "reject", by="reviewer", fingerprint=review.fingerprint, reason="Not our business")
    executor.advance(run.pk, owner="test")
    client = signed_in()
    page = client.get(f"/runs/{run.pk}/").text
    assert "Not our business" in page
    assert "Rejected by reviewer" in page
    assert "Retry from where it ended" in page
    row = client.get("/runs/", {"status": "failed"}).text
    assert re.search(rf'id="run-failed-{run.pk}"[^>]*>[^<]*Not our business', row)
    assert client.post(f"/runs/{run.pk}/retry/").status_code == 302
    run.refresh_from_db()
    assert run.status == "queued"


def test_a_cancelled_run_was_cancelled_by_its_button(signed_in):
    run, client = carried("paying"), signed_in()
    answer = client.post(f"/runs/{run.pk}/cancel/", {"reason": "A mistake"}, follow=True)
    assert "Run was cancelled" in answer.text or "The run was cancelled" in answer.text
    assert "A mistake" in answer.text
    again = client.post(f"/runs/{run.pk}/cancel/", follow=True)
    assert "already ended" in again.text


def test_a_step_of_low_confidence_shows_it_against_the_threshold(signed_in):
    run = carried("guessing", number=3)
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert "Confidence </span><strong>0.30" in page
    assert "0.80" in page
    assert "because of its length" in page


def test_the_database_is_asked_as_often_for_twenty_steps_as_for_two(signed_in, django_assert_max_num_queries):
    client = signed_in()
    for number in (2, 20):
        run = carried(number=number)
        with django_assert_max_num_queries(15):
            assert client.get(f"/runs/{run.pk}/").status_code == 200


def test_a_long_run_shows_its_last_steps_and_leads_to_the_earlier_ones(signed_in, monkeypatch):
    monkeypatch.setattr("runs.cards.STEPS_SHOWN", 5)
    run, client = carried(number=12), signed_in()
    page = client.get(f"/runs/{run.pk}/").text
    assert 'id="step-12"' in page
    assert 'id="step-7"' not in page
    assert 'id="step-3"' in client.get(f"/runs/{run.pk}/?before=8").text


def test_long_content_is_folded_with_its_length(signed_in):
    run = carried("guessing", number=9, text="x" * 3_000)
    assert "3,000 letters" in signed_in().get(f"/runs/{run.pk}/").text


def test_markup_in_content_is_escaped(signed_in):
    run = carried("guessing", text="<script>alert(1)</script>")
    for path in (f"/runs/{run.pk}/", f"/runs/{run.pk}/events/", "/runs/", "/"):
        page = signed_in().get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page


def test_events_can_be_read_page_by_page_and_as_json(signed_in, monkeypatch):
    monkeypatch.setattr("runs.views.runs.EVENTS_A_PAGE", 4)
    run, client = carried(number=3), signed_in()
    first = client.get(f"/runs/{run.pk}/events/").text
    assert 'id="event-4"' in first
    assert "?after=4" in first
    events = raw_events(client, run, after=4)
    assert [event["seq"] for event in events] == list(range(5, run.last_seq + 1))
    assert all(len(event["hash"]) == 64 for event in events)


# --- agents, and starting one ------------------------------------------------------------------------------------------


GIVEN = {"value.text": "Count", "value.number": "2", "value.ledger": ""}


def test_the_start_form_starts_a_run_and_leads_to_it(signed_in):
    answer = signed_in().post("/agents/counting/start/", GIVEN)
    run = Run.objects.get()
    assert answer.url == f"/runs/{run.pk}/"
    assert (run.input["text"], run.input["number"], run.started_by) == ("Count", 2, "operator")


@pytest.mark.parametrize(
    "wrong", [{"text": ""}, {"text": "Count", "number": "many"}, {"text": "x" * 1_000_000}, {"text": "a\x00b"}]
)
def test_a_wrong_input_is_named_beside_its_field_and_starts_nothing(signed_in, wrong):
    answer = signed_in().post("/agents/counting/start/", wrong)
    assert answer.status_code in (409, 422)
    assert not Run.objects.exists()
    assert "invalid-feedback" in answer.text or "note mb-3 tone-red" in answer.text


def test_a_disabled_agent_starts_nothing_and_says_who_can_enable_it(signed_in):
    commands.configure("counting", by="admin", enabled=False)
    answer = signed_in().post("/agents/counting/start/", GIVEN)
    assert answer.status_code == 409
    assert "an admin can enable it" in answer.text
    assert not Run.objects.exists()


def test_an_unknown_agent_is_not_found(signed_in):
    for path in ("/agents/nobody/", "/agents/nobody/start/"):
        assert signed_in().get(path).status_code == 404


def test_agents_show_what_they_do_and_how_their_runs_went(signed_in):
    for page in ("/agents/", "/agents/counting/", "/agents/counting/start/"):
        assert "Counting" in signed_in("admin").get(page).text
    assert not AgentConfig.objects.filter(slug="counting").exists(), "looking changes nothing"
    carried()
    agents = signed_in().get("/agents/")
    assert "Counts in as many steps as it is told." in agents.text
    assert [row.latest.counts for row in agents.context["rows"] if row.latest.counts] == [{"succeeded": 1}]
    page = signed_in("admin").get("/agents/counting/").text
    assert "a message" in page
    assert "and all that are open" not in page
    assert "/admin/runs/agentconfig/" in page


def test_of_an_agent_with_a_long_history_the_newest_are_counted_and_all_that_are_open(signed_in, monkeypatch):
    waits, *_ = [carried(slug) for slug in ("paying", "paying", "counting")]
    for run in (waits, carried("counting"), carried("counting")):
        Run.objects.filter(pk=run.pk).update(agent="counting", agent_version=f"{run.pk}")
    monkeypatch.setattr(latest, "LATEST", 2)
    page = signed_in().get("/agents/counting/")
    assert page.context["row"].latest.counts == {"waiting": 1, "succeeded": 2}
    assert [(one["agent_version"], one["runs"]) for one in page.context["versions"]] == [
        (f"{waits.pk + 4}", 1),
        (f"{waits.pk + 3}", 1),
    ]
    assert "of the newest 1,000, and all that are open" in page.text


# --- who ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/runs/", "/runs/{run}/", "/runs/{run}/events/", "/agents/", "/agents/counting/"])
def test_strangers_sign_in_first_and_the_outsider_may_not_enter(signed_in, path):
    path = path.format(run=start().pk)
    assert Client().get(path).url.startswith("/accounts/login/")
    refused = signed_in("outsider").get(path)
    assert refused.status_code == 403
    assert "You may not see or do this" in refused.text
    assert signed_in("reviewer").get(path).status_code == 200


def test_a_reviewer_may_neither_start_nor_cancel_nor_retry(signed_in):
    run, client = start(), signed_in("reviewer")
    assert client.get("/agents/counting/start/").status_code == 403
    for path in ("/agents/counting/start/", f"/runs/{run.pk}/cancel/", f"/runs/{run.pk}/retry/"):
        assert client.post(path).status_code == 403
    assert "Cancel run" not in client.get(f"/runs/{run.pk}/").text


def test_a_change_is_never_made_by_a_get(signed_in):
    run = start()
    for verb in ("cancel", "retry"):
        assert signed_in().get(f"/runs/{run.pk}/{verb}/").url == f"/runs/{run.pk}/"
    assert Run.objects.get(pk=run.pk).last_seq == run.last_seq


@pytest.mark.parametrize("number", ["999999", str(2**63), "9" * 40])
def test_a_run_that_does_not_exist_is_not_found(signed_in, number):
    assert signed_in().get(f"/runs/{number}/").status_code == 404


# --- words and shapes -----------------------------------------------------------------------------------------------------------


def test_every_status_cause_and_decision_has_a_word_a_shape_and_a_sentence():
    assert {*RunStatus.values, *StepStatus.values} == set(shown.STATUSES)
    assert set(Cause.values) == set(shown.CAUSES)
    assert set(Cause.values) - {"sample"} == {str(cause) for cause in PolicyCause}, "nobody waits for the look at a sample"
    assert {str(cause) for cause in PolicyCause} == {str(cause) for cause in describe.CAUSES}
    assert set(Review.State.values) == set(shown.REVIEWS)
    assert set(shown.DECISIONS) == set(describe.DECISIONS)
    looks = [*shown.STATUSES.values(), *shown.CAUSES.values()]
    assert all(look.word and look.icon for look in looks)
    for group in (shown.STATUSES, shown.CAUSES):
        assert len({look.icon for look in group.values()}) == len(group)


def test_every_kind_of_event_has_a_sentence():
    assert set(describe.SENTENCES) == set(Kind)


def test_an_event_of_a_newer_version_is_still_shown():
    fact = Fact(1, "RunForked", {}, None, "", timezone.now(), "", "")
    assert describe.sentence(fact, {}).startswith("RunForked")


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, ""), (0, "under 1 ms"), (420, "420 ms"), (3_200, "3.2 s"), (999.7, "1.0 s"),
        (59_960, "1 min 0 s"), (125_000, "2 min 5 s"),
        (3_780_000, "1 h 3 min"), (86_399_000, "23 h 59 min"), (187_200_000, "2 d 4 h"),
    ],
)  # fmt: skip
def test_durations_are_said_in_two_units(milliseconds, words):
    assert shown.duration(milliseconds) == words


def test_files_of_others_are_as_their_authors_published_them():
    vendor = Path(settings.BASE_DIR) / "static" / "vendor"
    for directory, package in json.loads((vendor / "vendor.json").read_text()).items():
        there = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (vendor / directory).iterdir()}
        assert there == package["sha256"]
        assert "LICENSE" in there


__all__ = ["sdk"]
