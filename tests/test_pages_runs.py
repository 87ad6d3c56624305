"""The pages of runs and agents and the dashboard: what they show in every state, to whom, and how much they ask the database."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from allauth.core.internal import ratelimit
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django.utils.html import escape
from pydantic import BaseModel, Field

from agentops import dashboard
from reviews.models import Cause, Review
from runs import commands, describe, executor, sdk
from runs.engine.events import Fact, Kind
from runs.engine.policy import Cause as PolicyCause
from runs.models import Run, RunStatus, StepStatus
from runs.templatetags import shown
from tests import agents
from tests.cast import PASSWORD

pytestmark = pytest.mark.django_db


def start(slug="counting", **given):
    return commands.start(slug, {"text": "a message"} | given, by="operator")


def carried(slug="counting", **given):
    run = start(slug, **given)
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


@pytest.fixture
def signed_in(people):
    def client(name="operator"):
        made = Client()
        made.force_login(people[name])
        return made

    return client


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
    page = signed_in().get("/runs/", filters).text
    assert {word for word in ("one", "two") if f"number {word}" in page} == found


def test_the_list_asks_the_database_the_same_for_one_run_and_for_fifty(signed_in, django_assert_max_num_queries):
    client = signed_in()
    for _ in range(50):
        start()
    with django_assert_max_num_queries(7):  # session, person, 2 of permissions, runs, open reviews of the navigation
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
    assert f"It tries step 1 (Stumble) again at {run.wake_at:%H:%M:%S} UTC, which failed: " in page
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
    monkeypatch.setattr("runs.timeline.STEPS_SHOWN", 5)
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
    events = client.get(f"/runs/{run.pk}/events/", {"after": 4, "format": "json"}).json()["events"]
    assert [event["seq"] for event in events] == [5, 6, 7, 8][: len(events)]
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
    carried()
    assert "Counts in as many steps as it is told." in signed_in().get("/agents/").text
    page = signed_in("admin").get("/agents/counting/").text
    assert "a message" in page
    assert "/admin/runs/agentconfig/" in page


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


# --- signing in -------------------------------------------------------------------------------------------------------


def test_a_person_signs_in_changes_the_password_and_signs_out(people):
    client = Client()
    answer = client.post("/accounts/login/", {"login": "operator", "password": PASSWORD}, follow=True)
    assert answer.redirect_chain[-1][0] == "/"
    words = {"oldpassword": PASSWORD, "password1": "a-new-password-1", "password2": "a-new-password-1"}
    assert client.post("/accounts/password/change/", words).status_code == 302
    people["operator"].refresh_from_db()
    assert people["operator"].check_password("a-new-password-1")
    assert client.post("/accounts/logout/").status_code == 302
    assert client.get("/").status_code == 302


def test_a_wrong_password_is_said_on_the_form(people):
    answer = Client().post("/accounts/login/", {"login": "operator", "password": "wrong"})
    assert "not correct" in answer.text


def test_the_lock_out_after_wrong_passwords_says_how_long_it_lasts(people):
    for _ in range(5):
        Client().post("/accounts/login/", {"login": "operator", "password": "wrong"})
    answer = Client().post("/accounts/login/", {"login": "operator", "password": PASSWORD})
    assert "For up to 5 minutes even the right password is refused" in answer.text
    rates = ratelimit.get_rates(app="allauth.account", action="login_failed")
    assert max(rate.duration for rate in rates) == 5 * 60


@pytest.mark.parametrize(
    "path", ["signup", "email", "password/reset", "password/set", "confirm-email", "login/code/confirm", "phone/change"]
)
def test_pages_of_accounts_that_we_do_not_use_cannot_be_reached(people, path):
    client = Client()
    client.force_login(people["operator"])
    assert client.get(f"/accounts/{path}/").status_code == 404


# --- the dashboard ------------------------------------------------------------------------------------------------------


def test_the_dashboard_shows_what_needs_a_person_by_cause(signed_in):
    carried("paying", text="Pay me")
    carried("guessing", number=1)
    page = signed_in("reviewer").get("/")
    assert dict(page.context["causes"])[Cause.GATED] == 1
    assert dict(page.context["causes"])[Cause.LOW_CONFIDENCE] == 1
    assert Review.objects.open().count() == 2
    assert "Pay me" in page.text


def test_an_empty_dashboard_says_what_to_do(signed_in):
    page = signed_in().get("/").text
    assert "Nobody is needed" in page
    assert "There is no run yet" in page
    assert "No job process is alive" in page


@pytest.mark.parametrize("part", ["people", "runs", "machinery"])
def test_each_part_of_the_dashboard_can_be_asked_for(signed_in, part):
    answer = signed_in().get("/", {"part": part}).text
    assert f'id="{part}"' in answer
    assert "<html" not in answer


def test_the_dashboard_asks_the_database_little(signed_in, django_assert_max_num_queries):
    client = signed_in()
    for _ in range(12):
        carried("paying")
    with django_assert_max_num_queries(14):
        assert client.get("/").status_code == 200


def test_without_redis_the_dashboard_says_so(signed_in, monkeypatch):
    import redis

    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    with monkeypatch.context() as away:
        away.setattr(dashboard.django_rq, "get_connection", lambda name: nobody)
        page = signed_in().get("/")
    assert page.status_code == 200
    assert "Redis cannot be reached" in page.text


# --- the admin -------------------------------------------------------------------------------------------------------------


def test_an_admin_changes_a_configuration_and_its_history_names_who_and_what(signed_in):
    config, client = commands.configuration("counting"), signed_in("admin")
    url = f"/admin/runs/agentconfig/{config.pk}/change/"
    sent = {"enabled": "on", "threshold": "0.95", "attempts": "5", "values": "{}"}
    assert client.post(url, sent).status_code == 302
    config.refresh_from_db()
    assert (config.threshold, config.attempts, config.version, config.changed_by) == (0.95, 5, 2, "admin")
    page = client.get(url).text
    assert "threshold: 0.8 → 0.95" in page
    assert "made from the declaration" in page


class Opening(BaseModel):
    from_hour: int


class Limits(BaseModel):
    limit_eur: float = Field(default=25, ge=0)
    hours: list[Opening] = []


@pytest.fixture
def limits(db, monkeypatch):
    """The configuration of an agent that has settings."""
    monkeypatch.setitem(sdk.AGENTS, "counting", replace(sdk.AGENTS["counting"], config_model=Limits))
    return commands.configuration("counting")


REFUSED = [
    ("threshold", "1.5", "less than or equal to 1"),
    ("attempts", "0", "greater than or equal to 1"),
    ("values", "{not json", "This is not JSON: Expecting property name enclosed in double quotes in line 1, column 2."),
    ("values", '{"limit_eur": 1e400}', "The number inf cannot be stored."),
    ("values", '{"limit_eur": NaN}', "The number nan cannot be stored."),
    ("values", '{"limit_eur": %s}' % ("1" * 5_000), "A number is too long here"),
    ("values", "[" * 5_000, "nested too deeply"),
    ("values", '{"limit_eur": -1}', "limit_eur: Input should be greater than or equal to 0"),
    ("values", '{"limit_eur": "much"}', "limit_eur: Enter a number."),
    ("values", '{"limt_eur": 5}', "Unknown setting limt_eur; known: limit_eur, hours."),
    ("values", '{"hours": [{"from_hour": 8, "till": 9}]}', "Unknown setting hours.0.till; known: from_hour."),
    ("values", "[]", "Enter an object"),
    ("values", '"text"', "Enter an object"),
]


@pytest.mark.parametrize(("field", "value", "said"), REFUSED)
def test_a_configuration_that_does_not_fit_is_refused_with_a_sentence(signed_in, limits, field, value, said):
    sent = {"enabled": "on", "threshold": "0.9", "attempts": "3", "values": "{}"} | {field: value}
    answer = signed_in("admin").post(f"/admin/runs/agentconfig/{limits.pk}/change/", sent)
    assert answer.status_code == 200
    ((error,),) = answer.context["errors"]
    assert said in str(error)
    assert "Limits" not in str(error), "the name of a class is nothing to an admin"
    assert escape(value[:3_000]) in answer.text, "what was typed is still there"
    limits.refresh_from_db()
    assert limits.version == 1


def test_the_history_says_which_setting_was_changed_and_an_unchanged_save_makes_no_version(signed_in, limits):
    client = signed_in("admin")
    url = f"/admin/runs/agentconfig/{limits.pk}/change/"
    sent = {"enabled": "on", "threshold": "0.9", "attempts": "3", "values": '{"limit_eur": 60.0}'}
    sent |= {"run_steps": "1000", "run_repeats": "20", "reviews_per_run": "20", "reviews_per_agent": "200"}
    assert "(version 2)</a>” was changed successfully" in client.post(url, sent, follow=True).text
    again = client.post(url, sent | {"values": '{"hours": [], "limit_eur": 60}'}, follow=True).text
    assert "Nothing was changed: version 2 stays in force." in again
    assert client.post(url, sent | {"_continue": "1"})["Location"] == url
    limits.refresh_from_db()
    assert (limits.version, limits.values) == (2, {"limit_eur": 60, "hours": []})
    page = client.get(url).text
    assert "threshold: 0.8 → 0.9; limit_eur: 25 → 60<" in page
    assert page.count("made from the declaration") == 1


def test_a_threshold_too_small_to_be_told_from_nought_is_nought(signed_in, limits):
    sent = {"enabled": "on", "threshold": "1e-400", "attempts": "3", "values": "{}"}
    assert signed_in("admin").post(f"/admin/runs/agentconfig/{limits.pk}/change/", sent).status_code == 302
    limits.refresh_from_db()
    assert limits.threshold == 0


def test_an_agent_whose_stored_settings_fit_no_more_can_be_disabled(signed_in, limits):
    limits.values = {"gone": 1}
    limits.save()
    sent = {"threshold": "0.8", "attempts": "3", "values": '{"gone": 1}'}
    assert signed_in("admin").post(f"/admin/runs/agentconfig/{limits.pk}/change/", sent).status_code == 302
    limits.refresh_from_db()
    assert (limits.enabled, limits.values, limits.version) == (False, {"gone": 1}, 2)


def test_an_admin_looks_at_runs_and_steps_and_cannot_change_them(signed_in):
    run, client = carried(), signed_in("admin")
    assert client.get("/admin/runs/run/").status_code == 200
    assert client.get(f"/admin/runs/run/{run.pk}/change/").status_code == 200
    assert client.post(f"/admin/runs/run/{run.pk}/change/", {"status": "failed"}).status_code == 403
    assert client.get("/admin/runs/step/").status_code == 200


def test_an_admin_manages_people_but_makes_no_superuser_and_touches_none(signed_in, people):
    client, person = signed_in("admin"), people["reviewer"]
    url = f"/admin/auth/user/{person.pk}/change/"
    assert "is_superuser" not in client.get(url).text
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00"}
    answer = client.post(url, {"username": "reviewer", "first_name": "Robin", "is_active": "on", "is_superuser": "on"} | joined)
    assert answer.status_code == 302
    person.refresh_from_db()
    assert (person.first_name, person.is_superuser) == ("Robin", False)
    root = User.objects.create_superuser("root", password=PASSWORD)
    assert (
        client.post(f"/admin/auth/user/{root.pk}/password/", {"password1": "new-one-12", "password2": "new-one-12"}).status_code
        == 403
    )


def test_the_queues_are_linked_for_an_admin_and_closed_to_others(signed_in):
    assert "/admin/django_rq/dashboard/" in signed_in("admin").get("/").text
    assert signed_in("admin").get("/admin/django_rq/dashboard/").status_code == 200
    assert signed_in("operator").get("/admin/").status_code == 302


# --- words and shapes -----------------------------------------------------------------------------------------------------------


def test_every_status_cause_and_decision_has_a_word_a_shape_and_a_sentence():
    assert {*RunStatus.values, *StepStatus.values} == set(shown.STATUSES)
    assert set(Cause.values) == set(shown.CAUSES)
    assert set(Cause.values) - {"sample"} == {str(cause) for cause in PolicyCause}, "nobody waits for the look at a sample"
    assert {str(cause) for cause in PolicyCause} == {str(cause) for cause in describe.CAUSES}
    assert set(Review.State.values) == set(shown.REVIEWS)
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
