"""Signing in, and what an admin sees, changes and may not change."""

from dataclasses import replace

import pytest
from allauth.core.internal import ratelimit
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape
from pydantic import BaseModel, Field

from runs import commands, sdk
from tests.cast import PASSWORD
from tests.test_pages_runs import carried

pytestmark = pytest.mark.django_db


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
